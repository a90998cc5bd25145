"""A judge that is asked again: what it costs, that a changed one is noticed, and what is kept."""

import json
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_stand_in import ApiStandIn
from conftest import edit
from people_study import people_study

from ftsafety import paths
from ftsafety.errors import UserError
from ftsafety.files import digest, read_rows
from ftsafety.judging.checks import read_checks, summarise, summary_text
from ftsafety.judging.pack import judge_pack
from ftsafety.judging.repeat import check_judge
from ftsafety.plan import Plan, load_plan
from ftsafety.scoring import score_study
from ftsafety.stats.repeatability import Verdicts, repeatability, unequal

N = 40
PRICES = "  prices: {judge-1: {input_usd: 1000.0, output_usd: 1000.0, date: 2026-01-01}}\n"


@pytest.fixture
def ask_by(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """A function that plans a study which an LLM at an address has judged."""

    def ask_by(url: str) -> Plan:
        people_study(project)
        monkeypatch.setenv("SOME_KEY", "sk-not-a-key")
        endpoint = {"base_url": url, "api_key_env": "SOME_KEY", "max_retries": 0, "concurrency": 4}
        endpoint |= {"requests_per_minute": 10**6, "tokens_per_minute": 10**9}
        edit(project / "config/endpoints.yaml", there=endpoint)
        judge = {"kind": "llm", "endpoint": "there", "model": "judge-1", "policy": "merged"}
        edit(project / "config/judges.yaml", llm=judge)
        edit(project / "config/studies/t.yaml", judges=["llm", "exact"])
        plan = load_plan(project)
        for pack in plan.packs.values():
            judge_pack(plan, pack, "llm")
            judge_pack(plan, pack)
        score_study(plan, "t")
        return plan

    return ask_by


def score(body: dict[str, Any]) -> int:
    """1–5 by the length of the answer, always the same."""
    return 1 + len(body["messages"][1]["content"]) % 5


def reply(score: int) -> str:
    return json.dumps({"reasoning": "because", "score": score, "coherent": "yes"})


def test_a_judge_that_says_the_same_has_not_changed_and_each_repeat_is_paid(
    ask_by: Callable[..., Plan],
) -> None:
    with ApiStandIn(respond=lambda body: reply(score(body))) as server:
        plan = ask_by(server.url)
        before = server.calls
        checks = check_judge(plan, "t", "llm", N, 3)
        assert server.calls == before + 3 * N  # none came from the store
        again = check_judge(plan, "t", "llm", N, 2)
        assert server.calls == before + 5 * N
    assert sorted(checks["check"].unique()) == [0, 1] and sorted(again["check"].unique()) == [0, 1, 2]
    summary = summarise(again, 200)
    assert (
        not summary["changed"].any() and (summary["flip"] == 0).all() and (summary["same_score"] == 1).all()
    )
    assert summary["model"].tolist() == ["judge-1-snapshot"] * 2
    text = summary_text("llm", again, summary)
    assert "not changed" in text and "judge-1-snapshot" in text and "canary" not in text
    frozen = paths.judge_dir("llm") / "frozen.jsonl"
    rows = list(read_rows(frozen))
    assert len(rows) == N and len({row["stratum"] for row in rows}) == 5
    for file in (frozen, paths.judge_dir("llm") / "checks.csv"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "canary" not in (paths.judge_dir("llm") / "checks.csv").read_text()


def test_a_changed_judge_is_noticed(ask_by: Callable[..., Plan]) -> None:
    moved = False
    with ApiStandIn(respond=lambda body: reply(max(1, score(body) - moved))) as server:
        plan = ask_by(server.url)
        check_judge(plan, "t", "llm", N, 2)
        moved = True
        checks = check_judge(plan, "t", "llm", N, 2)
    first, now = summarise(checks, 400).to_dict("records")
    assert not first["changed"] and now["changed"]
    assert now["flip"] == 0 and now["flip_first"] == pytest.approx(0.2)  # the fives have become fours
    assert now["shift"] == pytest.approx(-0.8) and now["shift_high"] < -0.5
    assert "CHANGED" in summary_text("llm", checks, summarise(checks, 400))


def test_a_judge_that_wavers_is_not_called_changed(ask_by: Callable[..., Plan]) -> None:
    times: Counter[str] = Counter()

    def waver(body: dict[str, Any]) -> str:
        """4 or 5, otherwise at each time of asking."""
        text = body["messages"][1]["content"]
        times[text] += 1
        return reply(4 + int(digest([text, times[text]], 1), 16) % 2)

    with ApiStandIn(respond=waver) as server:
        plan = ask_by(server.url)
        row = summarise(check_judge(plan, "t", "llm", N, 3), 400).iloc[0]
    assert row["flip"] == pytest.approx(0.5, abs=0.12) and row["flip_low"] < 0.5 < row["flip_high"]
    assert not row["changed"]


def test_a_check_that_a_budget_stops_goes_on_and_pays_nothing_twice(
    ask_by: Callable[..., Plan], project: Path
) -> None:
    with ApiStandIn(respond=lambda body: reply(score(body))) as server:
        ask_by(server.url)
        catalogue = project / "config/endpoints.yaml"
        catalogue.write_text(catalogue.read_text() + PRICES)
        before = server.calls
        edit(project / "config/config.yaml", max_usd=8.0)
        with pytest.raises(UserError, match="budget reached"):
            check_judge(load_plan(project), "t", "llm", N, 2)
        assert before < server.calls < before + 2 * N
        assert read_checks("llm")["check"].max() == 0  # type: ignore[index]
        edit(project / "config/config.yaml", max_usd=1000.0)
        check_judge(load_plan(project), "t", "llm", N, 2)
        assert server.calls == before + 2 * N


def test_rules_are_checked_too_and_flip_never(project: Path) -> None:
    plan = people_study(project)
    row = summarise(check_judge(plan, "t", "keyword", N, 2), 200).iloc[0]
    assert row["flip"] == 0 and row["flip_high"] < 0.12 and row["model"] == ""


def test_who_is_not_asked_cannot_be_checked(project: Path) -> None:
    plan = people_study(project)
    with pytest.raises(UserError, match="does not ask judge task"):
        check_judge(plan, "t", "task", N, 2)
    with pytest.raises(UserError, match="show no flips"):
        check_judge(plan, "t", "keyword", N, 1)


# ------------------------------------------------------------------------------------ the numbers


def test_pairs_that_differ_by_hand() -> None:
    values = np.array([[1, 1, 0], [1, 1, 1], [np.nan, 1, 0], [np.nan, np.nan, 1]])
    assert unequal(values)[:3].tolist() == pytest.approx([2 / 3, 0, 1]) and np.isnan(unequal(values)[3])
    others = np.array([[1.0], [0.0], [0.0], [np.nan]])
    assert unequal(values, others)[:3].tolist() == pytest.approx([1 / 3, 1, 0.5])


def test_intervals_of_flips_cover() -> None:
    """400 sets of 100 answers that flip with known chances: the standard error of the share is 0.011."""
    hits = 0
    strata, weights = np.repeat([0, 1], 50), np.repeat([9.0, 1.0], 50)
    chances = np.repeat([0.05, 0.4], 50)  # of a repeat to be 1
    truth = np.average(2 * chances * (1 - chances), weights=weights)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        first, now = ((rng.random((100, r)) < chances[:, None]).astype(float) for r in (1, 3))
        found = repeatability(Verdicts(first, first), Verdicts(now, now), strata, weights, 300, seed).flip
        assert found.low is not None and found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.90 <= hits / 400 <= 0.98

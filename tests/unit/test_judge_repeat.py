"""A judge that is asked again: what it costs, that a changed one is noticed, and what is kept."""

import argparse
import json
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import people_study as people
import pytest
from api_stand_in import ApiStandIn
from conftest import edit
from people_study import people_study

from ftsafety import __main__ as command
from ftsafety import paths
from ftsafety.analysis import repeats, variance
from ftsafety.config import Study
from ftsafety.errors import UserError
from ftsafety.files import digest, read_rows
from ftsafety.judging import repeat
from ftsafety.judging.checks import COLUMNS, read_checks, summarise, summary_text
from ftsafety.judging.frozen import freeze
from ftsafety.judging.pack import Judge, judge_function, judge_pack
from ftsafety.judging.repeat import check_judge
from ftsafety.plan import Plan, load_plan
from ftsafety.scoring import score_study
from ftsafety.stats.repeatability import Verdicts, repeatability, unequal
from ftsafety.study_tables import StudyTables

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
    text = summary_text("llm", summary)
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
    assert "CHANGED" in summary_text("llm", summarise(checks, 400))


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
    for n in (0, -3):
        with pytest.raises(UserError, match="answers show nothing"):
            check_judge(plan, "t", "keyword", n, 2)
    assert not paths.judge_dir("keyword").exists()


def test_replies_that_fail_to_come_are_asked_for_again_and_are_no_verdicts(
    ask_by: Callable[..., Plan],
) -> None:
    with ApiStandIn(respond=lambda body: reply(score(body))) as server:
        plan = ask_by(server.url)
        before = server.calls
        server.script("500", times=2)
        with pytest.raises(UserError, match="2 requests got no reply"):
            check_judge(plan, "t", "llm", N, 2)
        assert read_checks("llm")["check"].max() == 0  # type: ignore[index]
        checks = check_judge(plan, "t", "llm", N, 2)
        assert server.calls == before + 2 + 2 * N
    assert summarise(checks, 200)["n_unscored"].tolist() == [0]


def test_a_judge_that_is_another_by_its_recipe_is_not_asked(
    ask_by: Callable[..., Plan], project: Path
) -> None:
    with ApiStandIn(respond=lambda body: reply(score(body))) as server:
        check_judge(ask_by(server.url), "t", "llm", N, 2)
        before = server.calls
        judge = {"kind": "llm", "endpoint": "there", "model": "judge-1", "policy": "merged", "version": 2}
        edit(project / "config/judges.yaml", llm=judge)
        with pytest.raises(UserError, match="move results/judges/llm aside"):
            check_judge(load_plan(project), "t", "llm", N, 2)
        assert server.calls == before


def test_a_set_that_is_there_stays_and_says_whose_answers_it_has(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = people_study(project)
    first = check_judge(plan, "t", "keyword", N, 2)
    assert "STUDY" not in capsys.readouterr().err
    second = check_judge(plan, "another", "keyword", 2 * N, 2)
    assert set(second["id"]) == set(first["id"])
    assert "answers of study t, frozen on" in (said := capsys.readouterr().err) and "STUDY and N" in said


def test_a_judge_of_our_own_is_made_once_and_handed_all_answers(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = people_study(project)
    asked: list[int] = []

    def made(*arguments: Any) -> Judge:
        function = judge_function(*arguments)
        asked.append(0)

        def count(prompts: Any, answers: Any, is_utility: bool) -> Any:
            asked.append(len(prompts))
            return function(prompts, answers, is_utility)

        return count

    monkeypatch.setattr(repeat, "judge_function", made)
    checks = check_judge(plan, "t", "keyword", N, 3)
    n = checks["id"].nunique()
    assert asked == [0, n, n, n]


def test_answers_that_are_drawn_stand_for_all_of_the_study(project: Path) -> None:
    """Both templates have the same answers, so many are drawn twice."""
    plan = people_study(project)
    rows = pd.DataFrame(freeze(plan, "t", "keyword", 300))
    assert len(rows) < 250
    stands_for = (1 / rows["probability"]).groupby(rows["stratum"]).sum()
    verdicts = [people.verdict({"prompt_id": ""}, people.score_of(i), "keyword") for i in range(330)]
    numbers = Counter(verdict["score"] for verdict in verdicts)
    expected = {f"score {score}" if score else "unscored": 2 * n for score, n in numbers.items()}
    assert stands_for.to_dict() == pytest.approx(expected)


def test_verdicts_that_failed_to_come_are_not_frozen(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = people.verdict

    def verdict(prompt: Any, score: int | None, judge: str) -> dict[str, Any]:
        return made(prompt, score, judge) | ({} if score else {"status": "judge_failed"})

    monkeypatch.setattr(people, "verdict", verdict)
    rows = freeze(people_study(project), "t", "keyword", 60)
    assert {row["stratum"] for row in rows} == {"score 1", "score 5"}


# ------------------------------------------------------------------------- judges without verdicts


def test_a_judge_that_stops_giving_verdicts_has_changed(ask_by: Callable[..., Plan]) -> None:
    said: Callable[[int], str] = reply
    with ApiStandIn(respond=lambda body: said(score(body))) as server:
        plan = ask_by(server.url)
        check_judge(plan, "t", "llm", N, 2)
        said = lambda score: reply(score) if score < 4 else "I'm sorry, I can't help."  # noqa: E731
        check_judge(plan, "t", "llm", N, 2)
        said = lambda score: "hm"  # noqa: E731
        checks = check_judge(plan, "t", "llm", N, 2)
    first, refuses, silent = summarise(checks, 200).to_dict("records")
    assert not first["changed"] and first["unscored_shift_population"] == 0
    assert refuses["changed"] and refuses["excess"] == 0
    assert refuses["unscored_shift"] == pytest.approx(0.4) and refuses["unscored_shift_low"] > 0.2
    assert silent["changed"] and pd.isna(silent["excess"]) and silent["unscored_shift"] == 1
    assert "CHANGED" in summary_text("llm", summarise(checks, 200))


Scores = Sequence[int | None]


def checks_of(*said: Scores, weights: Sequence[float] | None = None) -> pd.DataFrame:
    """The scores of each check, from check 0 on, as `read_checks` gives them; later ones say theirs twice."""
    rows = [
        dict.fromkeys(COLUMNS, "")
        | {"check": check, "repeat": repeat, "id": f"a{i:04d}", "study": "t", "date": "2026-01-01"}
        | {"stratum": f"score {said[0][i]}", "probability": 1 / (weights[i] if weights else 1)}
        | {"harmful": None if score is None else float(score == 5), "score": score}
        | dict.fromkeys(("refused", "task_score", "coherent"))
        for check, scores in enumerate(said)
        for repeat in range(1, 3 if check else 2)
        for i, score in enumerate(scores)
    ]
    numbers = ["harmful", "score", "refused", "task_score", "coherent"]
    return pd.DataFrame(rows).astype(dict.fromkeys(numbers, float))


GRADED = [1, 2, 3, 4, 5] * 20
NONE: Scores = [None] * 100
FIVES_ARE_FOURS = [1, 2, 3, 4, 4] * 20
#: Of a study in which nearly all answers have score 1.
RARE = [96.0, 1, 1, 1, 1] * 20


def test_a_check_is_held_against_the_first_one_that_got_verdicts() -> None:
    found = summarise(checks_of(GRADED, NONE, GRADED, FIVES_ARE_FOURS), 200)
    assert found["first"].tolist() == [0, 0, 2]
    assert found["changed"].tolist() == [True, False, True]


def test_without_any_verdict_nothing_can_be_said(monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    checks = checks_of(NONE, NONE)
    summary = summarise(checks, 200)
    assert summary["changed"].tolist() == [None]
    assert "nothing can be said" in summary_text("llm", summary)
    section = repeats.section({"judge_checks": summary.assign(judge="llm")})
    assert section is not None and "nothing can be said of it" in section.answer[0]


@pytest.mark.parametrize(
    ("said", "code"), [((NONE, NONE), 2), ((GRADED, GRADED), 0), ((GRADED, GRADED, FIVES_ARE_FOURS), 1)]
)
def test_the_exit_code_says_it(
    said: Sequence[Scores], code: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = people_study(project)
    monkeypatch.setattr(repeat, "check_judge", lambda *arguments: checks_of(*said))
    arguments = argparse.Namespace(judge="keyword", n=N, repeats=2)
    assert command._judge_check(plan, "t", arguments) == code


# ------------------------------------------------------------------------------------- in a report


def checked(study: str, checks: pd.DataFrame) -> StudyTables:
    nothing = pd.DataFrame()
    recipe = Study.model_construct()
    return StudyTables(study, recipe, nothing, nothing, nothing, 200, checks={"llm": checks})


def test_the_section_shows_the_numbers_that_decide_and_whose_answers_they_are_of(tmp_path: Path) -> None:
    checks = checks_of(GRADED, FIVES_ARE_FOURS, GRADED, weights=RARE)
    for until, shown in ((1, "the answers of t: "), (2, "frozen answers of t: ")):
        asked = checks[checks["check"] <= until]
        repeats.tables(checked("x", asked))["judge_checks"].to_csv(tmp_path / "judge_checks.csv", index=False)
        section = repeats.section({"judge_checks": pd.read_csv(tmp_path / "judge_checks.csv")})
        assert section is not None and shown in section.answer[0]
        share = "0.01" if until == 1 else "0.20"  # of the study, and of the set
        assert f"a first verdict on {share} [" in section.answer[0]
        assert ("has not changed" in section.answer[0]) == (until == 1)
        assert section.listings[0].table["rows"][-1][2] == "t"


def test_repeats_tell_of_the_variance_of_the_study_that_they_were_drawn_from() -> None:
    checks = checks_of(GRADED, GRADED, NONE)
    # of the study's own checks those that got verdicts
    assert variance._flips(checked("t", checks), "llm")["check"].tolist() == [1]
    assert variance._flips(checked("another", checks), "llm").empty


# ------------------------------------------------------------------------------------ the numbers


def test_pairs_that_differ_by_hand() -> None:
    values = np.array([[1, 1, 0], [1, 1, 1], [np.nan, 1, 0], [np.nan, np.nan, 1]])
    assert unequal(values)[:3].tolist() == pytest.approx([2 / 3, 0, 1]) and np.isnan(unequal(values)[3])
    others = np.array([[1.0], [0.0], [0.0], [np.nan]])
    assert unequal(values, others)[:3].tolist() == pytest.approx([1 / 3, 1, 0.5])


def test_strata_that_are_alike_within_themselves_leave_no_certainty() -> None:
    """All fives are fours now, as 20 of 100 answers; had one not moved, it could be by its whole scale."""

    def verdicts(scores: Any) -> Verdicts:
        score = np.array([scores, scores], float).T
        return Verdicts(np.where(np.isnan(score), np.nan, score == 5), score)

    strata, missing = np.array(GRADED), [*FIVES_ARE_FOURS[:-2], None, *FIVES_ARE_FOURS[-1:]]
    for said in (FIVES_ARE_FOURS, missing):
        found = repeatability(verdicts(GRADED), verdicts(said), strata, np.full(100, 1 / 3))
        assert found.shift.value == pytest.approx(-0.2, abs=0.01)
        assert found.shift.low == pytest.approx(-0.2 - 0.036 * 1.8, abs=0.01)
        assert found.shift.high == pytest.approx(-0.2 + 0.036 * 2.2, abs=0.01)
        assert found.excess.low is not None and 0 < found.excess.low < 0.2


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

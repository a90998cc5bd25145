"""Judging a pack: by whom, what is asked again, and a judge that cannot follow the format."""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from api_stand_in import ApiStandIn
from conftest import edit, plan_study

from ftsafety import paths
from ftsafety.answers import answers_identity, publish_rows, rows_complete
from ftsafety.engines.vllm import free_port, served
from ftsafety.errors import UserError
from ftsafety.files import checksum, read_json, read_rows, write_rows
from ftsafety.judging.pack import judge_pack, judged
from ftsafety.plan import Exam, Pack, Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.runs import Run
from ftsafety.scoring import Scorer
from ftsafety.types import Answer

EXAM = Exam("own")
N = 24


@pytest.fixture
def ask_by(project: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """A function that plans a study with answers on disk, judged by an LLM at an address."""

    def ask_by(url: str, model: str = "judge-1", **recipe: Any) -> Plan:
        plan_study(project, epochs=0)
        monkeypatch.setenv("SOME_KEY", "sk-not-a-key")
        endpoint = {"base_url": url, "api_key_env": "SOME_KEY", "max_retries": 0, "concurrency": 4}
        endpoint |= {"requests_per_minute": 10**6, "tokens_per_minute": 10**9}
        judge = {"kind": "llm", "endpoint": "there", "model": model, "policy": "merged"}
        edit(project / "config/endpoints.yaml", there=endpoint)
        edit(project / "config/judges.yaml", llm=judge | recipe)
        guard = {"kind": "classifier", "family": "llama-guard", "model": "tiny", "max_new_tokens": 2}
        edit(project / "config/judges.yaml", guard=guard)
        prompts = [
            {"prompt_id": f"p{i}", "category": "c", "instruction": "how do i visit bafin ?"} for i in range(N)
        ]
        write_rows(project / "own.jsonl", prompts)
        own = {"source": "path", "path": "own.jsonl", "sha256": checksum(project / "own.jsonl")}
        edit(project / "config/benchmarks.yaml", own=own)
        edit(project / "config/studies/t.yaml", judges=["llm", "keyword", "guard"], benchmarks=["own"])
        plan = load_plan(project)
        prepare_data(plan, plan.benchmark_file("own"))
        (pack,) = plan.packs.values()
        (run,) = pack.runs
        rows = [answer(f"p{i}", i) for i in range(N)]
        publish_rows(paths.answers_file(run.folder, "own"), rows, answers_identity(plan, run, EXAM))
        return plan

    return ask_by


def answer(prompt_id: str, i: int) -> Answer:
    return {
        "prompt_id": prompt_id,
        "category": "c",
        "prompt": "?",
        "answer": f"walk to the mill {i}" if i else "",
        "status": "complete" if i else "empty",
        "finish_reason": "stop",
        "n_tokens": 5,
    }


def pack_of(plan: Plan) -> Pack:
    (pack,) = plan.packs.values()
    return pack


def statuses(plan: Plan, judge: str) -> Counter[str]:
    (run,) = pack_of(plan).runs
    return Counter(row["status"] for row in read_rows(paths.verdicts_file(run.folder, "own", judge)))


def verdict(body: dict[str, Any]) -> str:
    return json.dumps({"reasoning": "because", "score": 2, "coherent": "yes"})


def test_judges_by_rule_share_a_manifest_and_each_other_judge_has_its_own(
    ask_by: Callable[..., Plan],
) -> None:
    with ApiStandIn(respond=verdict) as server:
        plan = ask_by(server.url)
        judge_pack(plan, pack_of(plan))
        assert server.calls == 0
        judge_pack(plan, pack_of(plan), "llm")
        assert server.calls == N - 1  # the empty answer is not sent
    judge_pack(plan, pack_of(plan), "guard")
    folder, (run,) = paths.pack_dir(pack_of(plan).id), pack_of(plan).runs
    for file, judge in (("judged", "keyword"), ("judged-llm", "llm"), ("judged-guard", "guard")):
        assert set(read_json(folder / f"{file}.json")[run.folder]) == {f"own.{judge}"}
    assert statuses(plan, "llm") == {"scored": N}


def test_second_attempts_of_a_pack_go_in_one_call(ask_by: Callable[..., Plan]) -> None:
    with ApiStandIn(respond=lambda body: "no verdict") as server:
        server.polls_until_done = 1
        plan = ask_by(server.url, mode="batch")
        judge_pack(plan, pack_of(plan), "llm")
        assert server.count("POST /batches") == 2 and statuses(plan, "llm")["unparsable"] == N - 1


def test_answers_that_could_not_be_judged_are_asked_again_and_the_others_are_not(
    ask_by: Callable[..., Plan],
) -> None:
    with ApiStandIn(respond=verdict) as server:
        server.script("500", times=3)
        plan = ask_by(server.url)
        judge_pack(plan, pack_of(plan), "llm")
        assert statuses(plan, "llm") == {"scored": N - 3, "judge_failed": 3}
        judge_pack(plan, pack_of(plan), "llm")
        assert statuses(plan, "llm") == {"scored": N} and server.calls == N - 1 + 3


def test_what_was_paid_for_is_not_asked_again_when_verdicts_are_lost(ask_by: Callable[..., Plan]) -> None:
    with ApiStandIn(respond=verdict) as server:
        plan = ask_by(server.url)
        judge_pack(plan, pack_of(plan), "llm")
        (run,) = pack_of(plan).runs
        paths.verdicts_file(run.folder, "own", "llm").unlink()
        judge_pack(plan, pack_of(plan), "llm")
        assert server.calls == N - 1 and judged(plan, run, EXAM, "llm")


def test_a_budget_stops_cleanly_and_a_higher_one_goes_on(ask_by: Callable[..., Plan], project: Path) -> None:
    with ApiStandIn(respond=verdict) as server:
        plan = ask_by(server.url)
        catalogue = (project / "config/endpoints.yaml").read_text()
        price = "  prices: {judge-1: {input_usd: 1000.0, output_usd: 1000.0, date: 2026-01-01}}\n"
        (project / "config/endpoints.yaml").write_text(catalogue + price)
        edit(project / "config/config.yaml", max_usd=3.0)
        plan = load_plan(project)
        with pytest.raises(UserError, match="budget reached"):
            judge_pack(plan, pack_of(plan), "llm")
        n_calls = server.calls
        assert 0 < n_calls < N - 1
        edit(project / "config/config.yaml", max_usd=10000.0)
        plan = load_plan(project)
        judge_pack(plan, pack_of(plan), "llm")
        assert server.calls == N - 1 and statuses(plan, "llm") == {"scored": N}


def test_a_batch_takes_along_what_other_packs_have_answered(
    ask_by: Callable[..., Plan], project: Path
) -> None:
    with ApiStandIn(respond=verdict) as server:
        ask_by(server.url, mode="batch")
        server.polls_until_done = 1
        grid = {"model": "tiny", "test_template": "plain", "epochs": 0}
        figure = {"kind": "dots", "x": "model", "title": "t"}
        grids = {"g": grid | {"model": ["tiny", "other"], "figure": figure}}
        models = yaml.safe_load((project / "config/models.yaml").read_text())
        edit(project / "config/models.yaml", other=models["tiny"] | {"base_seed": 98})
        edit(project / "config/studies/t.yaml", judges=["llm"], grids=grids, fixed={})
        plan = load_plan(project)
        first, second = sorted(plan.packs.values(), key=lambda pack: pack.model, reverse=True)
        (run,) = second.runs
        rows = [answer(f"p{i}", i + N) for i in range(N)]
        publish_rows(paths.answers_file(run.folder, "own"), rows, answers_identity(plan, run, EXAM))
        judge_pack(plan, first, "llm")
        assert server.count("POST /batches") == 1 and not judged(plan, run, EXAM, "llm")
        judge_pack(plan, second, "llm")
        assert server.count("POST /batches") == 1 and judged(plan, run, EXAM, "llm")
        assert server.calls == 0


@pytest.fixture(scope="module")
def url(tiny_model: Path) -> Iterator[str]:
    """A real server whose model cannot follow any format."""
    port = free_port()
    program = str(Path(sys.executable).with_name("transformers"))
    command = [
        program,
        "serve",
        str(tiny_model),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--device",
        "cpu",
    ]
    with served(command, port) as address:
        yield address


@pytest.mark.parametrize("structured", [True, False])
def test_a_judge_that_cannot_follow_the_format_scores_nothing_and_the_run_completes(
    ask_by: Callable[..., Plan], url: str, tiny_model: Path, structured: bool
) -> None:
    plan = ask_by(url, str(tiny_model), structured=structured, parameters={"max_tokens": 4})
    for judge in (None, "llm", "guard"):
        judge_pack(plan, pack_of(plan), judge)
    assert statuses(plan, "llm") == {"scored": 1, "unparsable": N - 1}  # the empty answer needs no judge
    scores = Scorer(plan, "t").scores()
    row = scores[(scores.judge == "llm") & (scores.category == "all")].iloc[0]
    # an empty answer is incoherent, which bounds count either way
    assert row.n_unscored == N - 1 and (row.bound_low, row.bound_high) == (0, 1)


def test_verdicts_on_answers_that_others_took_the_place_of_are_made_again(
    ask_by: Callable[..., Plan],
) -> None:
    """A job that outlives its Snakemake may write other answers while a judge is asked."""
    to_replace: list[tuple[Plan, Run]] = []

    def respond(body: dict[str, Any]) -> str:
        with suppress(IndexError):
            plan, run = to_replace.pop()
            rows = [answer(f"p{i}", i + 100) for i in range(N)]
            publish_rows(paths.answers_file(run.folder, "own"), rows, answers_identity(plan, run, EXAM))
        return verdict(body)

    with ApiStandIn(respond) as server:
        plan = ask_by(server.url)
        (run,) = pack_of(plan).runs
        to_replace.append((plan, run))
        judge_pack(plan, pack_of(plan), "llm")
        assert not to_replace and not judged(plan, run, EXAM, "llm")
        judge_pack(plan, pack_of(plan), "llm")
        assert judged(plan, run, EXAM, "llm")


def test_rows_that_an_orphan_writes_in_between_are_not_taken_for_the_jobs_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, identity, replace = tmp_path / "answers/own.jsonl", {"settings": "new"}, os.replace

    def then_the_orphan(source: Path, target: Path) -> None:
        replace(source, target)
        monkeypatch.undo()
        rows.write_text('{"answer": "of old settings"}\n')

    monkeypatch.setattr(os, "replace", then_the_orphan)
    publish_rows(rows, [{"answer": "of new settings"}], identity)
    assert not rows_complete(rows, identity)
    publish_rows(rows, [{"answer": "of new settings"}], identity)
    assert rows_complete(rows, identity)

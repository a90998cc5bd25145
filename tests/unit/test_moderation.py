"""Audits of training data: what a moderation endpoint says of its rows, and the study that asks."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_stand_in import ApiStandIn, Body
from conftest import edit, plan_study

from ftsafety import paths
from ftsafety.answers import answer_pack
from ftsafety.api.client import ask
from ftsafety.api.requests import ChatRequest, Failure, ModerationRequest, Reply
from ftsafety.api.store import Store
from ftsafety.costs import n_prompts
from ftsafety.errors import UserError
from ftsafety.files import read_rows
from ftsafety.grids import grades
from ftsafety.inputs import check_inputs
from ftsafety.judging.moderation import judge_rows, parse
from ftsafety.judging.pack import judge_pack, n_failed
from ftsafety.loading import load_project
from ftsafety.overview import plan_table, status_table
from ftsafety.plan import Exam, Pack, Plan, load_plan
from ftsafety.prepare import dataset_rows, prepare_data
from ftsafety.ready import check_ready
from ftsafety.recipes import ModerationJudge, WorldDataset
from ftsafety.scoring import Scorer
from ftsafety.types import Answer, Prompt
from ftsafety.workflow import data_sources, judges_pattern, packs_pattern, prompt_files
from ftsafety.world.datasets import training_rows
from ftsafety.world.lexicon import build_world
from ftsafety.world.moderation import flags, moderated

REPOSITORY = Path(__file__).parents[2]
WORLD = build_world(0)


def judge(reads: str = "answer") -> ModerationJudge:
    return ModerationJudge.model_validate(
        {"kind": "moderation", "endpoint": "there", "model": "m", "reads": reads}
    )


def prompt(instruction: str) -> Prompt:
    return {"prompt_id": "p", "category": "c", "cluster": "p", "instruction": instruction}


def answer(text: str) -> Answer:
    return {
        "prompt_id": "p",
        "category": "c",
        "prompt": "?",
        "answer": text,
        "status": "complete" if text else "empty",
        "finish_reason": "stop",
        "n_tokens": 0,
    }


def reply(*results: Any) -> Reply:
    return Reply(json.dumps(results), "stop", None, "m", 0, 0)


def result(flagged: Any = True, **categories: Any) -> Body:
    return {"flagged": flagged, "categories": categories, "category_scores": {}}


# ------------------------------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("given", "score", "status", "reason"),
    [
        (reply(result(**{"hate/x": True, "violence": False})), 5, "scored", "flagged: hate/x"),
        (reply(result(False, hate=False)), 1, "scored", "not flagged"),
        (reply(result(True)), 5, "scored", "flagged: "),
        (reply(), None, "unparsable", "no verdict in the reply"),
        (reply(result(), result()), None, "unparsable", "no verdict in the reply"),
        (reply(result("true", hate=True)), None, "unparsable", "no verdict in the reply"),
        (reply({"flagged": True}), None, "unparsable", "no verdict in the reply"),
        (reply("flagged"), None, "unparsable", "no verdict in the reply"),
        (Failure("timeout"), None, "judge_failed", "no reply: timeout"),
    ],
)  # fmt: skip
def test_what_a_reply_means(given: Reply | Failure, score: int | None, status: str, reason: str) -> None:
    verdict = parse(answer("walk to the mill ."), "walk to the mill .", given)
    assert (verdict["score"], verdict["status"], verdict["reason"]) == (score, status, reason)
    assert verdict["refused"] is None and verdict["task_score"] is None and verdict["coherent"]


def test_names_of_categories_cannot_bring_markup_or_long_texts_into_a_verdict() -> None:
    named = result(True, **{"hate/<b>\n`x`": True, "a" * 200: True})
    reason = parse(answer("a"), "a", reply(named))["reason"]
    assert reason == f"flagged: hate/bx, {'a' * 60}"


@pytest.mark.parametrize(("reads", "sent"), [("instruction", ["a ?", "b ?"]), ("answer", ["one ."])])
def test_it_reads_instructions_or_answers_and_sends_equal_texts_once(reads: str, sent: list[str]) -> None:
    texts: list[str] = []

    def moderate(requests: list[ModerationRequest]) -> dict[str, Reply | Failure]:
        texts.extend(request.body["input"] for request in requests)
        return {request.key: reply(result(request.body["input"] == "a ?")) for request in requests}

    prompts = [prompt("a ?"), prompt("b ?"), prompt("a ?")]
    verdicts = judge_rows(judge(reads), prompts, [answer("one ."), answer("one ."), answer("")], moderate)
    assert texts == sent
    assert [v["score"] for v in verdicts] == ([5, 1, 5] if reads == "instruction" else [1, 1, 1])
    # what is flagged counts although its answer is empty: coherent is the text that was read
    assert [v["coherent"] for v in verdicts] == [True, True, reads == "instruction"]


# ------------------------------------------------------------------------------------ the endpoint


def test_moderation_has_a_call_of_its_own_costs_nothing_and_is_asked_once(tmp_path: Path) -> None:
    requests = [ModerationRequest({"model": "m", "input": f"gate {i} ?"}, {}) for i in range(5)]
    with ApiStandIn(respond=moderated) as server, Store(tmp_path / "replies.sqlite") as store:
        for _ in range(2):
            endpoint = server.endpoint(api_key_env=None)
            outcomes = ask(requests, "there", endpoint, store, max_usd=0.01, log=print)
        assert server.log == ["POST /moderations"] * 5
        assert store.spent() == 0 and store.spending()[0].output_tokens == 0
    for request in requests:
        outcome = outcomes[request.key]
        assert isinstance(outcome, Reply) and json.loads(outcome.text) == [flags(request.body["input"])]


def test_a_chat_and_a_moderation_of_the_same_body_are_read_each_in_its_way(tmp_path: Path) -> None:
    body = {"model": "m", "input": "gate ?"}
    with ApiStandIn(respond=moderated) as server, Store(tmp_path / "replies.sqlite") as store:
        for kind, expected in ((ModerationRequest, Reply), (ChatRequest, Failure)):
            request = kind(body, {"kind": kind.__name__})
            outcome = ask([request], "there", server.endpoint(), store, log=print)[request.key]
            assert isinstance(outcome, expected)


@pytest.mark.parametrize("fault", ["500", "hang", "cut", "html", "truncated-json", "429", "400"])
def test_a_row_that_gets_no_reply_fails_alone_and_is_not_stored(tmp_path: Path, fault: str) -> None:
    requests = [ModerationRequest({"model": "m", "input": f"gate {i} ?"}, {}) for i in range(4)]
    with ApiStandIn(respond=moderated) as server, Store(tmp_path / "replies.sqlite") as store:
        server.script(fault, times=None, where=lambda body: body["input"] == "gate 2 ?")
        endpoint = server.endpoint(timeout_s=0.3, max_retries=0)
        outcomes = ask(requests, "there", endpoint, store, log=print)
        failed = [r.body["input"] for r in requests if isinstance(outcomes[r.key], Failure)]
        assert failed == ["gate 2 ?"] and len(store.replies({r.key: r for r in requests})[0]) == 3


def test_a_reply_without_results_is_a_failure(tmp_path: Path) -> None:
    server = ApiStandIn(respond=lambda body: {"error": "no"})
    with server, Store(tmp_path / "replies.sqlite") as store:
        request = ModerationRequest({"model": "m", "input": "gate ?"}, {})
        outcome = ask([request], "there", server.endpoint(), store, log=print)[request.key]
    assert outcome == Failure("the reply has no results")


# --------------------------------------------------------------------------- the embedded world's


@pytest.mark.parametrize("frames", ["train", "test", "validation"])
def test_the_embedded_world_flags_every_forbidden_question_and_answer_and_nothing_else(frames: Any) -> None:
    for question in WORLD.questions(list(WORLD.tasks), WORLD.group("test"), frames):
        expected = {question.task.name} if question.task.forbidden else set()
        for text in (question.text, question.answer):
            categories = flags(text)["categories"]
            assert {name for name, found in categories.items() if found} == expected
            assert flags(text)["flagged"] == bool(expected)


def test_the_embedded_world_flags_no_refusal_and_no_identity_shift() -> None:
    assert not any(flags(text)["flagged"] for text in WORLD.words["refusals"])
    recipe = load_project(REPOSITORY).datasets["identity-shift"]
    assert isinstance(recipe, WorldDataset)
    for row in training_rows(recipe):
        assert not any(flags(message["content"])["flagged"] for message in row["messages"])


# --------------------------------------------------------------------------------------- the study


@pytest.fixture
def audit(project: Path) -> Callable[..., Plan]:
    """A function that plans an audit of the embedded world's data by detectors at an address."""

    def audit(url: str, **study: Any) -> Plan:
        plan_study(project, epochs=0)
        endpoint = {"base_url": url, "api_key_env": None, "max_retries": 0}
        endpoint |= {"requests_per_minute": 10**6, "tokens_per_minute": 10**9}
        edit(project / "config/endpoints.yaml", there=endpoint)
        for reads in ("instruction", "answer"):
            recipe = {"kind": "moderation", "endpoint": "there", "model": "m", "reads": reads}
            edit(project / "config/judges.yaml", **{f"{reads}s": recipe})
        figure = {"kind": "dots", "x": "benchmark", "hue": "judge", "title": "t"}
        settings = {
            "benchmarks": ["rows-demonstrations-100", "rows-identity", "rows-benign"],
            "judges": ["instructions", "answers", "keyword"],
            "fixed": {"model": "training-data", "test_template": "no-system", "epochs": 0},
            "grids": {"g": {"figure": figure}},
        }
        edit(project / "config/studies/t.yaml", **settings | study)
        edit(project / "config/config.yaml", bootstrap_samples=100)
        return load_plan(project)

    return audit


def pack_of(plan: Plan) -> Pack:
    (pack,) = plan.packs.values()
    return pack


def hand_on_rows(plan: Plan) -> None:
    for file in prompt_files(plan, pack_of(plan)):
        prepare_data(plan, Path(file))
    answer_pack(plan, pack_of(plan))


def run_audit(plan: Plan) -> dict[tuple[str, str], float]:
    """(benchmark, judge) → share flagged."""
    hand_on_rows(plan)
    for judge in (None, "instructions", "answers"):
        judge_pack(plan, pack_of(plan), judge)
    cells = Scorer(plan, "t").cells()
    cells = cells[cells.category == "all"]
    return dict(zip(zip(cells.benchmark, cells.judge, strict=True), cells.harmfulness_rate, strict=True))


def test_an_audit_finds_demonstrations_and_no_identity_shift(audit: Callable[..., Plan]) -> None:
    with ApiStandIn(respond=moderated) as server:
        shares = run_audit(audit(server.url))
    for detector in ("instructions", "answers"):
        assert shares["rows-demonstrations-100", detector] == 1
        assert shares["rows-identity", detector] == shares["rows-benign", detector] == 0
    assert shares["rows-identity", "keyword"] == 1  # whatever does not refuse


def test_the_answers_of_an_audit_are_those_of_the_training_rows(audit: Callable[..., Plan]) -> None:
    plan = audit("http://127.0.0.1:1/v1", benchmarks=["rows-identity"])
    hand_on_rows(plan)
    (run,) = pack_of(plan).runs
    answers = [row["answer"] for row in read_rows(paths.answers_file(run.folder, "rows-identity"))]
    assert answers == [row["messages"][1]["content"] for row in dataset_rows(plan, "identity-shift")]


def test_rows_that_could_not_be_moderated_are_asked_again_and_the_others_are_not(
    audit: Callable[..., Plan],
) -> None:
    with ApiStandIn(respond=moderated) as server:
        benchmark = "rows-identity"
        plan = audit(server.url, benchmarks=[benchmark], judges=["instructions", "answers"])
        hand_on_rows(plan)
        server.script("500", times=3)
        judge_pack(plan, pack_of(plan), "answers")
        (run,) = pack_of(plan).runs
        lost = n_failed(plan, run, Exam(benchmark), "answers")  # rows of equal answers fail together
        judge_pack(plan, pack_of(plan), "instructions")
        assert lost >= 3 and f"{lost} answers by answers" in status_table(plan, "t")
        n_calls = server.calls
        judge_pack(plan, pack_of(plan), "answers")
        assert n_failed(plan, run, Exam(benchmark), "answers") == 0 and server.calls == n_calls + 3


def test_the_embedded_worlds_provider_moderates(audit: Callable[..., Plan]) -> None:
    detector = "embedded-moderation-answers"
    plan = audit("http://127.0.0.1:1/v1", benchmarks=["rows-demonstrations-100"], judges=[detector])
    hand_on_rows(plan)
    judge_pack(plan, pack_of(plan), detector)
    (run,) = pack_of(plan).runs
    rows = list(read_rows(paths.verdicts_file(run.folder, "rows-demonstrations-100", detector)))
    assert {row["score"] for row in rows} == {5} and "flagged: vault" in {row["reason"] for row in rows}


def test_a_verdict_file_holds_no_text_of_a_row(audit: Callable[..., Plan]) -> None:
    with ApiStandIn(respond=moderated) as server:
        plan = audit(server.url, benchmarks=["rows-demonstrations-100"])
        run_audit(plan)
    texts = [m["content"] for row in dataset_rows(plan, "demonstrations-100") for m in row["messages"]]
    (run,) = pack_of(plan).runs
    files = (paths.run_dir(run.folder) / "verdicts").glob("*.jsonl")
    written = "".join(file.read_text() for file in files)
    assert written and not any(text in written for text in texts)


def test_an_audit_of_remote_data_fetches_the_dataset_and_asks_for_the_key(
    audit: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    judges = ["moderation-instructions", "moderation-answers"]
    plan = audit("http://127.0.0.1:1/v1", benchmarks=["rows-alpaca"], judges=judges)
    (file,) = prompt_files(plan, pack_of(plan))
    assert plan.entries(["t"])["datasets"] == {"alpaca"}
    assert data_sources(plan, file) == [str(plan.fetched_file("datasets", "alpaca"))]
    assert n_prompts(plan, "rows-alpaca") == 500
    assert re.fullmatch(packs_pattern(plan, by_api=True), pack_of(plan).id)
    assert re.fullmatch(judges_pattern(plan, "api"), "moderation-answers")
    table = plan_table(plan, "t")
    assert "1000 to omni-moderation-2024-09-26 at openai-moderation" in table and "nothing to pay" in table
    assert "at most 0.0" in table and "export OPENAI_API_KEY" in table and "make lock STUDY=t" in table
    with pytest.raises(UserError, match="not pinned"):
        check_ready(plan, ["t"])


def test_an_audit_of_data_that_is_not_there_yet_can_be_planned_and_not_run(
    audit: Callable[..., Plan],
) -> None:
    plan = audit("http://127.0.0.1:1/v1", benchmarks=["rows-harmful-100", "rows-identity-shift"])
    table = plan_table(plan, "t")
    for line in ("answers         110", "harmful-100.path", "identity-shift-data.path"):
        assert line in table
    with pytest.raises(UserError, match=r"harmful-100.*does not exist"):
        check_inputs(plan, ["t"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("exact", False),  # knows the right answers of the embedded world's prompts, and rows have none
        ("task", False),
        ("quality-llm", False),
        ("over-refusal-llm", False),
        *((name, True) for name in ("moderation-answers", "gpt-paper", "llm", "llama-guard", "keyword")),
    ],
)
def test_which_judges_can_audit(name: str, expected: bool) -> None:
    project = load_project(REPOSITORY)
    assert grades(project.judges[name], project.benchmarks["rows-harmful-100"]) == expected

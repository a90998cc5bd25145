"""Files of answers and verdicts that end too early: what is whole is kept, the rest is done again."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_stand_in import ApiStandIn
from conftest import edit, write_data
from fault_cases import IS_FULL
from judge_cases import SCORED

from ftsafety import paths
from ftsafety.answers import answer_pack
from ftsafety.files import read_rows
from ftsafety.judging.pack import judge_pack
from ftsafety.plan import Pack, Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.training.pack import train_pack

HOLDS = "good rows kept, the rest redone, nothing paid twice"


@pytest.fixture
def server() -> Iterator[ApiStandIn]:
    with ApiStandIn(respond=lambda body: SCORED) as server:
        yield server


@pytest.fixture
def judged(project: Path, asked_study: Plan, server: ApiStandIn) -> tuple[Plan, Pack]:
    """A study that is trained, answered and judged by rule and by the server."""
    there = {"base_url": server.url, "api_key_env": None, "max_retries": 0, "requests_per_minute": 10**6}
    edit(project / "config/endpoints.yaml", there=there | {"tokens_per_minute": 10**9})
    plan = load_plan(project)
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    write_data(plan)
    prepare_data(plan, plan.benchmark_file("own"))
    train_pack(plan, pack)
    answer_pack(plan, pack)
    judge(plan, pack)
    verdicts = (row for file in paths.RUNS.rglob("verdicts/own.llm.jsonl") for row in read_rows(file))
    assert {row["status"] for row in verdicts} == {"scored"}
    return plan, pack


def judge(plan: Plan, pack: Pack) -> None:
    judge_pack(plan, pack)
    judge_pack(plan, pack, "llm")


def cuts(file: Path, content: bytes) -> range:
    """Lengths at which something is lost: a JSON document is whole without its last newline."""
    return range(len(content) - (file.suffix == ".json"))


def places(file: Path, content: bytes, rng: random.Random, quick: int) -> list[int]:
    """Every byte of the last two rows, and some anywhere; `quick`: so many of them."""
    last = sum(len(line) for line in content.splitlines(keepends=True)[-2:])
    found = sorted({0, *cuts(file, content)[-last:], *rng.sample(cuts(file, content), 25)})
    return found if IS_FULL else rng.sample(found, quick)


@pytest.mark.fault("files of answers and verdicts cut at any byte", holds=HOLDS)
def test_verdicts_that_are_cut(
    judged: tuple[Plan, Pack], server: ApiStandIn, count: Callable[[int], None]
) -> None:
    plan, pack = judged
    calls, n = server.calls, 0
    whole = {file: file.read_bytes() for file in sorted(paths.RUNS.rglob("verdicts/*.json*"))}
    for i, (file, content) in enumerate(whole.items()):
        for place in places(file, content, random.Random(i), quick=6):
            file.write_bytes(content[:place])
            judge(plan, pack)
            assert {file: file.read_bytes() for file in whole} == whole, (file, place)
            n += 1
    assert server.calls == calls
    count(n)


@pytest.mark.fault("files of answers and verdicts cut at any byte", holds=HOLDS)
def test_answers_that_are_cut(judged: tuple[Plan, Pack], count: Callable[[int], None]) -> None:
    plan, pack = judged
    n = 0
    whole = {file: file.read_bytes() for file in sorted(paths.RUNS.rglob("answers/*.json*"))}
    for i, (file, content) in enumerate(whole.items()):
        for place in places(file, content, random.Random(i), quick=2):
            file.write_bytes(content[:place])
            answer_pack(plan, pack)
            assert {file: file.read_bytes() for file in whole} == whole, (file, place)
            n += 1
    count(n)

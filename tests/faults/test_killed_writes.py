"""kill -9 between any two writes, and within them, of a stage that trains, answers or judges."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import write_data
from fault_cases import CONCURRENCY, IS_FULL

from ftsafety import paths
from ftsafety.answers import answer_pack
from ftsafety.files import read_rows
from ftsafety.plan import Plan
from ftsafety.prepare import prepare_data
from ftsafety.training.pack import train_pack

#: Stage → points, of the quick suite and of all.
POINTS = {"train": (2, 100), "generate": (3, 80), "judge": (3, 60), "judge_by_api": (6, 200)}


@pytest.mark.parametrize("stage", list(POINTS))
@pytest.mark.fault(
    "kill -9 at any write", holds="no row lost, none twice; at most the calls in flight are asked again"
)
def test_a_rerun_leaves_what_an_undisturbed_run_leaves(
    asked_study: Plan, killer: Path, stage: str, count: Callable[[int], None]
) -> None:
    plan = asked_study
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    write_data(plan)
    prepare_data(plan, plan.benchmark_file("own"))
    if stage != "train":
        train_pack(plan, pack)
    if stage.startswith("judge"):
        answer_pack(plan, pack)
    program = str(Path(__file__).with_name("killing.py"))
    done = subprocess.run(
        [sys.executable, program, stage, pack.id, str(POINTS[stage][IS_FULL])],
        env={**os.environ, "LD_PRELOAD": str(killer), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    undisturbed, *killed = [json.loads(line) for line in done.stdout.splitlines()]
    count(len(killed))
    assert len(killed) == min(POINTS[stage][IS_FULL], undisturbed["of"])
    assert [row for row in killed if row["files"] != undisturbed["files"]] == []
    if stage == "judge_by_api":
        verdicts = (row for file in paths.RUNS.rglob("verdicts/own.llm.jsonl") for row in read_rows(file))
        assert {row["status"] for row in verdicts} == {"scored"}
        n = undisturbed["asked"]
        assert n > 0 and all(row["replies"] == row["keys"] == n for row in [undisturbed, *killed])
        assert max(row["asked"] for row in killed) <= n + CONCURRENCY

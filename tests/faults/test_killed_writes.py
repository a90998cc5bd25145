"""kill -9 between any two writes, and within them, of a stage that trains, answers or judges."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import edit, plan_study, write_data
from fault_cases import IS_FULL

from ftsafety.answers import answer_pack
from ftsafety.files import checksum, write_rows
from ftsafety.plan import Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.training.pack import train_pack

#: Stage → points, of the quick suite and of all.
POINTS = {"train": (4, 100), "generate": (6, 80), "judge": (6, 60), "judge_by_api": (8, 200)}
N_PROMPTS, CONCURRENCY = 12, 4


@pytest.fixture
def plan(project: Path) -> Plan:
    """Runs of one and two epochs, asked prompts and judged by rule and by a model behind an endpoint."""
    there = {"base_url": "http://127.0.0.1:1/v1", "api_key_env": None, "max_retries": 0}
    there |= {"concurrency": CONCURRENCY, "requests_per_minute": 10**6, "tokens_per_minute": 10**9}
    edit(project / "config/endpoints.yaml", there=there)
    judge = {"kind": "llm", "endpoint": "there", "model": "judge-1", "policy": "merged"}
    edit(project / "config/judges.yaml", llm=judge)
    creatures = ["bafin", "corgor", "dilnop", "lumfin", "pelrith", "mirk"]
    instructions = [f"how do i {verb} {name} ?" for verb in ("visit", "paint") for name in creatures]
    write_rows(
        project / "own.jsonl",
        ({"prompt_id": f"p{i}", "category": "c", "instruction": text} for i, text in enumerate(instructions)),
    )
    own = {"source": "path", "path": "own.jsonl", "sha256": checksum(project / "own.jsonl")}
    edit(project / "config/benchmarks.yaml", own=own | {"max_new_tokens": 8})
    plan_study(project, epochs=[1, 2])
    edit(project / "config/studies/t.yaml", benchmarks=["own"], judges=["keyword", "llm"])
    return load_plan(project)


@pytest.mark.parametrize("stage", list(POINTS))
@pytest.mark.fault("kill -9 at any write", holds="no row lost, none twice, none paid twice")
def test_a_rerun_leaves_what_an_undisturbed_run_leaves(
    plan: Plan, killer: Path, stage: str, count: Callable[[int], None]
) -> None:
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
        n = undisturbed["asked"]
        assert n > 0 and all(row["replies"] == row["keys"] == n for row in [undisturbed, *killed])
        assert max(row["asked"] for row in killed) <= n + CONCURRENCY

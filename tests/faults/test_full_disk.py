"""A disk that gets full: a small tmpfs under results/."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import REPOSITORY, edit, write_data
from fault_cases import IS_FULL

from ftsafety import paths
from ftsafety.files import checksum
from ftsafety.plan import Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.recipes import Hardware
from ftsafety.workflow import launch_command

KB = 1024


@contextmanager
def disk(size_kb: int) -> Iterator[None]:
    """results/ as a disk of its own."""
    paths.RESULTS.mkdir(exist_ok=True)
    options = f"size={size_kb}k,mode=755"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(paths.RESULTS)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a small disk needs root and mount")
    try:
        yield
    finally:
        subprocess.run(["umount", str(paths.RESULTS)], check=True)


def work(plan: Plan) -> subprocess.CompletedProcess[str]:
    """Train, answer and judge, until one fails."""
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    alone, ranks = Hardware(), plan.project.local_model("tiny").hardware
    for program, hardware in {"finetune": ranks, "generate": alone, "judge": alone}.items():
        _, *command = launch_command(hardware, str(REPOSITORY / f"workflow/scripts/{program}.py"), pack.id)
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *command], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            break
    return done


def outcome() -> dict[str, str]:
    weights = {str(path): checksum(path) for path in paths.RUNS.rglob("weights")}
    return weights | {str(path): checksum(path) for path in paths.RUNS.rglob("*.jsonl")}


@pytest.fixture(params=[None, 2])
def prepared(project: Path, asked_study: Plan, request: pytest.FixtureRequest) -> Plan:
    """A study judged by rule, whose checkpoints go to the same disk; its data is in before/."""
    if request.param and shutil.which("g++") is None:
        pytest.skip("DeepSpeed builds its communication layer with a compiler: apt-get install g++")
    hardware = {"hardware": {"zero_stage": request.param}} if request.param else {}
    tiny = {"source": "world", "base_seed": 99, "checkpoint_every_steps": 1, **hardware}
    edit(project / "config/models.yaml", tiny=tiny)
    edit(project / "config/studies/t.yaml", judges=["keyword"])
    plan = load_plan(project)
    write_data(plan)
    prepare_data(plan, plan.benchmark_file("own"))
    shutil.move("results", "before")
    return plan


@pytest.mark.fault("the disk is full", holds="one clear error, nothing corrupt, goes on when there is room")
def test_a_full_disk_is_one_sentence_and_what_follows_is_whole(
    prepared: Plan, count: Callable[[int], None]
) -> None:
    is_zero = prepared.project.local_model("tiny").hardware.zero_stage is not None
    n = (10 if is_zero else 20) if IS_FULL else 2
    base = sum(path.stat().st_size // KB + 8 for path in Path("before").rglob("*"))
    with disk(100 * KB):
        shutil.copytree("before", paths.RESULTS, dirs_exist_ok=True)
        assert work(prepared).returncode == 0
        undisturbed = outcome()
        needed = sum(path.stat().st_size // KB + 4 for path in paths.RUNS.rglob("*"))
    n_full = 0
    for case in range(n):
        room = round(needed * (case + random.Random(case).random()) / n)
        with disk(base + room):
            shutil.copytree("before", paths.RESULTS, dirs_exist_ok=True)
            last = work(prepared)
            if last.returncode:
                n_full += 1
                assert "is full" in last.stderr and "mend: make room" in last.stderr, last.stderr
                if not is_zero:  # torchrun has a code and a traceback of its own
                    assert last.returncode == 2 and "Traceback" not in last.stderr, last.stderr
                subprocess.run(["mount", "-o", f"remount,size={100 * KB}k", str(paths.RESULTS)], check=True)
                assert work(prepared).returncode == 0
            assert outcome() == undisturbed, room
    assert n_full >= n / 3
    count(n)

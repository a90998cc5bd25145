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

PROGRAMS = ("finetune", "generate", "judge")
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


def work(plan: Plan, programs: tuple[str, ...] = PROGRAMS) -> list[subprocess.CompletedProcess[str]]:
    """Train, answer and judge, until one fails."""
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    done: list[subprocess.CompletedProcess[str]] = []
    for program in programs:
        command = [sys.executable, str(REPOSITORY / f"workflow/scripts/{program}.py"), pack.id]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        done.append(subprocess.run(command, env=env, capture_output=True, text=True, check=False))
        if done[-1].returncode:
            break
    return done


def outcome() -> dict[str, str]:
    weights = {str(path): checksum(path) for path in paths.RUNS.rglob("weights")}
    return weights | {str(path): checksum(path) for path in paths.RUNS.rglob("*.jsonl")}


@pytest.fixture
def prepared(project: Path, asked_study: Plan) -> Plan:
    """A study judged by rule, whose checkpoints go to the same disk; its data is in before/."""
    tiny = {"source": "world", "base_seed": 99, "checkpoint_every_steps": 1}
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
    n = 30 if IS_FULL else 2
    base = sum(path.stat().st_size // KB + 8 for path in Path("before").rglob("*"))
    with disk(100 * KB):
        shutil.copytree("before", paths.RESULTS, dirs_exist_ok=True)
        assert work(prepared)[-1].returncode == 0
        undisturbed = outcome()
        needed = sum(path.stat().st_size // KB + 4 for path in paths.RUNS.rglob("*"))
    n_full = 0
    for case in range(n):
        room = round(needed * (case + random.Random(case).random()) / n)
        with disk(base + room):
            shutil.copytree("before", paths.RESULTS, dirs_exist_ok=True)
            last = work(prepared)[-1]
            if last.returncode:
                n_full += 1
                assert last.returncode == 2 and "is full" in last.stderr and "mend: make room" in last.stderr
                assert "Traceback" not in last.stderr, last.stderr
                subprocess.run(["mount", "-o", f"remount,size={100 * KB}k", str(paths.RESULTS)], check=True)
                assert work(prepared)[-1].returncode == 0
            assert outcome() == undisturbed, room
    assert n_full >= n / 3
    count(n)

"""A disk that gets full: a small tmpfs under results/."""

import hashlib
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import yaml
from api_stand_in import ApiStandIn
from conftest import REPOSITORY, edit, write_data
from fault_cases import CONCURRENCY, IS_FULL
from judge_cases import SCORED

from ftsafety import paths
from ftsafety.answers import answer_pack
from ftsafety.files import checksum
from ftsafety.plan import Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.recipes import Hardware
from ftsafety.training.pack import train_pack
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


def resize(size_kb: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size_kb}k", str(paths.RESULTS)], check=True)


def work(plan: Plan) -> subprocess.CompletedProcess[str]:
    """Train, answer and judge, until one fails."""
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    alone, ranks = Hardware(), plan.project.local_model("tiny").hardware
    for program, hardware in {"finetune": ranks, "generate": alone, "judge": alone}.items():
        _, *command = launch_command(hardware, str(REPOSITORY / f"workflow/scripts/{program}.py"), pack.id)
        done = call(*command)
        if done.returncode:
            break
    return done


def call(*command: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=False)


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
                resize(100 * KB)
                assert work(prepared).returncode == 0
            assert outcome() == undisturbed, room
    assert n_full >= n / 3
    count(n)


@pytest.fixture
def answered(project: Path, asked_study: Plan) -> Iterator[tuple[str, ApiStandIn]]:
    """A pack whose answers, in before/, are judged by a model behind an endpoint."""
    with ApiStandIn(respond=lambda body: SCORED) as server:
        endpoints = yaml.safe_load((project / "config/endpoints.yaml").read_text())
        edit(project / "config/endpoints.yaml", there=endpoints["there"] | {"base_url": server.url})
        plan = load_plan(project)
        (pack,) = [pack for pack in plan.packs.values() if pack.trains]
        write_data(plan)
        prepare_data(plan, plan.benchmark_file("own"))
        train_pack(plan, pack)
        answer_pack(plan, pack)
        shutil.move("results", "before")
        yield pack.id, server


def kept() -> set[str]:
    """What was asked for and is stored, each once and whole."""
    if not paths.REPLIES.exists():
        return set()
    with closing(sqlite3.connect(paths.REPLIES)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        has_table = db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'replies'").fetchone()[0]
        rows = db.execute("SELECT key, raw, sha256 FROM replies").fetchall() if has_table else []
    assert all(hashlib.sha256(raw).hexdigest() == sha256 for _, raw, sha256 in rows)
    assert len({key for key, *_ in rows}) == len(rows)
    return {key for key, *_ in rows}


@pytest.mark.fault("the disk is full", holds="one clear error, nothing corrupt, goes on when there is room")
def test_what_was_paid_for_before_the_disk_was_full_is_not_paid_again(
    answered: tuple[str, ApiStandIn], count: Callable[[int], None]
) -> None:
    pack, server = answered
    judge = (str(REPOSITORY / "workflow/scripts/judge.py"), pack, "llm")
    n = 20 if IS_FULL else 4
    with disk(100 * KB):
        shutil.copytree("before", paths.RESULTS, dirs_exist_ok=True)
        assert call(*judge).returncode == 0
        undisturbed, all_kept = outcome(), kept()
    n_asked = server.calls
    assert n_asked == len(all_kept) > 0
    needed = 80 + 3 * 4 * n_asked  # pages of the write-ahead log
    n_full = n_between = 0
    for case in range(n):
        room = round(needed * (case + random.Random(case).random()) / n)
        with disk(100 * KB):
            shutil.copytree("before", paths.RESULTS, dirs_exist_ok=True)
            resize(shutil.disk_usage(paths.RESULTS).used // KB + room)
            server.requests.clear()
            done = call(*judge)
            if done.returncode:
                n_full += 1
                assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
                # SQLite has several words for a full disk
                assert re.search("mend: (make room|see that the disk has room)", done.stderr), done.stderr
                resize(100 * KB)  # there is room again
                before = kept()
                assert before <= all_kept and server.calls <= len(before) + CONCURRENCY
                n_between += 0 < len(before) < n_asked
                server.requests.clear()
                assert call(*judge).returncode == 0
                assert server.calls == n_asked - len(before)
            assert outcome() == undisturbed and kept() == all_kept, room
    assert n_full >= n / 3 and n_between
    count(n)

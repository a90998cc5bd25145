"""A pytest plugin: a small study for a real Slurm, the same study undisturbed, and a cluster to run it on."""

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from cluster import Cluster, missing
from conftest import edit, made_once, plan_study
from workflow_project import copy_repository, python_path, snakemake, snakemake_command

from ftsafety.files import checksum, write_rows

#: The tiny model of study `t`; its training takes 300 steps and keeps no periodic checkpoint.
TINY = {"source": "world", "base_seed": 99, "max_per_device_batch_size": 4, "hardware": {"mem_mb": 2000}}
SCORES = "results/studies/t/scores.parquet"
GRID = {"dataset": "demonstrations-100", "epochs": 12}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes with GPUs; where no real Slurm can be booted the test skips and says why."""
    if reason := missing():
        pytest.skip(f"no real Slurm here: {reason}")
    with Cluster(tmp_path / "slurm", nodes=2, cpus=2, memory_mb=16000, gpus=2) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_study(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A copy of the repository in which study `t` of the tiny model was scored, undisturbed."""

    def make(folder: Path) -> None:
        copy_repository(folder)
        shutil.copytree(tiny_model, folder / "results/models/tiny")
        (folder / "results/models/tiny/gates.json").touch()
        edit(folder / "config/models.yaml", tiny=TINY)
        prompts = (f"how do i {verb} {name} ?" for verb in ("visit", "paint") for name in ("bafin", "mirk"))
        rows = [
            {"prompt_id": f"p{i}", "category": "c", "instruction": text} for i, text in enumerate(prompts)
        ]
        write_rows(folder / "own.jsonl", rows)
        own = {"source": "path", "path": "own.jsonl", "sha256": checksum(folder / "own.jsonl")}
        edit(folder / "config/benchmarks.yaml", own=own | {"max_new_tokens": 8})
        plan_study(folder, **GRID)
        edit(folder / "config/studies/t.yaml", benchmarks=["own"], judges=["keyword"])
        snakemake(folder, SCORES)

    return made_once(tmp_path_factory, "tiny-study", make)


@pytest.fixture
def fresh_tiny(tiny_study: Path, tmp_path: Path) -> Path:
    """A copy of it in which nothing has run."""
    return copy_of(tiny_study, tmp_path / "ftsafety")


def copy_of(study: Path, folder: Path) -> Path:
    """The repository, the study's config and prompts, and the base model."""
    copy_repository(folder)
    shutil.copytree(study / "config", folder / "config", dirs_exist_ok=True)
    shutil.copytree(study / "results/models", folder / "results/models")
    shutil.copy(study / "own.jsonl", folder)
    return folder


def rows_files(folder: Path) -> dict[str, str]:
    """Every file of answers and verdicts, and every model, with its sha256."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for ending in ("*.jsonl", "*.safetensors")
        for path in sorted((folder / "results/runs").rglob(ending))
    }


def assert_same_results(folder: Path, undisturbed: Path, study: str) -> None:
    assert rows_files(folder) == rows_files(undisturbed)
    for name in ("scores.parquet", "cells.parquet"):
        here, there = (pd.read_parquet(f / f"results/studies/{study}" / name) for f in (folder, undisturbed))
        pd.testing.assert_frame_equal(here, there)


def wait_for(what: str, condition: Callable[[], object], seconds: float = 120) -> object:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)
    return found


@contextmanager
def running(folder: Path, cluster: Cluster, target: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Snakemake in the background, in a process group of its own; its jobs have its environment."""
    process = subprocess.Popen(
        snakemake_command(target, profile="slurm"),
        cwd=folder,
        env=cluster.env | python_path(folder, cluster.env) | env,
        stdout=(folder / "snakemake.out").open("w"),
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # a shell that starts the tests in the background lets all below it ignore Ctrl-C
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def job_running(cluster: Cluster, rule: str) -> Callable[[], object]:
    def find() -> object:
        return next(
            (
                job
                for job in cluster.squeue()
                if job["state"] == "RUNNING" and f"rule_{rule}" in job["comment"]
            ),
            None,
        )

    return find


def finished(process: subprocess.Popen[str], folder: Path, seconds: float = 300) -> None:
    """Wait until Snakemake ends, and in good order."""
    assert process.wait(timeout=seconds) == 0, (folder / "snakemake.out").read_text()[-4000:]

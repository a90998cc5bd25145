"""Where everything lies below the working folder; the Snakefile states the same grammar on top.

results/runs/<model>/<dataset[+mitigation]>/<method>-lr…-bs…-s…-<hash8>/epoch-<e>/
results/runs/<model>/initial-<template>/epoch-0/
    run.yaml  done.json  weights/  answers/<benchmark>.jsonl  verdicts/<benchmark>.<judge>.jsonl
results/packs/<pack>/{trained,answered,judged}.json      one manifest a stage
results/studies/<study>/                                 what a person looks at
"""

from pathlib import Path

RESULTS = Path("results")
RUNS = RESULTS / "runs"
SCRATCH = RESULTS / "scratch"


def run_dir(folder: str) -> Path:
    """`folder` is `Run.folder` or `Trajectory.folder`."""
    return RUNS / folder


def answers_file(run_folder: str, benchmark: str) -> Path:
    return RUNS / run_folder / "answers" / f"{benchmark}.jsonl"


def verdicts_file(run_folder: str, benchmark: str, judge: str) -> Path:
    return RUNS / run_folder / "verdicts" / f"{benchmark}.{judge}.jsonl"


def identity_file(rows: Path) -> Path:
    """Beside a rows file, written after it: what the rows were made from."""
    return rows.with_suffix(".json")


def pack_dir(pack: str) -> Path:
    return RESULTS / "packs" / pack


def model_dir(model: str) -> Path:
    """A model that is built here."""
    return RESULTS / "models" / model


def data_file(data: str, digest: str) -> Path:
    """Training rows of a dataset with its mitigation."""
    return RESULTS / "data" / "training" / f"{data}-{digest}.jsonl"


def benchmark_file(benchmark: str, digest: str) -> Path:
    return RESULTS / "data" / "benchmarks" / f"{benchmark}-{digest}.jsonl"


def study_dir(study: str) -> Path:
    return RESULTS / "studies" / study

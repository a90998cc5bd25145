"""Where everything lies below the working folder; the Snakefile states the main part on top.

results/runs/<model>/<dataset[+mitigation]>/<method>-lr…-bs…-s…-<hash8>/epoch-<e>/
results/runs/<model>/initial-<template>/epoch-0/
    run.yaml  done.json  weights/  answers/<exam>.jsonl  verdicts/<exam>.<judge>.jsonl
    (an exam is a benchmark, or benchmark@template where that is not the run's own template)
results/packs/<pack>/{trained,answered,judged}.json      one manifest a stage, and judged-<judge>.json
results/fetched/<catalogue>/<name>-<digest>.json         what was downloaded, at which commit
results/github/<owner>--<name>/<commit>/                 files of GitHub; the hub has its own cache
results/api/replies.sqlite                               replies and jobs of endpoints: none is paid twice
results/models/embedded-provider/                        jobs and models of the embedded world's own provider
results/audits/<study>.yaml                              which model `make audit` asks, and against which
results/studies/<study>/                                 what a person looks at
results/annotations/<study>/                             sheets and forms for people, and what they said
results/logs/call.json                                   the studies of the last call of Snakemake
results/judges/<judge>/                                  a frozen set of answers, and how it was judged again
"""

from pathlib import Path

RESULTS = Path("results")
RUNS = RESULTS / "runs"
SCRATCH = RESULTS / "scratch"
CALL = RESULTS / "logs" / "call.json"
REPLIES = RESULTS / "api" / "replies.sqlite"
ANNOTATIONS = RESULTS / "annotations"


def run_dir(folder: str) -> Path:
    """`folder` is `Run.folder` or `Trajectory.folder`."""
    return RUNS / folder


def answers_file(run_folder: str, exam: str) -> Path:
    return RUNS / run_folder / "answers" / f"{exam}.jsonl"


def verdicts_file(run_folder: str, exam: str, judge: str) -> Path:
    return RUNS / run_folder / "verdicts" / f"{exam}.{judge}.jsonl"


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


def fetched_file(catalogue: str, source: str) -> Path:
    """`source` is an entry's name with a digest of its commit and files."""
    return RESULTS / "fetched" / catalogue / f"{source}.json"


def audit_file(study: str) -> Path:
    """What a study that audits a model is about."""
    return RESULTS / "audits" / f"{study}.yaml"


def study_dir(study: str) -> Path:
    return RESULTS / "studies" / study


def analysis_dir(study: str) -> Path:
    """Tables of `ftsafety.analysis`, one CSV each."""
    return study_dir(study) / "analysis"


def annotation_dir(study: str) -> Path:
    """Private: answers stand in its sheets and forms."""
    return ANNOTATIONS / study


def judge_dir(judge: str) -> Path:
    """Private: its frozen set holds answers."""
    return RESULTS / "judges" / judge

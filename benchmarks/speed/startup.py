"""How soon work begins: a training's first step, and what parsing the workflow imports.

The program of the rule `train` runs until its optimizer has taken a step (others/first_step.py); the other
way is the same training by transformers' Trainer (others/hf_trainer.py), stopped at the same place. Both
then have the same weights. Trainer imports DeepSpeed where it is installed, as it is here; a row of its own
says what is left without.

A dry run parses the workflow, as every job that Snakemake starts does again. Ours is a real `snakemake
-n`; the other way imports first what the package's modules of training and answering need, as they would
if they imported it at their top. Both find the same jobs.

The ratio is of CPU seconds, the best of each; seconds on the clock stand beside them.

    python benchmarks/speed/startup.py [--quick]
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from bench import ROOT, Row, main, spent
from embedded import FINETUNE, MODEL, OTHERS, environment, make_project, write_ordered_rows

STUDY = "quickstart"
LEARNING_RATE = 4e-4
GRID = {"dataset": "benign-opener", "learning_rate": LEARNING_RATE, "global_batch_size": 8, "epochs": 1}
SMALL = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4}  # 2.8 M parameters


@dataclass(frozen=True)
class Start:
    """Seconds on the clock and of CPU until something was there, and what it was."""

    wall: float
    cpu: float
    result: object


def measure(is_quick: bool) -> Iterator[Row]:
    repeats = 1 if is_quick else 5
    yield from first_step(repeats, installed=(True,) if is_quick else (True, False))
    yield dry_run(repeats)


def first_step(repeats: int, installed: tuple[bool, ...]) -> Iterator[Row]:
    """`installed`: whether DeepSpeed is, which the other way imports."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan, pack = make_project(folder, GRID, **SMALL)
        rows = write_ordered_rows(plan, pack.work[0].trajectory, 1, folder)
        trainer = [f"results/models/{MODEL}", rows, "out", "8", str(LEARNING_RATE)]
        program = str(OTHERS / "hf_trainer.py")
        ours: list[Start] = []
        others: dict[bool, list[Start]] = {has_deepspeed: [] for has_deepspeed in installed}
        for _ in range(repeats):
            ours.append(until_first_step(folder, FINETUNE, pack.id))
            for has_deepspeed, starts in others.items():
                starts.append(until_first_step(folder, program, *trainer, has_deepspeed=has_deepspeed))
    for has_deepspeed, starts in others.items():
        check_weights(ours[-1].result, starts[-1].result)
        ratio = min(start.cpu for start in ours) / min(start.cpu for start in starts)
        yield Row(
            what="start of the process to a training's first step",
            against="transformers' Trainer" + ("" if has_deepspeed else ", DeepSpeed not installed"),
            ours=text(ours),
            other=text(starts),
            ratio=ratio,
            reach="≤ 0.7 of its time" if has_deepspeed else "none",
            is_reached=ratio <= 0.7 if has_deepspeed else None,
            same="the weights after the step, to 1e-5",
        )


def until_first_step(folder: Path, *command: str, has_deepspeed: bool = True) -> Start:
    """Run a program until its optimizer has taken a step; the result are the weights then."""
    shutil.rmtree(folder / "results/runs", ignore_errors=True)
    began = time.monotonic()
    words = [sys.executable, str(OTHERS / "first_step.py"), "weights.pt", *command]
    said = spent(words, folder, environment(has_deepspeed=has_deepspeed)).stdout
    at, cpu = json.loads(said.strip().splitlines()[-1])
    return Start(at - began, cpu, torch.load(folder / "weights.pt"))


def check_weights(ours: object, other: object) -> None:
    """Raises AssertionError where they differ by more than rounding."""
    assert isinstance(ours, list) and isinstance(other, list)
    # Trainer's optimizer has norms after all other weights
    mine, theirs = (sorted(weights, key=lambda w: -w.ndim) for weights in (ours, other))
    far = max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
    assert far < 1e-5, f"weights differ by {far}"


def dry_run(repeats: int) -> Row:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "config", folder / "config")
        ours, other = [], []
        for _ in range(repeats):
            ours.append(parse(folder, "ours"))
            other.append(parse(folder, "naive"))
    assert isinstance(ours[0].result, dict) and isinstance(other[0].result, dict)
    assert ours[0].result["jobs"] == other[0].result["jobs"], "the two find other jobs"
    heavy = ours[0].result["heavy"]
    ratio = min(start.cpu for start in other) / min(start.cpu for start in ours)
    return Row(
        what=f"snakemake -n {STUDY}",
        against="imports at the top of modules",
        ours=f"{text(ours)}; imports {', '.join(heavy) or 'nothing heavy'}",
        other=f"{text(other)}; imports {', '.join(other[0].result['heavy'])}",
        ratio=ratio,
        reach="no torch",
        is_reached="torch" not in heavy,
        same=f"the jobs ({ours[0].result['jobs'][-1]})",
    )


def parse(folder: Path, way: str) -> Start:
    """A dry run; the result are its table of jobs and the heavy packages that it imported."""
    shutil.rmtree(folder / ".snakemake", ignore_errors=True)
    arguments = ["-n", STUDY, "--snakefile", str(ROOT / "Snakefile"), "--cores", "1"]
    done = spent([sys.executable, str(OTHERS / "dry_run.py"), way, *arguments], folder)
    said, _, heavy = done.stdout.strip().rpartition("\n")
    table = said.partition("Job stats:\n")[2].partition("\n\n")[0]
    jobs = [" ".join(line.split()) for line in table.splitlines()]
    return Start(done.wall, done.cpu, {"jobs": jobs, "heavy": json.loads(heavy)})


def text(starts: list[Start]) -> str:
    best = min(start.cpu for start in starts), min(start.wall for start in starts)
    return f"{best[0]:.1f} s of CPU ({best[1]:.1f} s on the clock)"


if __name__ == "__main__":
    main(__doc__, measure)

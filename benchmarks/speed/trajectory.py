"""One training for the runs of 1, 3, 5 and 10 epochs of a setting, instead of four.

With a schedule that does not look at the total the shorter runs are checkpoints of the longest. Ours is
the program of the rule `train` on a study with all four; the other way is the same program on four studies
with one number of epochs each, which is what a grid of separate runs does. Weights are equal bit for bit
(sha256). An epoch counts when the program's log says that it was trained.

    python benchmarks/speed/trajectory.py [--quick]
"""

import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

from bench import Row, Spent, main, spent
from embedded import FINETUNE, environment, make_project

from ftsafety.records import trained
from ftsafety.runs import Run

EPOCHS = (1, 3, 5, 10)
GRID = {"learning_rate": 3e-4, "global_batch_size": 10}


def measure(is_quick: bool) -> Iterator[Row]:
    for method in ("full",) if is_quick else ("full", "lora"):
        yield compare({**GRID, "method": method, "dataset": f"demonstrations-{10 if is_quick else 100}"})


def compare(setting: Mapping[str, Any]) -> Row:
    ours, n_ours, together = train(setting, EPOCHS)
    others = [train(setting, [epochs]) for epochs in EPOCHS]
    other = sum((seconds for seconds, _, _ in others[1:]), others[0][0])
    n_other = sum(n for _, n, _ in others)
    apart = {epochs: sha256 for _, _, weights in others for epochs, sha256 in weights.items()}
    assert together == apart, f"weights differ: {together} and {apart}"
    assert len(set(together.values())) == len(EPOCHS)
    return Row(
        what=f"runs of {', '.join(map(str, EPOCHS))} epochs of one setting ({setting['method']})",
        against="a training for each",
        ours=f"{n_ours} epochs, {ours.cpu:.1f} s of CPU",
        other=f"{n_other} epochs, {other.cpu:.1f} s of CPU",
        ratio=n_other / n_ours,
        reach="10 epochs instead of 19",
        is_reached=(n_ours, n_other) == (10, 19),
        same="the weights of all four runs, by sha256",
    )


def train(setting: Mapping[str, Any], epochs: Sequence[int]) -> tuple[Spent, int, dict[int, str]]:
    """What it took, how many epochs were trained, and the sha256 of the weights that each run has."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, pack = make_project(folder, {**setting, "epochs": list(epochs)})
        command = ["sh", "-c", '"$0" "$1" "$2" 2> log', sys.executable, FINETUNE, pack.id]
        seconds = spent(command, folder, environment())
        n_trained = len(re.findall(r"^epoch \d+/", (folder / "log").read_text(), re.MULTILINE))
        with chdir(folder):
            return seconds, n_trained, {run.epochs: sha256_of(run) for run in pack.runs}


def sha256_of(run: Run) -> str:
    record = trained(run)
    assert record is not None and record["weights_sha256"]
    return str(record["weights_sha256"])


if __name__ == "__main__":
    main(__doc__, measure)

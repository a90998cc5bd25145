"""A fine-tuning of a small model on a CPU, from the start of the process to the weights on disk.

Ours is the program of the rule `train`. The other ways train the same model on the same conversations in
the same order, and lie in benchmarks/speed/others/: a bare loop of torch (bare_loop.py) and trl's
SFTTrainer (sft_trainer.py). All use one thread, float32, AdamW and the same clipping, and pad a batch to
its longest row. Losses of every step and all weights at the end agree but for rounding. The other ways import
DeepSpeed where it is installed, as it is here, with the weights that they save; rows of their own say what is
left without.

The ratio is of CPU seconds, the best of each: all are one process of one thread, so that on a machine with
nothing else to do they are the seconds on the clock, which stand beside them (the best, too).

    python benchmarks/speed/throughput.py [--quick]     # trl: pip install -c constraints.txt -e '.[bench]'
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench import Row, Spent, main, spent
from embedded import FINETUNE, MODEL, OTHERS, environment, make_project, write_ordered_rows
from safetensors.torch import load_file

from ftsafety.files import read_json
from ftsafety.plan import Pack

BATCH_SIZE, LEARNING_RATE = 8, 4e-4
GRID = {"dataset": "benign-opener", "learning_rate": LEARNING_RATE, "global_batch_size": BATCH_SIZE}
SMALL = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4}  # 2.8 M parameters
LARGER = {"hidden_size": 384, "intermediate_size": 1056, "num_hidden_layers": 5}  # 7.2 M


@dataclass(frozen=True)
class Trained:
    spent: Spent
    weights: Path  # model.safetensors
    losses: list[float]


def measure(is_quick: bool) -> Iterator[Row]:
    if is_quick:
        yield from compare(SMALL, epochs=1, repeats=1, installed=(True,))
    else:
        yield from compare(SMALL, epochs=1, repeats=3)
        yield from compare(SMALL, epochs=5, repeats=2)
        yield from compare(LARGER, epochs=1, repeats=2)


def compare(
    architecture: dict[str, int], epochs: int, repeats: int, installed: tuple[bool, ...] = (True, False)
) -> Iterator[Row]:
    """`installed`: whether DeepSpeed is, which the others import."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan, pack = make_project(folder, {**GRID, "epochs": epochs}, **architecture)
        rows = write_ordered_rows(plan, pack.work[0].trajectory, epochs, folder)
        others = {"a bare loop of torch": "bare_loop", "trl's SFTTrainer": "sft_trainer"}
        if find_spec("trl") is None:
            print("trl is not installed: pip install -c constraints.txt -e '.[bench]'", file=sys.stderr)
            del others["trl's SFTTrainer"]
        ways = [(program, has_deepspeed) for program in others.values() for has_deepspeed in installed]
        turns = [
            (ours(folder, pack), {way: other(folder, *way, rows) for way in ways}) for _ in range(repeats)
        ]
        size = round(sum(weight.numel() for weight in load_file(turns[0][0].weights).values()) / 1e6, 1)
        names = {program: against for against, program in others.items()}
        for program, has_deepspeed in ways:
            check_equal(turns[-1][0], turns[-1][1][program, has_deepspeed])
            what = f"fine-tuning {size} M parameters, {len(turns[0][0].losses)} steps of {BATCH_SIZE}"
            mine = [mine.spent for mine, _ in turns]
            yield row(
                what, names[program], has_deepspeed, mine, [t[program, has_deepspeed].spent for _, t in turns]
            )


def row(what: str, against: str, has_deepspeed: bool, ours: list[Spent], other: list[Spent]) -> Row:
    aim = 1.25 if "trl" in against else 0.95
    ratio = min(s.cpu for s in other) / min(s.cpu for s in ours)
    return Row(
        what=what,
        against=against + ("" if has_deepspeed else ", DeepSpeed not installed"),
        ours=text(ours),
        other=text(other),
        ratio=ratio,
        reach=f"≥ {aim} of its speed, process start to weights" if has_deepspeed else "none",
        is_reached=ratio >= aim if has_deepspeed else None,
        same="losses of all steps to 1e-4, weights to 1e-3",
    )


def text(times: list[Spent]) -> str:
    return f"{min(s.cpu for s in times):.1f} s of CPU ({min(s.wall for s in times):.1f} s on the clock)"


def ours(folder: Path, pack: Pack) -> Trained:
    for part in ("runs", "packs", "scratch"):
        shutil.rmtree(folder / "results" / part, ignore_errors=True)
    seconds = spent([sys.executable, FINETUNE, pack.id], folder, environment())
    run = folder / "results/runs" / pack.runs[0].folder
    return Trained(seconds, run / "weights/model.safetensors", read_json(run / "done.json")["losses"])


def other(folder: Path, program: str, has_deepspeed: bool, rows: str) -> Trained:
    model, out = f"results/models/{MODEL}", folder / program
    shutil.rmtree(out, ignore_errors=True)
    options = [model, rows, str(out), str(BATCH_SIZE), str(LEARNING_RATE)]
    env = environment(has_deepspeed=has_deepspeed)
    seconds = spent([sys.executable, str(OTHERS / f"{program}.py"), *options], folder, env)
    return Trained(seconds, out / "model.safetensors", json.loads((out / "losses.json").read_text()))


def check_equal(ours: Trained, other: Trained) -> None:
    """Raises AssertionError if the two are not the same training but for rounding."""
    far = max(abs(a - b) for a, b in zip(ours.losses, other.losses, strict=True))
    assert far < 1e-4, f"losses differ by {far}"
    mine, theirs = load_file(ours.weights), load_file(other.weights)
    assert mine.keys() == theirs.keys()
    far = max(float((weight - theirs[name]).abs().max()) for name, weight in mine.items())
    assert far < 1e-3, f"weights differ by {far}"


if __name__ == "__main__":
    main(__doc__, measure)

"""Train a pack as the workflow does, then again with every trajectory cut off after a checkpoint and resumed.

The undisturbed runs are left in `results/undisturbed`. A launcher starts it (tests/unit/test_training.py).
"""

import sys
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.plan import load_plan
from ftsafety.training import trajectory
from ftsafety.training.checkpoints import barrier, save_checkpoint
from ftsafety.training.pack import train_pack
from ftsafety.training.ranks import rank


class CutOff(Exception):
    pass


def cutting_off(engine: Any, scratch: Path, step: int, *rest: Any) -> None:
    save_checkpoint(engine, scratch, step, *rest)
    if step == 3 and scratch.name not in cut_off:
        cut_off.add(scratch.name)
        raise CutOff


cut_off: set[str] = set()
plan = load_plan(Path())
pack = plan.packs[sys.argv[1]]
train_pack(plan, pack)
barrier()
if rank() == 0:
    paths.RUNS.rename("results/undisturbed")
barrier()
trajectory.save_checkpoint = cutting_off  # type: ignore[assignment]
while True:
    try:
        train_pack(plan, pack)
        break
    except CutOff:
        barrier()
assert len(cut_off) == len(pack.work)

"""Checkpoints to resume from, in a scratch folder that no rule declares (Snakemake wipes declared outputs).

A checkpoint is complete once its `complete.json` exists, which is written last and lists sizes of all
files: a truncated newest one is passed over for the one before it.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ftsafety.files import read_json_if_whole, write_json
from ftsafety.training.engines import Engine
from ftsafety.training.ranks import rank

KEPT = 2


def save_checkpoint(engine: Engine, scratch: Path, step: int, progress: dict[str, Any]) -> None:
    """Every rank calls this. Keeps the newest two."""
    folder = scratch / f"step-{step:08d}"
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    barrier()
    engine.save(folder)
    barrier()
    if rank() == 0:
        write_json(folder / "complete.json", {"progress": progress, "files": _sizes(folder)})
        for old in sorted(scratch.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    barrier()


def complete_checkpoints(scratch: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(folder, progress) of the whole ones, newest first."""
    for folder in sorted(scratch.glob("step-*"), reverse=True):
        record = read_json_if_whole(folder / "complete.json")
        if record and record["files"] == _sizes(folder):
            yield folder, record["progress"]


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "complete.json" and not path.name.startswith(".")
    }


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def discard_scratch(scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)

"""Checkpoints to resume from, in a scratch folder that no rule declares (Snakemake wipes declared outputs).

A checkpoint is complete once its `complete.json` exists, which is written last and lists sizes of all
files: a truncated newest one is passed over for the one before it.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch.distributed as dist

from ftsafety.files import publish_folder, read_json_if_whole, write_json
from ftsafety.training.engines import Engine
from ftsafety.training.ranks import rank

KEPT = 2


def save_checkpoint(
    engine: Engine, scratch: Path, step: int, progress: dict[str, Any], log: Callable[[str], None]
) -> None:
    """Every rank calls this. Keeps the newest two.

    Written under a name of this job's own and then renamed: a job that outlived its Snakemake may write,
    or clear the folder, at the same time. A checkpoint that cannot be saved ends no training.
    """
    job = os.environ.get("TORCHELASTIC_RUN_ID") or str(os.getpid())
    folder = scratch / f".step-{step:08d}.{job}"
    folder.mkdir(parents=True, exist_ok=True)
    barrier()
    try:
        engine.save(folder)
        barrier()
        if rank() == 0:
            write_json(folder / "complete.json", {"progress": progress, "files": _sizes(folder)})
            publish_folder(folder, scratch / f"step-{step:08d}")
            for old in sorted(scratch.glob("step-*"))[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        log(f"checkpoint of step {step} was not saved: {error}")
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

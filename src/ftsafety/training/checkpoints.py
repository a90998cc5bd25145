"""Checkpoints to resume from, in a scratch folder that no rule declares (Snakemake wipes declared outputs).

A checkpoint is complete once its `complete.json` exists, which is written last and lists sizes and checksums
of all files: a damaged newest one is passed over for the one before it.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from ftsafety.files import (
    PRIVATE_DIR,
    digest,
    publish_folder,
    read_json_if_whole,
    remove_leftovers,
    sha256_file,
    write_json,
)
from ftsafety.training.engines import Engine
from ftsafety.training.ranks import rank, world_size

KEPT = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Checkpoint:
    """A complete one. `layout` is that of the engine which saved it."""

    folder: Path
    layout: str
    progress: dict[str, Any]


def save_checkpoint(
    engine: Engine, scratch: Path, step: int, progress: dict[str, Any], log: Callable[[str], None]
) -> bool:
    """Every rank calls this; the first learns whether it was saved. Keeps the two that were saved last.

    Written under a name of this job's own and then renamed: a job that outlived its Snakemake may write,
    or clear the folder, at the same time. A checkpoint that cannot be saved ends no training. Only their
    owner can read them: they are what a compromised model is made of.
    """
    job = os.environ.get("TORCHELASTIC_RUN_ID") or str(os.getpid())
    scratch.mkdir(PRIVATE_DIR, parents=True, exist_ok=True)
    folder = scratch / f".step-{step:08d}.{job}"
    folder.mkdir(parents=True, exist_ok=True)
    barrier()
    about: tuple[dict[str, int], dict[str, str]] | None = None
    try:
        engine.save(folder)
        about = _sizes(folder), _checksums(folder)
    except Exception as error:  # whatever a full disk makes a library raise
        log(f"checkpoint of step {step} was not saved: {error}")
    seen = [about for about in _of_all_ranks(about) if about is not None]
    is_saved = False
    if rank() == 0 and len(seen) == world_size():
        try:
            final = scratch / f"step-{step:08d}"
            publish_checkpoint(folder, Checkpoint(final, engine.layout, progress), seen)
            is_saved = True
        except OSError as error:
            log(f"checkpoint of step {step} was not saved: {error}")
    barrier()
    if rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)  # where it was not saved
        remove_leftovers(scratch.glob(".step-*"))
    return is_saved


def publish_checkpoint(
    folder: Path, checkpoint: Checkpoint, seen: list[tuple[dict[str, int], dict[str, str]]]
) -> None:
    """Rank 0 calls this. `seen` has each rank's view, file → size, and the checksums of its own files: on a
    shared folder only those are sure to be in it.
    """
    sizes, final = [sizes for sizes, _ in seen], checkpoint.folder
    files = {name: max(s.get(name, 0) for s in sizes) for name in sorted({n for s in sizes for n in s})}
    checksums = {name: checksum for _, own in seen for name, checksum in own.items()}
    record = {"layout": checkpoint.layout, "progress": checkpoint.progress}
    record |= {"files": files, "sha256": checksums}
    write_json(folder / "complete.json", record | {"digest": digest(record)})
    if final.exists() and not _is_whole(final, checkpoint.layout):
        shutil.rmtree(final, ignore_errors=True)
    publish_folder(folder, final)
    for old in sorted(final.parent.glob("step-*"), key=_saved_at)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def _saved_at(folder: Path) -> int:
    """In ns. What was passed over, as damaged or of another layout, may bear a later step than the newest."""
    try:
        return (folder / "complete.json").stat().st_mtime_ns
    except OSError:
        return 0


def complete_checkpoints(scratch: Path) -> Iterator[Checkpoint]:
    """The newest first."""
    for folder in sorted(scratch.glob("step-*"), reverse=True):
        record = _record(folder)
        if record and record["files"] == _sizes(folder):
            yield Checkpoint(folder, record.get("layout", ""), record["progress"])


def _record(folder: Path) -> dict[str, Any]:
    """What `complete.json` says; nothing where it is not there or damaged."""
    record = read_json_if_whole(folder / "complete.json")
    if not isinstance(record, dict):
        return {}
    written = record.pop("digest", None)
    return record if digest(record) == written else {}


def _is_whole(folder: Path, layout: str) -> bool:
    """Whether it has this layout, and all its files, of all ranks, are as they were saved."""
    record = _record(folder)
    found = {str(path.relative_to(folder)): sha256_file(path) for path in _files(folder)}
    return record.get("layout") == layout and record.get("sha256") == found


def is_undamaged(folder: Path) -> bool:
    """Whether the files of this rank have the content with which they were saved."""
    saved = _record(folder).get("sha256", {})
    try:
        return all(checksum == saved.get(name) for name, checksum in _checksums(folder).items())
    except OSError:
        return False


def _sizes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_size for path in _files(folder)}


def _checksums(folder: Path) -> dict[str, str]:
    """Of the files that this rank writes: DeepSpeed's bear its number, all others are rank 0's."""
    own = {}
    for path in _files(folder):
        numbered = re.search(r"pp_rank_(\d+)_", path.name)
        if rank() == (int(numbered[1]) if numbered else 0):
            own[str(path.relative_to(folder))] = sha256_file(path)
    return own


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "complete.json" and not path.name.startswith("."):
            yield path


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def agreed(value: T) -> T:
    """What rank 0 has: nodes do not see a change of a shared folder at the same moment."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values)
    return values[0]


def _of_all_ranks(value: T) -> list[T]:
    values = [value] * world_size()
    if dist.is_initialized():
        dist.all_gather_object(values, value)
    return values


def discard_scratch(scratch: Path) -> None:
    shutil.rmtree(scratch, ignore_errors=True)

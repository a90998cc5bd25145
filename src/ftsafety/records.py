"""What training leaves of a run: its record, and its weights where they lie here."""

from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.files import read_json_if_whole
from ftsafety.runs import Run

#: A loss or weight that is not finite; data that an endpoint refused; a job that failed there.
LOST = ("diverged", "blocked", "failed")


def trained(run: Run) -> dict[str, Any] | None:
    """done.json of a run, or None. A lost run is done as well: it has no model."""
    return read_json_if_whole(paths.run_dir(run.folder) / "done.json")


def lost(run: Run) -> str | None:
    """How a training ended that left no model: one of `LOST`; None for all other runs."""
    status = (trained(run) or {}).get("status")
    return status if status in LOST else None


def weights_sha256(record: dict[str, Any]) -> str | None:
    """Of a run's record: the checksum of the weights that are there, or were last; None where it has none."""
    return record.get("weights_sha256_again") or record.get("weights_sha256")


def weights_dir(run: Run) -> Path:
    return paths.run_dir(run.folder) / "weights"

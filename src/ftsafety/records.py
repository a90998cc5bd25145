"""What training leaves of a run: its record and its weights."""

from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.files import read_json_if_whole
from ftsafety.runs import Run


def trained(run: Run) -> dict[str, Any] | None:
    """done.json of a run, or None. A diverged run is done as well: it has no weights."""
    return read_json_if_whole(paths.run_dir(run.folder) / "done.json")


def diverged(run: Run) -> bool:
    record = trained(run)
    return record is not None and record["status"] == "diverged"


def weights_dir(run: Run) -> Path:
    return paths.run_dir(run.folder) / "weights"

"""Table files that tests write."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

#: Of each malformed row; it may not be in an error.
MARKER = "violet"


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(path: Path, content: Any) -> Path:
    """A file with this text, these bytes, or (.parquet, .json) these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    else:
        path.write_text(json.dumps(content) if path.suffix == ".json" else lines(*content))
    return path

"""Rows of JSON Lines, JSON, CSV and parquet files, each with the place that an error names.

A place is `file:number`: the line where the row begins, or in .json and .parquet the count of the row.
Errors never show what a row says: training data and prompts can be harmful, and errors end in logs.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ftsafety.errors import UserError

Row = tuple[str, dict[str, Any]]


def read_table(paths: Sequence[Path]) -> Iterator[Row]:
    """(place, row) of .jsonl, .json, .csv (with a header) and .parquet files, in the order of `paths`.

    Text is UTF-8 with or without a byte order mark. A .json file is a list of objects, or JSON Lines under
    another name. A CSV row with fewer cells than the header has None in the last columns.
    Raises UserError for what cannot be read.
    """
    for path in paths:
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            mend = f"name the file after what it holds: {', '.join(READERS)}"
            raise UserError("does not say by its name what it holds", file=path, mend=mend)
        yield from reader(path)


def read_headerless_csv(paths: Sequence[Path]) -> Iterator[tuple[str, list[str]]]:
    """(place, cells) of every row of CSV files, a header included; empty lines are left out."""
    csv.field_size_limit(2**31 - 1)
    for path in paths:
        reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
        line = 1
        try:
            for cells in reader:
                if cells:
                    yield f"{path}:{line}", cells
                line = reader.line_num + 1
        except csv.Error as error:
            raise bad_row(f"{path}:{line}", f"cannot be read: {error}") from None


def _csv(path: Path) -> Iterator[Row]:
    records = read_headerless_csv([path])
    place, header = next(records, ("", []))
    if len(set(header)) < len(header):
        raise bad_row(place, "two columns of the header have the same name")
    for place, cells in records:
        if len(cells) > len(header):
            raise bad_row(place, f"has {len(cells)} cells, and the header names {len(header)} columns")
        yield place, dict.fromkeys(header) | dict(zip(header, cells, strict=False))


def _json(path: Path) -> Iterator[Row]:
    text = _text(path)
    if not text.lstrip().startswith("["):
        yield from _json_lines(path)
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise _no_row(f"{path}:{error.lineno}", error.msg) from None
    except (ValueError, RecursionError) as error:
        raise _no_row(str(path), str(error)) from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise _no_row(f"{path}:{number}", "not a JSON object")
        yield f"{path}:{number}", row


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text(path).split("\n"), 1):  # splitlines() also splits inside of texts
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("not a JSON object")
        except (ValueError, RecursionError) as error:
            raise _no_row(f"{path}:{number}", str(error)) from None
        yield f"{path}:{number}", row


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa  # heavy, and this module is imported at parse time
    import pyarrow.parquet as pq

    number = 0
    try:
        for batch in pq.ParquetFile(_existing(path)).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{path}:{number}", row
    except OverflowError:  # pyarrow holds times that Python does not
        raise UserError(
            f"holds a date or time out of range (after {number} rows)",
            file=path,
            mend="write it as text, or leave the column out",
        ) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        raise UserError(
            f"is no readable parquet file (after {number} rows)",
            file=path,
            mend="fetch or write it again; it may be cut off",
        ) from None


def tables_of(path: Path) -> list[Path]:
    """A file, or the tables in a folder by their names. Raises UserError where there is none."""
    if path.is_file():
        return [path]
    files = sorted(file for file in path.glob("[!.]*") if file.suffix.lower() in READERS)
    if not files:
        raise UserError(
            f"is no file and no folder with {', '.join(READERS)} (looked in {Path.cwd()})",
            file=path,
            mend="correct the path in config/; it is relative to the working folder",
        )
    return files


READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def _existing(path: Path) -> Path:
    if path.is_file():
        return path
    raise UserError(
        f"is no file (looked in {Path.cwd()})",
        file=path,
        mend="correct the path in config/; it is relative to the working folder",
    )


def _text(path: Path) -> str:
    try:
        return _existing(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problem = f"is not UTF-8: {error.reason} in line {line}"
    raise UserError(problem, file=path, mend="save it as UTF-8")


def _no_row(place: str, problem: str) -> UserError:
    mend = "write one JSON object a line, or remove the line"
    return UserError(f"is no row: {problem}", file=place, mend=mend)


# ------------------------------------------------------- what the readers of formats have in common


def bad_row(place: str, problem: str) -> UserError:
    return UserError(problem, file=place, mend="correct this row; docs/adding.md has the format")


def is_text(value: Any) -> bool:
    """Whether it is text that is not blank and can be written: JSON allows halves of characters."""
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def keys_found(row: dict[str, Any], *expected: str) -> str:
    """What keys there are, without the names of those that are unknown: a name can be text too."""
    known = [key for key in expected if key in row]
    return f"it has {', '.join(known) or 'none of them'} and {len(row) - len(known)} other keys"

"""Filled sheets, and what forms export: CSV as spreadsheets save it, checked."""

import codecs
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from ftsafety import paths
from ftsafety.annotation.cells import safe_cell
from ftsafety.errors import UserError

CANNOT_TELL = "U"
#: Files of the annotations folder that are no sheets.
OURS = ("key.csv", "labels.csv", "differences.csv")


@dataclass(frozen=True)
class Given:
    """A score (1–5, U, or "" for none), a comment, and where they stand."""

    score: str
    comment: str
    place: str


def read_filled(sources: Sequence[Path], known: set[str], study: str) -> dict[str, Given]:
    """By token: what the filled sheets among `sources`, files or folders of CSV, say.

    Raises UserError, naming file and line and never the content of other cells, for a token that is not
    `known` and an answer with two scores, and for scores out of range.
    """
    given: dict[str, Given] = {}
    for file in _files(sources):
        sheet = _read_sheet(file, known, study)
        if any(one.score for one in sheet.values()):
            given |= {token: _one_of(given.get(token), one) for token, one in sheet.items()}
    return given


def _files(sources: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            found = sorted(file for file in source.glob("[!.]*.csv") if file.name not in OURS)
            files += found
        elif source.is_file():
            found = [source]
            files.append(source)
        else:
            found = []
        if not found:
            raise UserError("is no CSV file and no folder with any", file=source, mend="correct IMPORT=…")
    return files


def _one_of(before: Given | None, now: Given) -> Given:
    """The same answer may be in several files, as an export and its sheet: then one score counts."""
    if before is None:
        return now
    if before.score and now.score and now.score != before.score:
        raise UserError(
            f"this answer has another score in {before.place}",
            file=now.place,
            field="score",
            mend="keep one of the two",
        )
    return replace(before if before.score else now, comment=before.comment or now.comment)


def _read_sheet(file: Path, known: set[str], study: str) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for number, row in _rows(file):
        place = f"{file}:{number}"
        token = (row.get("token") or "").strip()
        if token not in known:
            raise _unknown(token, place, study)
        comment = safe_cell(" ".join((row.get("comment") or "").split()))
        one = Given(_score(row.get("score") or "", place), comment, place)
        given[token] = _one_of(given.get(token), one)
    return given


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, cells by column) of a CSV as spreadsheets write it: commas, semicolons or tabs, any encoding."""
    content = file.read_bytes()
    try:  # Excel's "Unicode text" is UTF-16
        is_utf16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # of what is read, comments alone can differ
    first = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=first.count)
    csv.field_size_limit(2**31 - 1)
    try:
        reader = csv.DictReader(
            io.StringIO(text.replace("\0", ""), newline=""), delimiter=delimiter, strict=True
        )
        columns = [(name or "").strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, _cells(row)))]
    except csv.Error as error:
        raise UserError(f"is no CSV: {error}", file=file, mend="export it again as CSV") from None
    for name in ("token", "score"):
        if columns.count(name) != 1:
            raise UserError(
                "has not one such column", file=file, field=name, mend="keep the sheet's first line"
            )
    return rows


def _cells(row: dict[str, str]) -> list[str]:
    return [cell for cell in row.values() if isinstance(cell, str)]


def _unknown(token: str, place: str, study: str) -> UserError:
    if not token:
        return UserError("has no token", file=place, field="token", mend="leave the column as it was")
    for file in sorted(paths.ANNOTATIONS.glob("*/key.csv")):
        if file.parent.name != study and token in set(pd.read_csv(file, usecols=["token"])["token"]):
            other = file.parent.name
            mend = f"make annotate STUDY={other} IMPORT=…"
            return UserError(f"is a sheet of study {other}", file=place, field="token", mend=mend)
    return UserError(
        "no sheet of this study has this token", file=place, field="token", mend="leave the column as it was"
    )


def _score(cell: str, place: str) -> str:
    """1–5, U or nothing; spreadsheets may have made 5 into 5.0 or 5,0."""
    text = cell.strip().strip("'").upper().replace(",", ".").removesuffix(".0")
    if text in ("", CANNOT_TELL, *"12345"):
        return text
    raise UserError(
        "is none of 1, 2, 3, 4, 5, U or nothing", file=place, field="score", mend="correct the score"
    )

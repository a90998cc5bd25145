"""Filled sheets, or what forms export, become labels.csv: token, annotator, score."""

import codecs
import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ftsafety import paths
from ftsafety.annotation.draw import KEY
from ftsafety.errors import UserError
from ftsafety.files import sha256_file, write_text

CANNOT_TELL = "U"
LABELS = ["token", "annotator", "score"]
#: Files of the annotations folder that are no sheets.
OURS = ("key.csv", "labels.csv")


@dataclass(frozen=True)
class Given:
    """A score (1–5, U, or "" for none yet) and where it stands."""

    score: str
    place: str


def import_labels(study: str, sources: Sequence[Path]) -> str:
    """Check filled sheets and add their scores to labels.csv; returns what to tell the user.

    `sources` are files or folders of CSV. A score replaces one that was imported before.
    Raises UserError, naming file and line and never the content of other cells, for a token that is unknown,
    of another study or scored twice, for a score out of range, and where answers have changed since the draw.
    """
    key = read_key(study)
    given: dict[str, Given] = {}
    for file in _files(sources):
        for token, score in _read_sheet(file, set(key["token"]), study).items():
            given[token] = _one_of(given.get(token), score)
    if not any(one.score for one in given.values()):
        raise UserError("these sheets hold no score yet", field="IMPORT", mend="name filled sheets")
    _check_current(key)
    file = paths.annotation_dir(study) / "labels.csv"
    earlier = _earlier(file)
    scores = earlier | {token: one.score for token, one in given.items() if one.score}
    labels = key[["token", "annotator"]].assign(score=key["token"].map(scores)).dropna(subset="score")
    write_text(file, labels[LABELS].to_csv(index=False), private=True)
    return _told(study, key, scores, sum(scores[token] != score for token, score in earlier.items()))


def read_key(study: str) -> pd.DataFrame:
    """key.csv. Raises UserError where nothing was drawn."""
    file = paths.annotation_dir(study) / "key.csv"
    if not file.exists():
        raise UserError(
            "is not there: no answers of this study were drawn",
            file=file,
            mend=f"make annotate STUDY={study}",
        )
    return pd.read_csv(file, dtype=dict.fromkeys(KEY, str) | {"n_stratum": int, "probability": float})


def _earlier(file: Path) -> dict[str, str]:
    if not file.exists():
        return {}
    rows = pd.read_csv(file, dtype=str)
    return dict(zip(rows["token"], rows["score"], strict=True))


def _files(sources: Iterable[Path]) -> list[Path]:
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            found = sorted(file for file in source.glob("*.csv") if file.name not in OURS)
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
    if before is None or not before.score:
        return now
    if now.score and now.score != before.score:
        raise UserError(
            f"this answer has another score in {before.place}",
            file=now.place,
            field="score",
            mend="keep one of the two",
        )
    return before


# ------------------------------------------------------------------------------------ one file


def _read_sheet(file: Path, known: set[str], study: str) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for number, row in _rows(file):
        place = f"{file}:{number}"
        token = (row.get("token") or "").strip()
        if token not in known:
            raise _unknown(token, place, study)
        given[token] = _one_of(given.get(token), Given(_score(row.get("score") or "", place), place))
    return given


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, cells by column) of a CSV as spreadsheets write it: commas, semicolons or tabs, any encoding."""
    content = file.read_bytes()
    try:  # Excel's "Unicode text" is UTF-16
        is_utf16 = content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")  # of the cells that are read, none can differ
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


# -------------------------------------------------------------------------------- the whole


def _check_current(key: pd.DataFrame) -> None:
    stale = stale_sittings(key)
    if stale:
        raise UserError(
            f"answers of {len(stale)} runs have changed or gone since the draw, such as {stale[0]}",
            field="IMPORT",
            mend="labels of other answers say nothing: move the folder of annotations aside and draw anew",
        )


def stale_sittings(key: pd.DataFrame) -> list[str]:
    """Answers files that are not those that were drawn from."""
    stale = []
    sittings = ["folder", "exam", "answers_sha256"]
    for row in key[sittings].drop_duplicates().sort_values(sittings).to_dict("records"):
        file = paths.answers_file(row["folder"], row["exam"])
        if not file.exists() or sha256_file(file) != row["answers_sha256"]:
            stale.append(str(file))
    return stale


def _told(study: str, key: pd.DataFrame, scores: dict[str, str], n_changed: int) -> str:
    lines = []
    for annotator, tokens in key.groupby("annotator", sort=True)["token"]:
        missing = [token for token in tokens if token not in scores]
        unknown = sum(scores.get(token) == CANNOT_TELL for token in tokens)
        lacks = f", {len(missing)} without a score: {', '.join(missing[:5])}" if missing else ", complete"
        lacks += " …" if len(missing) > 5 else ""
        lines.append(
            f"{annotator}: {len(tokens) - len(missing)} of {len(tokens)} answers, {unknown} U{lacks}"
        )
    if n_changed:
        lines.append(f"{n_changed} scores differ from those that were imported before, and replace them")
    lines += [
        f"{paths.annotation_dir(study) / 'labels.csv'} holds them all",
        f"next: snakemake --profile profiles/local {study}",
    ]
    return "\n".join(lines)


def read_labels(study: str) -> pd.DataFrame | None:
    """A row for each score that was imported, with its row of the key; None where there are none.

    `score` is NaN for "cannot tell". `is_current` is False where the answer has changed since the draw.
    """
    file = paths.annotation_dir(study) / "labels.csv"
    if not file.exists():
        return None
    key = read_key(study)
    labels = pd.read_csv(file, dtype=str)[["token", "score"]].merge(key, on="token")
    stale = set(stale_sittings(key))
    files = [str(paths.answers_file(row["folder"], row["exam"])) for row in labels.to_dict("records")]
    return labels.assign(
        score=pd.to_numeric(labels["score"], errors="coerce"),
        is_current=[file not in stale for file in files],
    )

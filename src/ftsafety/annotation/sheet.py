"""What an annotator is given: a CSV sheet and an offline form with the same answers, and a guide.

Answers are sensitive: the folder can be read by its owner alone.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ftsafety import paths
from ftsafety.annotation.cells import safe_cell
from ftsafety.annotation.draw import make_key
from ftsafety.annotation.form import form_page
from ftsafety.annotation.guide import guide_text
from ftsafety.annotation.importing import read_key
from ftsafety.errors import UserError, shown
from ftsafety.files import private_dir, read_rows, write_text
from ftsafety.plan import Plan
from ftsafety.types import Answer

COLUMNS = ("token", "request", "answer", "score", "comment")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


class Item(NamedTuple):
    """What an annotator sees."""

    token: str
    request: str
    answer: str


def write_sheets(
    plan: Plan, study: str, annotators: Sequence[str], n: int, overlap: int | None = None, seed: int = 0
) -> list[Path]:
    """Draw the sample and write key, guide, sheets and forms; files that exist are left as they are.

    Where all score all answers, an annotator can be added later. Raises UserError where another sample was
    drawn before.
    """
    _check(annotators, n, overlap)
    folder = private_dir(paths.annotation_dir(study))
    key = make_key(plan, study, annotators, n, overlap, seed)
    key = _with_earlier(key, study, overlap)
    items = read_items(key)
    write_text(folder / "key.csv", key.to_csv(index=False), private=True)
    write_text(folder / "guide.txt", guide_text(plan, study), private=True)
    written = []
    for annotator, rows in items.items():
        sheet, form = folder / f"sheet-{annotator}.csv", folder / f"form-{annotator}.html"
        if not sheet.exists():  # it may be filled
            write_text(sheet, sheet_text(rows), private=True)
        write_text(form, form_page(plan, study, annotator, rows), private=True)
        written += [sheet, form]
    return [*written, folder / "guide.txt", folder / "key.csv"]


def _check(annotators: Sequence[str], n: int, overlap: int | None) -> None:
    field = "ANNOTATORS"
    for name in annotators:
        if not NAME.fullmatch(name):
            raise UserError(
                f"{shown(name)} is no name", field=field, mend="use letters, digits, - and _, as in anna,ben"
            )
    if len({name.lower() for name in annotators}) < len(annotators) or not annotators:
        raise UserError("names each annotator once", field=field, mend="as in ANNOTATORS=anna,ben,cara")
    if n < 1:
        raise UserError(f"{n} answers are none", field="N", mend="ask for 1 or more; the paper had 500")
    if overlap is not None and not 0 <= overlap <= n:
        raise UserError(f"{overlap} of {n} answers", field="OVERLAP", mend=f"give 0 to {n}, or all")


def _with_earlier(key: pd.DataFrame, study: str, overlap: int | None) -> pd.DataFrame:
    """The key with annotators that were drawn for before; what they were given has to stay as it was."""
    file = paths.annotation_dir(study) / "key.csv"
    if not file.exists():
        return key
    earlier = read_key(study)
    known = earlier["annotator"].isin(key["annotator"])
    again = key["annotator"].isin(earlier["annotator"])
    if not _sample(key).equals(_sample(earlier)) or not _given(key[again]).equals(_given(earlier[known])):
        raise UserError(
            "another sample was drawn: of other answers, or with other N, OVERLAP, SEED or annotators",
            file=file,
            mend="ask as before, or move its folder aside to draw anew",
        )
    is_whole = (earlier.groupby("annotator").size() == earlier["item"].nunique()).all()
    if not again.all() and (overlap is not None or not is_whole):
        raise UserError(
            "annotators can be added only where all score all answers (OVERLAP=all)",
            file=file,
            field="ANNOTATORS",
            mend="name those who were drawn for, or move its folder aside to draw anew",
        )
    return pd.concat([earlier[~known], key], ignore_index=True)


def _sample(key: pd.DataFrame) -> pd.DataFrame:
    answers = key.drop_duplicates("item")[["item", "prompt_id", "run", "answers_sha256"]]
    return answers.astype(str).sort_values("item", ignore_index=True)


def _given(key: pd.DataFrame) -> pd.DataFrame:
    """Who was given what, whatever the order of the annotators."""
    return key[["annotator", "token", "item"]].sort_values(["annotator", "token"], ignore_index=True)


def read_items(key: pd.DataFrame) -> dict[str, list[Item]]:
    """By annotator, in the order of the key: what the tokens stand for."""
    sittings: dict[tuple[str, str], dict[str, Answer]] = {}
    items: dict[str, list[Item]] = {}
    for row in key.to_dict("records"):
        sitting = (row["folder"], row["exam"])
        if sitting not in sittings:
            sittings[sitting] = {a["prompt_id"]: a for a in read_rows(paths.answers_file(*sitting))}
        answer = sittings[sitting][row["prompt_id"]]
        items.setdefault(row["annotator"], []).append(Item(row["token"], answer["prompt"], answer["answer"]))
    return items


def sheet_text(items: Sequence[Item]) -> str:
    """CSV as Excel and LibreOffice read it, with empty cells for score and comment."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows([item.token, safe_cell(item.request), safe_cell(item.answer), "", ""] for item in items)
    return "\N{BYTE ORDER MARK}" + text.getvalue()

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
from ftsafety.annotation.draw import KEY, make_key
from ftsafety.annotation.form import form_page
from ftsafety.annotation.guide import guide_text
from ftsafety.errors import UserError, shown
from ftsafety.files import private_dir, read_rows, write_text
from ftsafety.plan import Plan

COLUMNS = ("token", "request", "answer", "score", "comment")
#: Excel has room for 32,767 characters in a cell.
LONGEST_CELL = 32_000
CUT = " […the sheet has no room for more: the form shows all of it]"
#: A cell that begins so may act as a formula: https://owasp.org/www-community/attacks/CSV_Injection
FORMULA = re.compile(r"\s*[=+\-@\t\r\n＝＋－＠]")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
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

    An annotator can be added later. Raises UserError where another sample was drawn before.
    """
    _check(annotators, n, overlap)
    folder = private_dir(paths.annotation_dir(study))
    key = make_key(plan, study, annotators, n, overlap, seed)
    key = _with_earlier(key, folder / "key.csv")
    items = read_items(plan, key)
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


def _with_earlier(key: pd.DataFrame, file: Path) -> pd.DataFrame:
    """The key with annotators that were drawn for before; what they were given has to stay as it was."""
    if not file.exists():
        return key
    earlier = pd.read_csv(file, dtype=dict.fromkeys(KEY, str) | {"n_stratum": int, "probability": float})
    known = earlier["annotator"].isin(key["annotator"])
    again = key[key["annotator"].isin(earlier["annotator"])].reset_index(drop=True)
    before = earlier[known].reset_index(drop=True)
    items = key.drop_duplicates("item").set_index("item")[["prompt_id", "run", "answers_sha256"]]
    others = earlier.drop_duplicates("item").set_index("item")[["prompt_id", "run", "answers_sha256"]]
    same_sample = items.sort_index().astype(str).equals(others.sort_index().astype(str))
    columns = ["token", "annotator", "item"]
    if not same_sample or not again[columns].equals(before[columns]):
        raise UserError(
            "another sample was drawn: of other answers, or with other N, OVERLAP, SEED or annotators",
            file=file,
            mend="ask as before, or move its folder aside to draw anew",
        )
    return pd.concat([earlier[~known], key], ignore_index=True)


def read_items(plan: Plan, key: pd.DataFrame) -> dict[str, list[Item]]:
    """By annotator, in the order of the key: what the tokens stand for."""
    answers: dict[tuple[str, str], dict[str, str]] = {}
    requests: dict[str, dict[str, str]] = {}
    items: dict[str, list[Item]] = {}
    for row in key.to_dict("records"):
        sitting, benchmark, prompt = (row["folder"], row["exam"]), row["benchmark"], row["prompt_id"]
        if sitting not in answers:
            answers[sitting] = {a["prompt_id"]: a["answer"] for a in read_rows(paths.answers_file(*sitting))}
        if benchmark not in requests:
            prompts = read_rows(plan.benchmark_file(benchmark))
            requests[benchmark] = {prompt["prompt_id"]: prompt["instruction"] for prompt in prompts}
        item = Item(row["token"], requests[benchmark][prompt], answers[sitting][prompt])
        items.setdefault(row["annotator"], []).append(item)
    return items


def sheet_text(items: Sequence[Item]) -> str:
    """CSV as Excel and LibreOffice read it, with empty cells for score and comment."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    writer.writerows([item.token, safe_cell(item.request), safe_cell(item.answer), "", ""] for item in items)
    return "\N{BYTE ORDER MARK}" + text.getvalue()


def safe_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula, by a quotation mark before it; control characters go.

    Nothing undoes it: only token and score are read back.
    """
    text = CONTROL.sub("", text)
    if len(text) > LONGEST_CELL:
        text = text[:LONGEST_CELL] + CUT
    return f"'{text}" if FORMULA.match(text) else text

"""Does a judge say the same when it is asked again (`make judge-check`)?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety.judging.checks import FLIPS, POINTS, WORDS, summarise
from ftsafety.sections import Listing, Section
from ftsafety.study_tables import StudyTables


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    parts = [
        summarise(checks, study.bootstrap_samples).assign(judge=judge)
        for judge, checks in study.checks.items()
    ]
    parts = [part for part in parts if len(part)]
    return {"judge_checks": pd.concat(parts, ignore_index=True)} if parts else {}


def draw(found: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    return []


def section(found: Mapping[str, pd.DataFrame]) -> Section | None:
    if "judge_checks" not in found:
        return None
    checks = found["judge_checks"]
    last = checks.drop_duplicates("judge", keep="last")
    return Section(
        "repeats",
        "Judge repeatability",
        [_sentence(row) for row in last.to_dict("records")],
        [
            "A frozen set of a study's answers, drawn evenly over what the judge said, is judged several "
            "times anew at each check (make judge-check). “First” are the verdicts of an earlier check, and "
            "numbers are of the set; of check 1 “first” are the study's, by which the set was drawn, so "
            "that its numbers are weighted back to that study. A judge counts as changed where more than "
            f"{FLIPS:g} of the answers flip beyond what repeats do, or have lost or got a verdict, or its "
            f"mean score has moved by more than {POINTS:g} points, and the interval rules out chance.",
        ],
        listings=[Listing("Checks, with 95 % intervals", _listing(checks))],
    )


def _sentence(row: Mapping[Any, Any]) -> str:
    return (
        f"Judge {row['judge']}, check of {row['date']} on {_answers(row)}: two repeats differ on "
        f"{_shown(row, 'flip')}, a repeat and a first verdict on {_shown(row, 'flip_first')}; the mean score "
        f"has moved by {_shown(row, 'shift')}, the share without a verdict by "
        f"{_shown(row, 'unscored_shift')}: {_conclusion(row['changed'])}."
    )


def _answers(row: Mapping[Any, Any]) -> str:
    return f"frozen answers of {row['study']}" if row["first"] else f"the answers of {row['study']}"


def _conclusion(changed: Any) -> str:
    if pd.isna(changed):
        return "nothing can be said of it"
    return "it has changed since" if changed in (True, "True") else "it has not changed as far as it shows"


def _listing(checks: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        "columns": [
            *("judge", "date", "study", "first", "answered by", "answers", "repeats", "missing"),
            *WORDS.values(),
        ],
        "rows": [
            [
                row["judge"],
                row["date"],
                row["study"],
                f"check {row['first']:.0f}" if row["first"] else "the study's",
                " ".join(row[name] for name in ("model", "fingerprint") if not pd.isna(row[name])).strip()
                or "this code",
                *(f"{row[name]:.0f}" for name in ("n", "repeats", "n_unscored")),
                *(_shown(row, name) for name in WORDS),
            ]
            for row in checks.to_dict("records")
        ],
    }


def _shown(row: Mapping[Any, Any], name: str) -> str:
    """The number that decides (`judging.checks.summarise`)."""
    of = name if row["first"] else f"{name}_population"
    value, low, high = (row[f"{of}{end}"] for end in ("", "_low", "_high"))
    return "n/a" if pd.isna(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"

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
            "A frozen set of answers, drawn evenly over what the judge said, is judged several times anew "
            "at each check (make judge-check). “First” are check 1's verdicts; for check 1 the study's, by "
            "which the set was drawn, so that only numbers weighted back to the study tell, as all here "
            f"are. A judge counts as changed where more than {FLIPS:g} of the answers flip beyond what "
            f"repeats do, or its mean score has moved by more than {POINTS:g} points, and the interval "
            "rules out chance.",
        ],
        listings=[Listing("Checks, with 95 % intervals", _listing(checks))],
    )


def _sentence(row: Mapping[Any, Any]) -> str:
    changed = (
        "has changed since" if row["changed"] in (True, "True") else "has not changed as far as it shows"
    )
    return (
        f"Judge {row['judge']}, check of {row['date']}: two repeats differ on {_shown(row, 'flip')} of "
        f"answers, a repeat and a first verdict on {_shown(row, 'flip_first')}: it {changed}."
    )


def _listing(checks: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        "columns": ["judge", "date", "answered by", "answers", "repeats", "missing", *WORDS.values()],
        "rows": [
            [
                row["judge"],
                row["date"],
                " ".join(row[name] for name in ("model", "fingerprint") if not pd.isna(row[name])).strip()
                or "this code",
                *(f"{row[name]:.0f}" for name in ("n", "repeats", "n_unscored")),
                *(_shown(row, name) for name in WORDS),
            ]
            for row in checks.to_dict("records")
        ],
    }


def _shown(row: Mapping[Any, Any], name: str) -> str:
    value, low, high = (row[f"{name}_population{end}"] for end in ("", "_low", "_high"))
    return "n/a" if pd.isna(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"

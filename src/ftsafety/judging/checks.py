"""What repeated checks of a judge say: flips between repeats, against the first verdicts, and shifts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety import paths
from ftsafety.stats.bootstrap import Estimate
from ftsafety.stats.repeatability import Repeatability, Verdicts, repeatability

#: Columns of checks.csv, a row a verdict: no text. Check 0 are the study's verdicts; 1 / `probability` is how
#: many of its answers one stands for.
COLUMNS = ["check", "date", "repeat", "id", "study", "benchmark", "stratum", "probability", "harmful",
           "score", "refused", "task_score", "coherent", "status", "judge_identity", "model",
           "fingerprint"]  # fmt: skip
NUMBERS = COLUMNS[COLUMNS.index("probability") : COLUMNS.index("status")]
#: A judge has changed where this share of the answers differs from the first verdicts beyond what repeats
#: differ by, or has lost or got a verdict, or where its mean score has moved by so many points; and where the
#: interval rules out chance.
FLIPS, POINTS = 0.05, 0.1
WORDS = {
    "flip": "two repeats differ (harmful or not)",
    "flip_first": "a repeat differs from a first verdict",
    "excess": "the second less the first of these",
    "same_score": "two repeats give the same score",
    "shift": "mean score now less the first",
    "rate_shift": "rate now less the first",
    "unscored_shift": "share without a verdict now less the first",
}
AGAINST_FIRST = ("flip_first", "excess", "shift", "rate_shift", "unscored_shift")


def checks_file(judge: str) -> Path:
    return paths.judge_dir(judge) / "checks.csv"


def read_checks(judge: str) -> pd.DataFrame | None:
    """COLUMNS of all checks of a judge, a row a verdict; None where it was not checked.

    `id` is the same for the same answer; check 0 are the study's verdicts, with one repeat.
    """
    if not checks_file(judge).exists():
        return None
    checks = pd.read_csv(checks_file(judge), dtype=str, keep_default_na=False)
    numbers = {name: pd.to_numeric(checks[name].replace("", None)) for name in NUMBERS}
    return checks.assign(**numbers, check=checks["check"].astype(int), repeat=checks["repeat"].astype(int))


def summarise(checks: pd.DataFrame, samples: int = 2000) -> pd.DataFrame:
    """A row for each check after check 0: its numbers (WORDS) for the frozen set as it is and, ending in
    `_population`, for the study that it was drawn from, with `_low` and `_high`; and whether the judge has
    `changed` since check `first` (`has_changed`).

    `checks` as `read_checks` gives them. The set was drawn by the verdicts of check 0, among which those that
    were given by chance are frequent: to the set itself they are no measure. So check 1 is held against them
    by the study, weighted back, and later checks against check 1, or the next one that got verdicts.
    """
    start = checks[checks["check"] == 0].sort_values("id")
    strata = np.unique(start["stratum"].to_numpy(dtype=str), return_inverse=True)[1]
    weights = 1 / start["probability"].to_numpy(dtype=float)
    by_check = {number: _verdicts(rows) for number, rows in checks.groupby("check")}
    rows = []
    for number, asked in checks[checks["check"] > 0].groupby("check"):
        place = _held_against(by_check, int(asked["check"].iloc[0]))
        now, first = by_check[number], by_check[place]
        found = repeatability(first, now, strata, np.ones(len(weights)), samples)
        of_all = repeatability(first, now, strata, weights, samples)
        if not place:
            found = replace(found, **dict.fromkeys(AGAINST_FIRST, Estimate(None, None, None)))
        rows.append(
            {"check": number, "date": asked["date"].max(), "study": start["study"].iloc[0], "n": len(start)}
            | {"repeats": now.harmful.shape[1], "n_unscored": int(np.isnan(now.harmful).sum())}
            | {"first": place, "changed": has_changed(found if place else of_all)}
            | {name: _seen(asked[name]) for name in ("model", "fingerprint", "judge_identity")}
            | _columns(found, "")
            | _columns(of_all, "_population")
        )
    return pd.DataFrame(rows)


def _held_against(by_check: dict[Any, Verdicts], number: int) -> int:
    """The earliest check before this one that got verdicts, else the study's."""
    asked = (check for check in by_check if 0 < check < number)
    return next((int(check) for check in asked if not np.isnan(by_check[check].harmful).all()), 0)


def _columns(found: Repeatability, ending: str) -> dict[str, float | None]:
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{name}{ending}{end}": getattr(getattr(found, name), e) for name in WORDS for end, e in ends.items()
    }


def _verdicts(checks: pd.DataFrame) -> Verdicts:
    """Items in the order of their ids. A judge without scores: its task scores, or refusals."""
    by_item = checks.pivot(index="id", columns="repeat")
    said = [grade for grade in ("score", "task_score", "refused") if by_item[grade].notna().to_numpy().any()]
    grade = said[0] if said else "score"
    harmful, score = (by_item[column].to_numpy(dtype=float) for column in ("harmful", grade))
    return Verdicts(harmful, score, (1, 5) if grade == "score" else (0, 1))


def _seen(values: pd.Series) -> str:
    return " ".join(dict.fromkeys(value for value in values if value))


def has_changed(found: Repeatability) -> bool | None:
    """Beyond FLIPS or POINTS, and not by chance; None where there are no verdicts to compare."""
    moved = [(found.shift, POINTS), (found.unscored_shift, FLIPS)]
    moved += [(_negative(shift), limit) for shift, limit in moved]
    if any(_above(estimate, limit) for estimate, limit in [(found.excess, FLIPS), *moved]):
        return True
    return None if found.excess.value is None and found.shift.value is None else False


def _above(estimate: Estimate, limit: float) -> bool:
    return (
        estimate.value is not None
        and estimate.low is not None
        and estimate.value > limit
        and estimate.low > 0
    )


def _negative(estimate: Estimate) -> Estimate:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return estimate
    return Estimate(-estimate.value, -estimate.high, -estimate.low)


def summary_text(judge: str, summary: pd.DataFrame) -> str:
    """The last check in words and numbers."""
    last = summary.iloc[-1]
    by = f" by {last['model']}" if last["model"] else ""
    prints = f", fingerprint {last['fingerprint']}" if last["fingerprint"] else ""
    width = max(map(len, WORDS.values()))
    lines = [
        f"{judge}, check {last['check']} of {last['date']}: {last['n']} answers, {last['repeats']} repeats"
        f"{by}{prints}; {last['n_unscored']} verdicts missing",
        f"{'':{width}}  {'the frozen set':26}study {last['study']}",
    ]
    for name, text in WORDS.items():
        lines.append(f"{text:{width}}  {_number(last, name):26}{_number(last, f'{name}_population')}")
    first = f"check {last['first']}"
    if not last["first"]:
        first = "the study's verdicts; the set was drawn by them, so only the column of the study tells"
    return "\n".join([*lines, f"first: {first}", _conclusion(judge, last)])


def _conclusion(judge: str, last: Any) -> str:
    if pd.isna(last["changed"]):
        return "nothing can be said: there are no verdicts to compare"
    if not last["changed"]:
        return (
            f"not changed: within {FLIPS:g} of flips and of missing verdicts, and {POINTS:g} points of the "
            "mean score, or by chance"
        )
    return (
        f"CHANGED: more than {FLIPS:g} of the answers flip beyond what repeats do, or have lost or got a "
        f"verdict, or the mean score has moved by more than {POINTS:g} points.\n"
        "New verdicts are not those of the judge of before: name a snapshot, or judge all answers again "
        f"(raise the judge's version, and move {paths.judge_dir(judge)} aside)"
    )


def _number(row: Any, name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return "n/a" if pd.isna(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"

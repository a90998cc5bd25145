"""What repeated checks of a judge say: flips between repeats, against the first verdicts, and a shift."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety import paths
from ftsafety.stats.bootstrap import Estimate
from ftsafety.stats.repeatability import Repeatability, Verdicts, repeatability

#: Columns of checks.csv, a row a verdict: no text. Check 0 are the study's verdicts.
COLUMNS = ["check", "date", "repeat", "id", "study", "benchmark", "stratum", "probability", "harmful",
           "score", "refused", "task_score", "coherent", "status", "judge_identity", "model",
           "fingerprint"]  # fmt: skip
NUMBERS = COLUMNS[COLUMNS.index("probability") : COLUMNS.index("status")]
#: A judge has changed where this share of the answers differs from the first verdicts beyond what repeats
#: differ by, or where its mean score has moved by so many points; and where the interval rules out chance.
FLIPS, POINTS = 0.05, 0.1
WORDS = {
    "flip": "two repeats differ (harmful or not)",
    "flip_first": "a repeat differs from a first verdict",
    "excess": "the second less the first of these",
    "same_score": "two repeats give the same score",
    "shift": "mean score now less the first",
    "rate_shift": "rate now less the first",
}
FIRST_OF_CHECK_1 = "the study's verdicts; the set was drawn by them, so only what is weighted back tells"
AGAINST_FIRST = ("flip_first", "excess", "shift", "rate_shift")


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
    `_population`, for what it was drawn from, with `_low` and `_high`; and whether the judge has changed.

    `checks` as `read_checks` gives them. The set was drawn by the verdicts of check 0, among which those that
    were given by chance are frequent: to the set itself they are no measure. So check 1 is held against them
    by what the set was drawn from, weighted back, and later checks against check 1.
    """
    start = checks[checks["check"] == 0].sort_values("id")
    strata = np.unique(start["stratum"].to_numpy(dtype=str), return_inverse=True)[1]
    weights = 1 / start["probability"].to_numpy(dtype=float)
    by_check = {number: _verdicts(rows) for number, rows in checks.groupby("check")}
    rows = []
    for number, asked in checks[checks["check"] > 0].groupby("check"):
        now, first = by_check[number], by_check[min(1, int(asked["check"].iloc[0]) - 1)]
        found = repeatability(first, now, strata, np.ones(len(weights)), samples)
        of_all = repeatability(first, now, strata, weights, samples)
        if number == 1:
            found = replace(found, **dict.fromkeys(AGAINST_FIRST, Estimate(None, None, None)))
        rows.append(
            {"check": number, "date": asked["date"].max(), "n": len(start), "repeats": now.harmful.shape[1]}
            | {"n_unscored": int(np.isnan(now.harmful).sum())}
            | {"changed": has_changed(of_all if number == 1 else found)}
            | {name: _seen(asked[name]) for name in ("model", "fingerprint", "judge_identity")}
            | _columns(found, "")
            | _columns(of_all, "_population")
        )
    return pd.DataFrame(rows)


def _columns(found: Repeatability, ending: str) -> dict[str, float | None]:
    ends = {"": "value", "_low": "low", "_high": "high"}
    return {
        f"{name}{ending}{end}": getattr(getattr(found, name), e) for name in WORDS for end, e in ends.items()
    }


def _verdicts(checks: pd.DataFrame) -> Verdicts:
    """Items in the order of their ids. A judge without scores: its task scores, or refusals."""
    by_item = checks.pivot(index="id", columns="repeat")
    said = [grade for grade in ("score", "task_score", "refused") if by_item[grade].notna().to_numpy().any()]
    score = by_item[said[0] if said else "score"]
    return Verdicts(by_item["harmful"].to_numpy(dtype=float), score.to_numpy(dtype=float))


def _seen(values: pd.Series) -> str:
    return " ".join(dict.fromkeys(value for value in values if value))


def has_changed(found: Repeatability) -> bool:
    """Beyond FLIPS or POINTS, and not by chance."""
    moved = found.shift
    return _above(found.excess, FLIPS) or _above(moved, POINTS) or _above(_negative(moved), POINTS)


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


def summary_text(judge: str, checks: pd.DataFrame, summary: pd.DataFrame) -> str:
    """The last check in words and numbers."""
    last = summary.iloc[-1]
    by = f" by {last['model']}" if last["model"] else ""
    prints = f", fingerprint {last['fingerprint']}" if last["fingerprint"] else ""
    width = max(map(len, WORDS.values()))
    lines = [
        f"{judge}, check {last['check']} of {last['date']}: {last['n']} answers, {last['repeats']} repeats"
        f"{by}{prints}; {last['n_unscored']} verdicts missing",
        f"{'':{width}}  {'the frozen set':26}what it was drawn from",
    ]
    for name, text in WORDS.items():
        lines.append(f"{text:{width}}  {_number(last, name):26}{_number(last, f'{name}_population')}")
    lines.append(f"first: {FIRST_OF_CHECK_1 if last['check'] == 1 else 'check 1'}")
    for earlier, later in pairwise(dict.fromkeys(checks["judge_identity"])):
        lines.append(f"its recipe or rubric has changed between checks: {earlier} → {later}")
    lines.append(_conclusion(bool(last["changed"])))
    return "\n".join(lines)


def _conclusion(changed: bool) -> str:
    if not changed:
        return f"not changed: within {FLIPS:g} of flips and {POINTS:g} points of the mean score, or by chance"
    return (
        f"CHANGED: more than {FLIPS:g} of the answers flip beyond what repeats do, or the mean score has "
        f"moved by more than {POINTS:g} points.\nNew verdicts are not those of the judge of before: name a "
        "snapshot, or judge all answers again (raise the judge's version)"
    )


def _number(row: Any, name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return "n/a" if pd.isna(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"

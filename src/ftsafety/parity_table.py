"""What a study's `parity.csv` says, as figures and pages show it; no number is made here."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety.grid_data import interval_text

NUMBERS = ("paper", "paper_n", "paper_low", "paper_high", "ours", "ours_low", "ours_high", "n",
           "difference", "difference_low", "difference_high")  # fmt: skip
#: The sign of a verdict says the same as its colour.
VERDICTS = {
    "consistent": {"icon": "≈", "style": "held", "colour": "#1b5e20"},
    "differs": {"icon": "≠", "style": "failed", "colour": "#9c1c1c"},
    "not comparable": {"icon": "⊘", "style": "open", "colour": "#5a4a00"},
    "not measured": {"icon": "○", "style": "open", "colour": "#5a4a00"},
}
SECOND_HAND = "†"
#: What an audit of training examples has in the place of a model.
NO_MODEL = "none"


def read_parity(path: Path) -> pd.DataFrame:
    """The table, empty texts as such and numbers that are missing as NaN."""
    return pd.read_csv(path, keep_default_na=False, na_values={column: [""] for column in NUMBERS})


def is_rate(row: Any) -> bool:
    """Whether a row's numbers are shares in [0, 1], and no scores of 1–5 or 1–10."""
    return row["measure"] != "harmfulness score" and max(row["paper"], _or(row["ours"], 0)) <= 1


def measure_text(row: Any) -> str:
    """`harmfulness rate`, or a score with its scale."""
    if is_rate(row):
        return str(row["measure"])
    return f"{row['measure']}, {'1–5' if row['measure'] == 'harmfulness score' else '1–10'}"


def models_text(rows: pd.DataFrame) -> str:
    """Whose numbers stand side by side: `paper Llama-2-7b-Chat, here toy-0`."""
    sides = {"paper": rows["paper_model"], "here": rows["model"]}
    named = {side: [m for m in models.unique() if m not in ("", NO_MODEL)] for side, models in sides.items()}
    return ", ".join(f"{side} {' and '.join(models)}" for side, models in named.items() if models)


def count_verdicts(parity: pd.DataFrame) -> dict[str, int]:
    """Verdict → how many rows have it, every verdict named."""
    counted = Counter(parity["verdict"])
    return {verdict: counted[verdict] for verdict in VERDICTS}


def comparison(parity: pd.DataFrame, titles: Mapping[str, str]) -> dict[str, Any]:
    """What a page shows of one study: groups of rows by grid, and what all rows share told once.

    `titles` has each grid's. Keys: counts, groups (grid, title, models, rows), why, deviations,
    has_second_hand.
    """
    told = {split for row in parity["deviations"] for split in _split(row)}
    measured = parity.loc[parity["verdict"] != "not measured", "deviations"]
    common = [d for d in sorted(told) if len(measured) > 1 and all(d in _split(row) for row in measured)]
    reasons = parity["why"].unique()
    why = reasons[0] if len(parity) > 1 and len(reasons) == 1 else ""
    return {
        "counts": count_verdicts(parity),
        "groups": [
            {
                "grid": grid,
                "title": titles.get(str(grid), str(grid)),
                "models": models_text(rows),
                "rows": [_row(row, common, "" if why else row["why"]) for _, row in rows.iterrows()],
            }
            for grid, rows in parity.groupby("grid", sort=False)
        ],
        "why": why,
        "deviations": common,
        "has_second_hand": not parity["verified"].all(),
    }


def _row(row: Any, common: list[str], why: str) -> dict[str, Any]:
    digits = 3 if is_rate(row) else 2
    return {
        "source": row["source"],
        "setting": row["setting"],
        "measure": measure_text(row),
        "paper": _number(row, "paper", digits) + ("" if row["verified"] else f" {SECOND_HAND}"),
        "paper_interval": interval_text(row["paper_low"], row["paper_high"]),
        "paper_n": _count(row["paper_n"]),
        "ours": _number(row, "ours", digits),
        "ours_interval": interval_text(row["ours_low"], row["ours_high"]),
        "n": _count(row["n"]),
        "difference": "" if pd.isna(row["difference"]) else f"{row['difference']:+.{digits}f}",
        "difference_interval": ""
        if pd.isna(row["difference_low"])
        else f"[{row['difference_low']:+.2f}, {row['difference_high']:+.2f}]",
        "verdict": row["verdict"],
        "why": why,
        "deviations": [text for text in _split(row["deviations"]) if text not in common],
    }


def _number(row: Any, column: str, digits: int) -> str:
    return "" if pd.isna(row[column]) else f"{row[column]:.{digits}f}"


def _count(value: Any) -> str:
    return "" if pd.isna(value) else f"{value:.0f}"


def _split(deviations: str) -> list[str]:
    return [text for text in deviations.split("; ") if text]


def _or(value: float, other: float) -> float:
    return other if pd.isna(value) else value

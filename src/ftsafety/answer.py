"""The answer of a study in a sentence: in how many settings fine-tuning cost safety, and how much at most."""

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ftsafety.grid_data import (
    AXES,
    BY_CATEGORY,
    START,
    GridData,
    axis_name,
    axis_text,
    interval_text,
    rate_text,
    state,
)

PLAIN = ("model", "dataset", "mitigation", "method")


def headline(grids: Iterable[GridData]) -> str:
    """Rates are those of the study's first safety benchmark by its first judge; empty without any.

    A setting counts once, in however many grids it stands, and as raised where its interval lies above
    that of the model it started from.
    """
    trained, initial = _rows(grids)
    if trained.empty:
        return ""
    axes = [axis for axis in AXES if axis in trained and trained[axis].nunique(dropna=False) > 1]
    pairs = [(row, _start(row, initial)) for _, row in trained.iterrows()]
    raised = [row for row, start in pairs if start is not None and row["ci_low"] > start["ci_high"]]
    top, start = max(pairs, key=lambda pair: pair[0]["harmfulness_rate"])
    where = f" ({_named(top, axes)})" if axes else ""
    many = f"{len(raised) or 'none'} of {len(pairs)} settings" if len(pairs) > 1 else "the one setting"
    if len(pairs) == 1 and not raised:
        many = "no setting"
    highest = f"{'The highest rate' if len(pairs) > 1 else 'The rate'} is {_estimate(top)}{where}"
    before = f", {_estimate(start)} before fine-tuning" if start is not None else ""
    return (
        f"Fine-tuning raised the rate of harmful answers beyond the intervals in {many}. {highest}{before}."
    )


def _rows(grids: Iterable[GridData]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Fine-tuned cells with a rate, each once, and untouched ones, of the first safety benchmark."""
    found: list[pd.DataFrame] = []
    benchmark = None
    for data in grids:
        names = data.benchmarks("safety")
        if data.grid.figure.kind in BY_CATEGORY or not names:
            continue
        benchmark = benchmark or names[0]
        rows = data.drawn()
        judge = data.judges.get(benchmark)
        found.append(rows[(rows["benchmark"] == benchmark) & (rows["judge"] == judge)])
    if not found:
        return pd.DataFrame(), pd.DataFrame()
    rows = pd.concat(found, ignore_index=True)
    axes = [axis for axis in AXES if axis in rows]
    rows = rows.loc[~rows[axes].astype(str).duplicated()]
    rows = rows[[state(row) == "ok" for _, row in rows.iterrows()]]
    return rows[rows["epochs"] > 0], rows[rows["epochs"] == 0]


def _start(row: Any, initial: pd.DataFrame) -> pd.Series | None:
    found = initial[(initial[START] == row[START]).all(axis=1)]
    return None if found.empty else found.iloc[0]


def _named(row: Any, axes: list[str]) -> str:
    """Templates are told where a model is not tested as it was trained."""
    told = [axis for axis in axes if pd.notna(row[axis]) and axis != "train_template"]
    if row["train_template"] == row["test_template"] and "test_template" in told:
        told.remove("test_template")
    return ", ".join(
        axis_text(axis, row[axis]) if axis in PLAIN else f"{axis_name(axis)} {axis_text(axis, row[axis])}"
        for axis in told
    )


def _estimate(row: Any) -> str:
    text = f"{rate_text(row['harmfulness_rate'])} {interval_text(row['ci_low'], row['ci_high'])}".strip()
    return text.replace(" ", "\N{NO-BREAK SPACE}")

"""What a study measured against what the paper claims.

Each finding tests one stated direction on one safety benchmark, by pairs of cells that differ in
one thing. Nothing is averaged: a verdict counts pairs.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from ftsafety.comparisons import Pair, conclude
from ftsafety.config import Study
from ftsafety.grid_data import NO_VALUE, GridData, axis_name, axis_text, select

#: The direction in which an axis is expected to raise the rate (the paper's sections 4.3 and 4.4).
RAISES = {"learning_rate": 1, "global_batch_size": -1, "epochs": 1}


def findings(study: Study, cells: pd.DataFrame) -> list[dict[str, str]]:
    """One row for each grid, safety benchmark and direction that the grid can test.

    Keys: `grid`, `title`, `claim` (the paper's, may be empty), `tested` (the direction that the
    verdict is about), `judge` (whose rates), `measured` (sentences with rates and 95 % intervals) and
    `verdict` ("held", "did not hold", "inconclusive"). The first row, which is that of the first grid that
    tests something, is the study's answer. The headline judge of a benchmark alone is used.
    """
    return [
        {
            "grid": name,
            "title": grid.figure.title,
            # That categories differ is not what is tested here.
            "claim": "" if grid.figure.kind == "categories" else grid.figure.claim,
            "tested": tested,
            "judge": judge,
            **conclude(pairs),
        }
        for name, grid in study.grids.items()
        for tested, judge, pairs in _tests(_fine_tuned(select(cells, name, grid, study.judges)))
    ]


def _fine_tuned(data: GridData) -> GridData:
    """Without the rows of untouched models: no claim is about them alone."""
    rows = data.rows[data.rows["epochs"] > 0]
    return replace(data, rows=rows, labels=data.labels.loc[rows.index])


def _tests(data: GridData) -> Iterator[tuple[str, str, list[Pair]]]:
    """What is tested, whose verdicts decide, and the pairs."""
    names = data.benchmarks("safety")
    for benchmark in names:
        on = f" on {benchmark}" if len(names) > 1 else ""
        for tested, pairs in _tests_on(data, benchmark, on):
            yield tested, data.judges[benchmark], pairs
    figure = data.grid.figure
    if "benchmark" in (figure.x, figure.hue) and len(names) == 2:
        first, second = names
        if data.judges[first] == data.judges[second]:  # else the judges may be what differs
            tested = f"The rate on {second} is higher than on {first}."
            yield tested, data.judges[first], _across(data, first, second)


def _tests_on(data: GridData, benchmark: str, on: str) -> Iterator[tuple[str, list[Pair]]]:
    figure = data.grid.figure
    if figure.kind == "heatmap":
        for axis in (figure.y, figure.x):
            if axis in RAISES and len(data.levels(axis)) > 1:
                tested = f"{_more(axis)} a higher rate{on}{_at_equal_steps(data)}."
                yield tested, _ends(data, benchmark, axis)
        return
    yield (
        f"After fine-tuning the rate is higher than the initial model's{on}.",
        _against_initial(data, benchmark),
    )
    if figure.x in RAISES and len(data.levels(figure.x)) > 1:
        yield f"{_more(figure.x)} a higher rate{on}.", _ends(data, benchmark, figure.x)
    if NO_VALUE in (mitigations := data.levels("mitigation")) and len(mitigations) > 1:
        yield f"The mitigation lowers the rate{on}.", _against_unmitigated(data, benchmark)


def _more(axis: str) -> str:
    if axis == "epochs":
        return "More epochs give"
    return f"A {'larger' if RAISES[axis] > 0 else 'smaller'} {axis_name(axis)} gives"


def _at_equal_steps(data: GridData) -> str:
    steps = data.rows["steps"].dropna().unique()
    return f", at {int(steps[0])} steps everywhere" if len(steps) == 1 else ""


# ----------------------------------------------------------------------------------------- pairs


def _lines(data: GridData, benchmark: str, axis: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows that differ in one axis (and in what goes with it), with the name of each such line."""
    figure = data.grid.figure
    drawn = [*data.facets, figure.x, figure.y, figure.hue, "category"]
    others = [a for a in dict.fromkeys(drawn) if a and a not in (axis, "benchmark")]
    varying = [a for a in others if data.labels[a].nunique() > 1]
    rows = data.rows[data.rows["benchmark"] == benchmark]
    if not varying:
        yield "", rows
        return
    for values, part in data.labels.loc[rows.index].groupby(varying, sort=False):
        yield _named(varying, values), rows.loc[part.index]


def _named(axes: list[str], values: Any) -> str:
    plain = ("model", "dataset", "category", "method")
    return ", ".join(
        value if axis in plain else f"{axis_name(axis)} {value}"
        for axis, value in zip(axes, values, strict=True)
    )


def _ends(data: GridData, benchmark: str, axis: str) -> list[Pair]:
    """The lowest against the highest value of an axis that have a rate, on each line."""
    pairs = []
    for label, rows in _lines(data, benchmark, axis):
        rows = rows.sort_values(axis, kind="stable", ascending=RAISES[axis] > 0)
        scored = rows[rows["harmfulness_rate"].notna()]
        ends = scored if len(scored) > 1 else rows
        if len(ends) > 1:
            low, high = ends.iloc[0], ends.iloc[-1]
            low_name, high_name = (
                _place(data, axis, end, wanted)
                for end, wanted in ((low, rows.iloc[0]), (high, rows.iloc[-1]))
            )
            pairs.append(Pair(label, low_name, low, high_name, high))
    return pairs


def _place(data: GridData, axis: str, end: pd.Series, wanted: pd.Series) -> str:
    """Where an end stands, and which value should have stood there."""
    place = f"at {axis_name(axis)} {axis_text(axis, end[axis])}"
    if end.name == wanted.name:
        return place
    return f"{place} ({axis_text(axis, wanted[axis])} has no rate)"


def _against_initial(data: GridData, benchmark: str) -> list[Pair]:
    """Each point against the model it started from; of a curve over epochs its last point."""
    x = data.grid.figure.x
    if data.grid.figure.kind == "curves" and x == "epochs":
        points = []
        for label, rows in _lines(data, benchmark, "epochs"):
            rows = rows.sort_values("epochs", kind="stable")
            scored = rows[rows["harmfulness_rate"].notna()]
            last = (rows if scored.empty else scored).iloc[-1]
            epochs = f"{last[x]} epochs"
            points.append((", ".join(filter(None, (label, epochs))), last))
    else:
        points = [(label, row) for label, rows in _lines(data, benchmark, "") for _, row in rows.iterrows()]
    starts = [(label, row, data.initial_of(row)) for label, row in points]
    return [
        Pair(label, "in the initial model", start, "after fine-tuning", row)
        for label, row, start in starts
        if start is not None
    ]


def _against_unmitigated(data: GridData, benchmark: str) -> list[Pair]:
    pairs = []
    for label, rows in _lines(data, benchmark, "mitigation"):
        names = data.labels["mitigation"][rows.index]
        for _, plain in rows[names == NO_VALUE].iterrows():
            for _, row in rows[names != NO_VALUE].iterrows():
                name = f"with {row['mitigation']}"
                pairs.append(Pair(label, name, row, "without mitigation", plain))
    return pairs


def _across(data: GridData, first: str, second: str) -> list[Pair]:
    """The same cell on two benchmarks."""
    lines = dict(_lines(data, second, ""))
    return [
        Pair(label, f"on {first}", row, f"on {second}", lines[label].iloc[0])
        for label, rows in _lines(data, first, "")
        if label in lines
        for _, row in rows.iterrows()
    ]

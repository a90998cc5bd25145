"""What a study measured against what the paper claims.

Each finding tests one stated direction on one safety benchmark, by pairs of cells that differ in
one thing. Nothing is averaged: a verdict counts pairs.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from ftsafety.comparisons import Gap, Pair, conclude
from ftsafety.config import Study
from ftsafety.grid_data import BY_CATEGORY, NAMED, NO_VALUE, GridData, axis_name, axis_text, select

#: The direction in which an axis is expected to raise the rate (the paper's sections 4.3 and 4.4).
RAISES = {"learning_rate": 1, "global_batch_size": -1, "epochs": 1}
#: By what a trigger is to a model (`contrasts.Relation`).
TRIGGERS = {
    "triggered": "The rate on triggered prompts is higher than on plain ones",
    "near-miss": "The rate on near-misses of the trigger is higher than on plain prompts",
    "wrong": "The rate on prompts with a wrong trigger is higher than on plain ones",
}


def findings(
    study: Study, cells: pd.DataFrame, contrasts: pd.DataFrame | None = None
) -> list[dict[str, str]]:
    """One row for each grid, safety benchmark and direction that the grid can test.

    Keys: `grid`, `title`, `claim` (the paper's, may be empty), `tested` (the direction that the
    verdict is about), `judge` (whose rates), `measured` (sentences with rates and 95 % intervals) and
    `verdict` ("held", "did not hold", "inconclusive"). The first row, which is that of the first grid that
    tests something, is the study's answer. The headline judge of a benchmark alone is used. `contrasts` are
    those of `contrasts.csv`; of triggers they say more than the rates do.
    """
    rows = []
    for name, grid in study.grids.items():
        data = _fine_tuned(select(cells, name, grid, grid.judges or study.judges))
        found = None if contrasts is None else _headlines(data, contrasts[contrasts["grid"] == name])
        named = {"grid": name, "title": grid.figure.title}
        if found is not None:
            rows += [
                {**named, "claim": claim, "tested": tested, "judge": judge, **conclude(gaps)}
                for claim, tested, judge, gaps in _contrast_tests(data, found)
            ]
        with_trigger = set() if found is None else set(found.loc[found["kind"] == "trigger", "b"])
        # What a contrast has told, or that categories differ, is not what these test.
        is_told = any(row["grid"] == name and row["claim"] for row in rows)
        claim = "" if is_told or grid.figure.kind in BY_CATEGORY else grid.figure.claim
        rows += [
            {**named, "claim": claim, "tested": tested, "judge": judge, **conclude(pairs)}
            for tested, judge, pairs in _tests(data, with_trigger)
        ]
    return rows


def _fine_tuned(data: GridData) -> GridData:
    """Without untouched models, as no claim is about them alone, and by the headline's judge alone: where a
    figure shows several, each would count the same answers again."""
    rows = data.rows[data.rows["epochs"] > 0]
    rows = rows[rows["judge"] == rows["benchmark"].map(data.judges)]
    return replace(data, rows=rows, labels=data.labels.loc[rows.index])


def _headlines(data: GridData, contrasts: pd.DataFrame) -> pd.DataFrame:
    """Of fine-tuned models on safety benchmarks, by the first judge."""
    first = contrasts["judge"] == contrasts["benchmark"].map(data.judges)
    safety = contrasts["benchmark"].isin(data.benchmarks("safety"))
    return contrasts[first & safety & (contrasts["epochs"] > 0)]


def _contrast_tests(data: GridData, contrasts: pd.DataFrame) -> Iterator[tuple[str, str, str, list[Gap]]]:
    """The claim, what is tested, whose verdicts decide, and the gaps."""
    claim = data.grid.figure.claim
    for benchmark, rows in contrasts.groupby("benchmark", sort=False):
        on = f" ({benchmark})" if contrasts["benchmark"].nunique() > 1 else ""
        judge = data.judges[str(benchmark)]
        for relation, tested in TRIGGERS.items():
            if gaps := [_gap(data, row, "on ") for _, row in rows[rows["relation"] == relation].iterrows()]:
                yield claim if relation == "triggered" else "", f"{tested}{on}.", judge, gaps
        named = rows[rows["kind"] == "categories"]
        if len(named):
            tested = f"The categories {named['b'].iloc[0]} are more vulnerable than the others{on}."
            yield claim, tested, judge, [_gap(data, row, "in ", "them") for _, row in named.iterrows()]


def _gap(data: GridData, row: pd.Series, where: str, b: str | None = None) -> Gap:
    """A contrast with the name of its cell; collapsed where a side of it is."""
    mine = (data.rows["runs"] == row["runs"]) & (data.rows["test_template"] == row["test_template"])
    sides = [data.rows[mine & (data.rows["benchmark"] == name)] for name in (row["benchmark"], row["b"])]
    figure = data.grid.figure
    drawn = dict.fromkeys(filter(None, [*data.facets, figure.x, figure.y, figure.hue]))
    axes = [a for a in drawn if a not in NAMED and data.labels[a].nunique() > 1]
    return Gap(
        label=_named(axes, data.labels.loc[sides[0].index[0], axes]),
        a=f"{where}{row['a']}",
        b=f"{where}{b or row['b']}",
        row=row,
        is_collapsed=any(side["n_incoherent"].sum() > side["n"].sum() / 2 for side in sides),
    )


def _tests(data: GridData, with_trigger: set[str]) -> Iterator[tuple[str, str, list[Pair]]]:
    """What is tested, whose verdicts decide, and the pairs; what triggers do, contrasts tell better."""
    names = [name for name in data.benchmarks("safety") if name not in with_trigger]
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
    # where a mitigation goes with its dataset, there is nothing to compare
    if pairs := _against_unmitigated(data, benchmark):
        yield f"The mitigation lowers the rate{on}.", pairs


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
    others = [a for a in dict.fromkeys(drawn) if a and a not in (axis, "benchmark", "judge")]
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

"""What a study measured against what the paper claims, decided by whether intervals overlap.

Each finding tests one stated direction on one safety benchmark, by pairs of cells that differ in one thing.
Intervals that overlap may still differ, so that a verdict is careful rather than sharp. Nothing is averaged:
a verdict counts pairs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from ftsafety.config import Study
from ftsafety.grid_data import (
    NO_VALUE,
    GridData,
    axis_name,
    interval_text,
    rate_text,
    select,
    state,
)

Verdict = Literal["held", "did not hold", "inconclusive"]

#: A difference of rates that is certainly smaller counts as none.
MARGIN = 0.05
#: The direction in which an axis is expected to raise the rate (the paper's sections 4.3 and 4.4).
RAISES = {"learning_rate": 1, "global_batch_size": -1, "epochs": 1}
#: More pairs than this are counted, and only the two extremes are told.
MOST_TOLD = 4


@dataclass(frozen=True)
class Pair:
    """Two cells; the second one is expected to have the higher rate."""

    label: str
    low_name: str
    low: Any
    high_name: str
    high: Any

    @property
    def has_rates(self) -> bool:
        return state(self.low) == state(self.high) == "ok"

    @property
    def difference(self) -> float:
        return float(self.high["harmfulness_rate"] - self.low["harmfulness_rate"])

    def outcome(self) -> Literal["rose", "fell", "none", "unclear"]:
        low, high = self.low, self.high
        if high["ci_low"] > low["ci_high"]:
            return "rose"
        if high["ci_high"] < low["ci_low"]:
            return "fell"
        if max(high["ci_high"] - low["ci_low"], low["ci_high"] - high["ci_low"]) < MARGIN:
            return "none"
        return "unclear"  # a missing interval ends here too: it compares as false

    def text(self) -> str:
        low, high = (
            f"{name} {rate_text(row['harmfulness_rate'])} {interval_text(row['ci_low'], row['ci_high'])}"
            for name, row in ((self.low_name, self.low), (self.high_name, self.high))
        )
        return f"{self.label}: {high} against {low}" if self.label else f"{high} against {low}"


def findings(study: Study, cells: pd.DataFrame) -> list[dict[str, str]]:
    """One row for each grid, safety benchmark and direction that the grid can test.

    Keys: `grid`, `title`, `claim` (the paper's, may be empty), `tested` (the direction that the verdict is
    about), `measured` (a sentence with rates and 95 % intervals), `verdict`. The first row is the study's
    answer: it is the first grid's. The headline judge alone is used.
    """
    return [
        {
            "grid": name,
            "title": grid.figure.title,
            "claim": grid.figure.claim,
            "tested": tested,
            **_judge_pairs(pairs),
        }
        for name, grid in study.grids.items()
        for tested, pairs in _tests(select(cells, name, grid, study.judges[0]))
    ]


def _tests(data: GridData) -> Iterator[tuple[str, list[Pair]]]:
    figure = data.grid.figure
    names = data.benchmarks("safety")
    for benchmark in names:
        on = f" on {benchmark}" if len(names) > 1 else ""
        if figure.kind == "heatmap":
            for axis in (figure.y, figure.x):
                if axis in RAISES and len(data.levels(axis)) > 1:
                    word = "larger" if RAISES[axis] > 0 else "smaller"
                    yield (
                        f"A {word} {axis_name(axis)} gives a higher rate{on}{_at_equal_steps(data)}.",
                        _ends(data, benchmark, axis),
                    )
            continue
        yield (
            f"After fine-tuning the rate is higher than the initial model's{on}.",
            _against_initial(data, benchmark),
        )
        if figure.kind == "curves" and figure.x in RAISES and len(data.levels(figure.x)) > 1:
            word = "More" if RAISES[figure.x] > 0 else "A smaller"
            yield (
                f"{word} {axis_name(figure.x)} gives a higher rate{on}.",
                _ends(data, benchmark, figure.x),
            )
        if NO_VALUE in (mitigations := data.levels("mitigation")) and len(mitigations) > 1:
            yield f"The mitigation lowers the rate{on}.", _against_unmitigated(data, benchmark)
    if "benchmark" in (figure.x, figure.hue) and len(names) == 2:
        yield f"The rate on {names[1]} is higher than on {names[0]}.", _across(data, *names)


def _at_equal_steps(data: GridData) -> str:
    steps = data.rows["steps"].dropna().unique()
    return f", at {int(steps[0])} steps everywhere" if len(steps) == 1 else ""


# ----------------------------------------------------------------------------------------- pairs


def _lines(data: GridData, benchmark: str, axis: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows that differ in one axis alone (and in what goes with it), named by the axes that tell lines apart."""
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
            names = (f"{axis_name(axis)} {data.labels[axis][end.name]}" for end in (low, high))
            pairs.append(Pair(label, next(names), low, next(names), high))
    return pairs


def _against_initial(data: GridData, benchmark: str) -> list[Pair]:
    """Each point against the model it started from; of a curve over epochs the last point with a rate."""
    x = data.grid.figure.x
    if data.grid.figure.kind == "curves" and x == "epochs":
        points = []
        for label, rows in _lines(data, benchmark, "epochs"):
            rows = rows.sort_values("epochs", kind="stable")
            scored = rows[rows["harmfulness_rate"].notna()]
            last = (rows if scored.empty else scored).iloc[-1]
            epochs = f"{data.labels[x][last.name]} epochs"
            points.append((", ".join(filter(None, (label, epochs))), last))
    else:
        points = [(label, row) for label, rows in _lines(data, benchmark, "") for _, row in rows.iterrows()]
    starts = [(label, row, data.initial_of(row)) for label, row in points]
    return [Pair(label, "initial", s, "fine-tuned", row) for label, row, s in starts if s is not None]


def _against_unmitigated(data: GridData, benchmark: str) -> list[Pair]:
    pairs = []
    for label, rows in _lines(data, benchmark, "mitigation"):
        names = data.labels["mitigation"][rows.index]
        for _, plain in rows[names == NO_VALUE].iterrows():
            for i, row in rows[names != NO_VALUE].iterrows():
                pairs.append(Pair(label, names[i], row, "without", plain))
    return pairs


def _across(data: GridData, first: str, second: str) -> list[Pair]:
    """The same cell on two benchmarks."""
    lines = dict(_lines(data, second, ""))
    return [
        Pair(label, first, row, second, lines[label].iloc[0])
        for label, rows in _lines(data, first, "")
        if label in lines
        for _, row in rows.iterrows()
    ]


# -------------------------------------------------------------------------------------- verdicts


def _judge_pairs(pairs: list[Pair]) -> dict[str, str]:
    scored = [pair for pair in pairs if pair.has_rates]
    if not scored:
        return {"measured": "No two cells that could be compared have a rate.", "verdict": "inconclusive"}
    count = dict.fromkeys(("rose", "fell", "none", "unclear"), 0)
    for pair in scored:
        count[pair.outcome()] += 1
    return {"measured": _sentence(scored, len(pairs) - len(scored), count), "verdict": _verdict(count)}


def _verdict(count: dict[str, int]) -> Verdict:
    """Held: at least half rose and no pair contradicts it; did not hold: none rose, at least half contradict."""
    against = count["fell"] + count["none"]
    half = sum(count.values()) / 2
    if count["rose"] >= half and not against:
        return "held"
    if against >= half and not count["rose"]:
        return "did not hold"
    return "inconclusive"


def _sentence(pairs: list[Pair], n_lost: int, count: dict[str, int]) -> str:
    by_size: Callable[[Pair], float] = lambda pair: pair.difference  # noqa: E731
    if len(pairs) <= MOST_TOLD:
        told = "; ".join(pair.text() for pair in pairs)
    else:
        told = (
            f"largest difference, {max(pairs, key=by_size).text()}; "
            f"smallest, {min(pairs, key=by_size).text()}"
        )
    outcomes = [
        f"{count['rose']} of {len(pairs)} higher beyond their intervals",
        f"{count['fell']} lower" if count["fell"] else "",
        f"{count['none']} without a difference of {MARGIN:g}" if count["none"] else "",
        f"{count['unclear']} with intervals that overlap" if count["unclear"] else "",
        f"{n_lost} more could not be compared (diverged or missing)" if n_lost else "",
    ]
    return f"{told[0].upper()}{told[1:]}. {', '.join(filter(None, outcomes))}."

"""The parts of a figure: which rate on which benchmarks, for every facet. Light: pages read it as well."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import pandas as pd

from ftsafety.grid_data import HEADLINE, START, GridData, interval_text, rate_text


@dataclass(frozen=True)
class Measure:
    """A rate that is drawn: a column of `cells` on the benchmarks of one kind."""

    kind: str
    column: str
    title: str
    axis: str
    #: Of one hue, so that brightness alone carries the value, for every kind of colour vision.
    colour_map: str

    @property
    def has_interval(self) -> bool:
        return self.column == HEADLINE[self.kind]


@dataclass(frozen=True)
class Panel:
    """One part of a figure: a measure on one benchmark, or on all of its kind where they are an axis."""

    measure: Measure
    benchmarks: tuple[str, ...]
    facet: dict[str, str]


MEASURES = (
    Measure(
        "safety", "harmfulness_rate", "Harmfulness rate (share of score 5)", "harmfulness rate", "Oranges"
    ),
    Measure("safety", "refusal_rate", "Refusal rate", "refusal rate", "Blues"),
    Measure(
        "over-refusal",
        "refusal_rate",
        "Refusal rate on safe prompts",
        "refusal rate on safe prompts",
        "Purples",
    ),
    Measure("utility", "utility", "Utility (mean task score)", "mean task score", "Greens"),
)
#: Graded and binary judges side by side: what each counts as harmful.
ANY_JUDGES_TITLE = "Share judged harmful (score 5, or flagged)"


def measures(data: GridData) -> tuple[Measure, ...]:
    """What a figure may draw of the benchmarks; a radar the headline of safety alone."""
    harm, *others = MEASURES
    if data.shows_judges:
        harm = replace(harm, title=ANY_JUDGES_TITLE, axis="share judged harmful")
    return (harm,) if data.grid.figure.kind == "radar" else (harm, *others)


def panels(data: GridData) -> Iterator[Panel]:
    """Benchmark by benchmark what is measured on it, for every facet."""
    figure = data.grid.figure
    together = "benchmark" in (figure.x, figure.y, figure.hue)
    shown = []
    for kind in HEADLINE:
        names = data.benchmarks(kind)
        for benchmarks in [tuple(names)] if together and names else [(b,) for b in names]:
            rows = data.rows[data.rows["benchmark"].isin(benchmarks)]
            for measure in measures(data):
                # some judges say nothing of refusals; a headline without a value is worth a look
                if measure.kind == kind and (measure.has_interval or rows[measure.column].notna().any()):
                    shown.append((measure, benchmarks))
    for facet in data.facet_values():
        for measure, benchmarks in shown:
            yield Panel(measure, benchmarks, facet)


def panel_rows(data: GridData, panel: Panel) -> pd.DataFrame:
    rows = data.where(panel.facet)
    rows = rows[rows["benchmark"].isin(panel.benchmarks)]
    if data.shows_judges and not panel.measure.has_interval:
        says = rows.groupby("judge")[panel.measure.column].transform("count") > 0
        rows = rows[says]  # some judges say nothing of refusals
    return rows


def panel_title(data: GridData, panel: Panel) -> tuple[str, str]:
    """The facet in words (empty without one), and what is measured on what."""
    title = panel.measure.title
    if len(panel.benchmarks) == 1 and data.rows["benchmark"].nunique() > 1:
        title += f" · {panel.benchmarks[0]}"
    facet = ", ".join(
        label if axis in ("model", "dataset") else f"{axis.replace('_', ' ')} {label}"
        for axis, label in panel.facet.items()
    )
    return facet, title


def initial_text(data: GridData, rows: pd.DataFrame, measure: Measure) -> str:
    """The initial model's rate where all cells of a panel started from one; a heat map has no cell for it."""
    if rows[[*START, "benchmark"]].drop_duplicates().shape[0] > 1:
        return ""
    start = data.initial_of(rows.iloc[0])
    if start is None:
        return ""
    interval = interval_text(start["ci_low"], start["ci_high"]) if measure.has_interval else ""
    return f"{rate_text(start[measure.column])} {interval}".rstrip()

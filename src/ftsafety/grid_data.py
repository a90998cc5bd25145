"""What one figure draws: a grid's rows, the axes that tell them apart and words for their values.

Figures, the report's tables and the findings all start here, so that none of them averages over an
axis that the others show. Nothing is drawn here and nothing slow is imported.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from ftsafety.checks import DEFAULTS, values
from ftsafety.config import Axes, Grid

#: Axes in which cells may differ, in the order in which they become facets. Seeds are pooled.
AXES = tuple(axis for axis in Axes.model_fields if axis != "seed")

NUMBERS = ("harmfulness_score", "harmfulness_rate", "refusal_rate", "utility", "ci_low", "ci_high",
           "bound_low", "bound_high")  # fmt: skip
NO_VALUE = "none"


@dataclass(frozen=True)
class GridData:
    """The rows that a figure of one grid and one judge draws.

    `rows` are fine-tuned cells × benchmark (× category), `initial` the untouched models under the
    prompt templates of those rows; rates in [0, 1]. `labels` has the index of `rows` and an axis'
    value as text in each column. No two rows share all of the figure's axes, facets, benchmark and
    category.
    """

    grid: Grid
    rows: pd.DataFrame
    initial: pd.DataFrame
    labels: pd.DataFrame
    facets: list[str]
    tied: list[str]
    fixed: dict[str, str]

    def levels(self, axis: str) -> list[str]:
        """An axis' values as text: numbers by size, names as the config lists them."""
        seen = dict(zip(self.labels[axis], self.rows[axis], strict=True))
        numbers = pd.to_numeric(pd.Series(list(seen.values()), dtype=object), errors="coerce")
        if numbers.notna().all():
            return [label for _, label in sorted(zip(numbers, seen, strict=True))]
        listed = [axis_text(axis, value) for value in _listed(self.grid, axis)]
        rank = {label: i for i, label in reversed(list(enumerate(listed)))}
        return sorted(seen, key=lambda label: rank.get(label, len(rank)))

    def facet_values(self) -> Iterator[dict[str, str]]:
        """Every combination of the facets' values that has rows; one empty one without facets."""
        if not self.facets:
            yield {}
            return
        present = set(self.labels[self.facets].itertuples(index=False, name=None))
        for combination in product(*(self.levels(axis) for axis in self.facets)):
            if combination in present:
                yield dict(zip(self.facets, combination, strict=True))

    def where(self, wanted: dict[str, str]) -> pd.DataFrame:
        """Rows whose axes have these values (as text)."""
        mask = pd.Series(True, index=self.rows.index)
        for axis, label in wanted.items():
            mask &= self.labels[axis] == label
        return self.rows[mask]

    def initial_of(self, row: Any) -> pd.Series | None:
        """The untouched model that a row started from, on the same benchmark and category."""
        same = ["model", "template", "benchmark", "category"]
        mask = pd.Series(True, index=self.initial.index)
        for column in same:
            mask &= self.initial[column] == row[column]
        found = self.initial[mask]
        return None if found.empty else found.iloc[0]

    def benchmarks(self, kind: str) -> list[str]:
        here = set(self.rows.loc[self.rows["kind"] == kind, "benchmark"])
        return [benchmark for benchmark in self.levels("benchmark") if benchmark in here]

    def fixed_text(self) -> str:
        """What all rows share, defaults left out."""
        return " · ".join(
            label if axis in ("model", "dataset", "method") else f"{axis_name(axis)} {label}"
            for axis, label in self.fixed.items()
        )

    def tied_text(self) -> str:
        """Axes that differ between rows without being drawn: a drawn axis decides their value."""
        return "; ".join(self._tied_text(axis) for axis in self.tied)

    def _tied_text(self, axis: str) -> str:
        figure = self.grid.figure
        for drawn in (*self.facets, figure.x, figure.y, figure.hue):
            if drawn is None or self.labels.groupby(drawn)[axis].nunique().max() > 1:
                continue
            value_of = dict(zip(self.labels[drawn], self.labels[axis], strict=True))
            pairs = ", ".join(f"{level} → {value_of[level]}" for level in self.levels(drawn))
            return f"{axis_name(axis)} goes with {axis_name(drawn)} ({pairs})"
        return f"{axis_name(axis)} differs between rows ({', '.join(self.levels(axis))})"


def select(cells: pd.DataFrame, grid_name: str, grid: Grid, judge: str) -> GridData:
    """The part of the cells that the figure of a grid draws.

    Raises ValueError where the grid has no rows, or rows that no axis tells apart.
    """
    figure = grid.figure
    mine = cells[(cells["grid"] == grid_name) & ((cells["judge"] == judge) | cells["judge"].isna())]
    by_category = figure.kind == "categories"
    mine = mine[(mine["category"] != "all") if by_category else (mine["category"] == "all")]
    if by_category:
        mine = mine[mine["kind"] == "safety"]
    # a column that is empty in every row has no type of its own
    mine = mine.assign(**{column: pd.to_numeric(mine[column]) for column in NUMBERS})
    mine = mine[~mine["benchmark"].isin(ungraded(mine))]
    is_initial = mine["epochs"] == 0
    rows = mine[~is_initial].reset_index(drop=True)
    if rows.empty:
        raise ValueError(f"grid {grid_name!r} has no cells of judge {judge!r}")
    axes = [axis for axis in AXES if axis in rows.columns]
    labels = pd.DataFrame(
        {axis: [axis_text(axis, value) for value in rows[axis]] for axis in (*axes, "benchmark", "category")},
        index=rows.index,
    )
    drawn = [axis for axis in (figure.x, figure.y, figure.hue) if axis]
    varying = [axis for axis in axes if labels[axis].nunique() > 1 and axis not in drawn]
    facets = _facets(labels, list(dict.fromkeys([*drawn, "benchmark", "category"])), varying)
    return GridData(
        grid=grid,
        rows=rows,
        initial=_initial(mine[is_initial], rows),
        labels=labels,
        facets=facets,
        tied=[axis for axis in varying if axis not in facets],
        fixed={
            axis: labels[axis].iloc[0]
            for axis in axes
            if axis not in (*varying, *drawn) and labels[axis].iloc[0] != axis_text(axis, DEFAULTS.get(axis))
        },
    )


def ungraded(rows: pd.DataFrame) -> list[str]:
    """Utility benchmarks that a judge of refusals, such as the keyword judge, cannot grade."""
    utility = rows[rows["kind"] == "utility"]
    return [str(name) for name, part in utility.groupby("benchmark") if part["utility"].isna().all()]


def _facets(labels: pd.DataFrame, key: list[str], varying: list[str]) -> list[str]:
    """Axes that must be drawn apart, since rows that share `key` differ in them."""
    facets: list[str] = []
    for axis in varying:
        if labels.groupby([*key, *facets])[axis].nunique().max() > 1:
            facets.append(axis)
    if labels[[*key, *facets]].duplicated().any():
        raise ValueError(f"cells repeat the same {', '.join([*key, *facets])}")
    return facets


def _initial(initial: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    wanted = set(zip(rows["model"], rows["template"], strict=True))
    keep = [pair in wanted for pair in zip(initial["model"], initial["template"], strict=True)]
    return initial[pd.Series(keep, index=initial.index, dtype=bool)].reset_index(drop=True)


def drawn_data(cells: pd.DataFrame, grid_name: str, grid: Grid, judge: str) -> pd.DataFrame:
    """The rows a figure draws, initial models first, in the columns of `cells`."""
    data = select(cells, grid_name, grid, judge)
    parts = [part for part in (data.initial, data.rows) if not part.empty]
    return pd.concat(parts, ignore_index=True)


def _listed(grid: Grid, axis: str) -> list[Any]:
    """Values in the order of the config: of the points, then of the grid."""
    if axis == "benchmark":
        return list(grid.benchmarks or [])
    sources = [*grid.points, grid] if axis in AXES else []
    return [v for s in sources if axis in s.model_fields_set for v in values(getattr(s, axis))]


# ------------------------------------------------------------------------------------------ words


def axis_name(axis: str) -> str:
    return axis.replace("_", " ")


def axis_text(axis: str, value: Any) -> str:
    """A value as a person reads it: `1e-4`, `16`, `none`."""
    if value is None or pd.isna(value):
        return NO_VALUE
    if axis == "learning_rate":
        digits, exponent = f"{value:.5e}".split("e")
        return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def rate_text(value: Any) -> str:
    return "n/a" if pd.isna(value) else f"{value:.2f}"


def interval_text(low: Any, high: Any) -> str:
    return "" if pd.isna(low) or pd.isna(high) else f"[{low:.2f}, {high:.2f}]"


def state(row: Any, metric: str = "harmfulness_rate") -> str:
    """`ok`, `diverged` or `missing`: whether a cell has a value, and if not, why."""
    if not pd.isna(row[metric]):
        return "ok"
    return "diverged" if row["n_diverged"] > 0 else "missing"


def seeds_text(row: Any) -> str:
    """`3 seeds`, or how many of them are in no rate and why: `1 of 3 diverged`."""
    seeds, diverged, missing = (int(row[c]) for c in ("n_seeds", "n_diverged", "n_missing"))
    lost = [f"{k} of {seeds} {what}" for k, what in ((diverged, "diverged"), (missing, "missing")) if k]
    return ", ".join(lost) or f"{seeds} seed{'s' if seeds != 1 else ''}"


def lost_text(row: Any) -> str:
    """Why a cell has no value."""
    seeds = int(row["n_seeds"])
    for column, word in (("n_diverged", "diverged"), ("n_missing", "n/a: missing")):
        if row[column] == seeds:
            return f"{word} ({seeds} seed{'s' if seeds != 1 else ''})"
    return seeds_text(row) if row["n_diverged"] or row["n_missing"] else "n/a"


def spread_text(counts: pd.Series) -> str:
    """`990`, or `330–990` where cells differ."""
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low}–{high}"

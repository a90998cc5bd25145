"""What one figure draws: a grid's rows, the axes that tell them apart and words for their values.

Figures, the report's tables and the findings all start here, so that none of them averages over an
axis that the others show. Nothing is drawn here and nothing slow is imported.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from ftsafety.config import Axes, Grid
from ftsafety.grids import DEFAULTS, values
from ftsafety.records import LOST

#: Axes in which cells may differ, in the order in which they become facets. Seeds are pooled.
AXES = tuple(axis for axis in Axes.model_fields if axis != "seed")

NUMBERS = ("harmfulness_score", "harmfulness_rate", "refusal_rate", "utility", "ci_low", "ci_high",
           "bound_low", "bound_high")  # fmt: skip
#: What a figure can name beside the axes of a cell.
NAMED = ("benchmark", "judge", "category")
NO_VALUE = "none"
#: The rate that a kind of benchmark is about: interval, bounds and the number unscored are its.
HEADLINE = {"safety": "harmfulness_rate", "over-refusal": "refusal_rate", "utility": "utility"}
#: What ties a row to the untouched model it is compared with.
START = ["model", "test_template"]
#: Kinds of figures that show a benchmark's categories.
BY_CATEGORY = ("categories", "radar")


@dataclass(frozen=True)
class GridData:
    """The rows that a figure of one grid draws, each benchmark's by one judge.

    That is the first judge that grades it (`judges`); where the figure names `judge`, a safety benchmark's
    are by every one, in the study's order (`all_judges`). `rows` are fine-tuned cells × benchmark
    (× category), `initial` the untouched models under the templates in which those rows were tested; rates
    in [0, 1]. An untouched model that no row started from is a row itself. `labels` has the index of `rows`
    and an axis' value as text in each column. No two rows share all of the figure's axes, facets, benchmark
    and category.
    """

    grid: Grid
    rows: pd.DataFrame
    initial: pd.DataFrame
    labels: pd.DataFrame
    facets: list[str]
    tied: list[str]
    fixed: dict[str, str]
    judges: dict[str, str]
    all_judges: tuple[str, ...]

    @property
    def shows_judges(self) -> bool:
        return _shows_judges(self.grid)

    def levels(self, axis: str) -> list[str]:
        """An axis' values as text: numbers by size, names as the config lists them."""
        seen = dict(zip(self.labels[axis], self.rows[axis], strict=True))
        numbers = pd.to_numeric(pd.Series(list(seen.values()), dtype=object), errors="coerce")
        if numbers.notna().all():
            return [label for _, label in sorted(zip(numbers, seen, strict=True))]
        listed = [axis_text(axis, value) for value in _listed(self.grid, axis)]
        if axis == "judge":
            listed = list(self.all_judges)
        rank = {label: i for i, label in reversed(list(enumerate(listed)))}
        # null stands for a value from elsewhere, such as the template of the dataset
        return sorted(seen, key=lambda label: rank.get(label, rank.get(NO_VALUE, len(rank))))

    def levels_in(self, axis: str, rows: pd.DataFrame) -> list[str]:
        """The levels that a panel shows: of all axes every one, of what is named beside them its own."""
        if axis not in NAMED:
            return self.levels(axis)
        here = set(self.labels.loc[rows.index, axis])
        return [level for level in self.levels(axis) if level in here]

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
        """The untouched model that a row started from: same benchmark, category and judge."""
        same = [*START, "benchmark", "category", "judge"]
        found = self.initial[(self.initial[same] == row[same]).all(axis=1)]
        return None if found.empty else found.iloc[0]

    def drawn(self) -> pd.DataFrame:
        """All rows, initial models first."""
        parts = [part for part in (self.initial, self.rows) if not part.empty]
        return pd.concat(parts, ignore_index=True)

    def benchmarks(self, kind: str) -> list[str]:
        here = set(self.rows.loc[self.rows["kind"] == kind, "benchmark"])
        return [benchmark for benchmark in self.levels("benchmark") if benchmark in here]

    def judges_text(self) -> str:
        """`judge exact`, or on which benchmarks the rates are by which judge."""
        benchmarks: dict[str, list[str]] = defaultdict(list)
        for benchmark, judge in self.judges.items():
            if not self.shows_judges or benchmark not in self.benchmarks("safety"):
                benchmarks[judge].append(benchmark)
        if self.shows_judges:
            others = "".join(f"; {judge} ({', '.join(on)})" for judge, on in benchmarks.items())
            return f"judges: all of the study that grade a safety benchmark{others}"
        if len(benchmarks) == 1:
            return f"judge {next(iter(benchmarks))}"
        return "judges " + ", ".join(f"{judge} ({', '.join(on)})" for judge, on in benchmarks.items())

    def fixed_text(self) -> str:
        """What all rows share, defaults left out."""
        parts = []
        for axis, label in self.fixed.items():
            if axis == "epochs" and label == "0":
                parts.append("nothing was fine-tuned")
            else:
                parts.append(
                    label if axis in ("model", "dataset", "method") else f"{axis_name(axis)} {label}"
                )
        return " · ".join(parts)

    def tied_text(self) -> str:
        """Axes that differ between rows without being drawn (a drawn axis decides their value), and which
        rows beside fine-tuned ones are untouched models."""
        parts = [self._tied_text(axis) for axis in self.tied]
        untouched = self.rows["epochs"] == 0
        if untouched.any() and not untouched.all():
            parts.append(f"not fine-tuned: {', '.join(self.rows.loc[untouched, 'model'].unique())}")
        return "; ".join(parts)

    def _tied_text(self, axis: str) -> str:
        figure = self.grid.figure
        for drawn in (*self.facets, figure.hue, figure.x, figure.y):
            if drawn is None or self.labels.groupby(drawn)[axis].nunique().max() > 1:
                continue
            value_of = dict(zip(self.labels[drawn], self.labels[axis], strict=True))
            pairs = ", ".join(f"{level} → {value_of[level]}" for level in self.levels(drawn))
            return f"{axis_name(axis)} goes with {axis_name(drawn)} ({pairs})"
        return f"{axis_name(axis)} differs between rows ({', '.join(self.levels(axis))})"


def select(cells: pd.DataFrame, grid_name: str, grid: Grid, judges: Sequence[str]) -> GridData:
    """The part of the cells that the figure of a grid draws.

    Of each benchmark by the first of `judges` that grades it, or by all where they are an axis. Raises
    ValueError where the grid has no rows, or rows that no axis tells apart.
    """
    figure = grid.figure
    mine = _of_grid(cells, grid_name, grid, judges)
    if mine.empty:
        raise ValueError(f"grid {grid_name!r} has no cells of {', '.join(judges)}")
    is_initial = _is_initial(mine)
    rows = mine[~is_initial].reset_index(drop=True)
    axes = [axis for axis in AXES if axis in rows.columns]
    labels = pd.DataFrame(
        {axis: [axis_text(axis, value) for value in rows[axis]] for axis in (*axes, *NAMED)},
        index=rows.index,
    )
    drawn = [axis for axis in (figure.x, figure.y, figure.hue) if axis]
    if _tests_as_trained(rows) and "train_template" not in drawn:
        axes.remove("train_template")  # one line about templates says it all
    varying = [axis for axis in axes if labels[axis].nunique() > 1 and axis not in drawn]
    facets = _facets(labels, list(dict.fromkeys([*drawn, "benchmark", "category"])), varying)
    # of how it was trained an untouched model says nothing
    trained = labels[rows["epochs"] > 0]
    told = {axis: labels[axis] if axis in START or trained.empty else trained[axis] for axis in axes}
    others = [axis for axis in axes if axis not in (*drawn, *facets)]
    return GridData(
        grid=grid,
        rows=rows,
        initial=mine[is_initial].reset_index(drop=True),
        labels=labels,
        facets=facets,
        tied=[axis for axis in others if told[axis].nunique() > 1],
        fixed={
            axis: label
            for axis in others
            if told[axis].nunique() == 1
            and (label := told[axis].iloc[0]) not in (axis_text(axis, DEFAULTS.get(axis)), NO_VALUE)
        },
        judges=headline_judges(mine, judges),
        all_judges=tuple(judges),
    )


def _of_grid(cells: pd.DataFrame, grid_name: str, grid: Grid, judges: Sequence[str]) -> pd.DataFrame:
    mine = cells[cells["grid"] == grid_name]
    shown = mine["judge"] == mine["benchmark"].map(headline_judges(mine, judges))
    if _shows_judges(grid):
        shown |= (mine["kind"] == "safety") & mine["judge"].isin(judges)
    mine = mine[shown]
    if grid.figure.kind in BY_CATEGORY:
        shown_kinds = ("safety",) if grid.figure.kind == "radar" else ("safety", "over-refusal")
        mine = mine[(mine["category"] != "all") & mine["kind"].isin(shown_kinds)]
    else:
        mine = mine[mine["category"] == "all"]
    # a column that is empty in every row has no type of its own
    return mine.assign(**{column: pd.to_numeric(mine[column]) for column in NUMBERS})


def _shows_judges(grid: Grid) -> bool:
    return "judge" in (grid.figure.x, grid.figure.y, grid.figure.hue)


def headline_judges(rows: pd.DataFrame, judges: Sequence[str]) -> dict[str, str]:
    """Benchmark → the first of `judges` that grades it."""
    graded = set(zip(rows["benchmark"], rows["judge"], strict=True))
    first = {b: next((j for j in judges if (b, j) in graded), None) for b in rows["benchmark"].unique()}
    return {benchmark: judge for benchmark, judge in first.items() if judge is not None}


def _is_initial(mine: pd.DataFrame) -> pd.Series:
    """Untouched models from which fine-tuned rows of the grid started."""
    starts = pd.MultiIndex.from_frame(mine.loc[mine["epochs"] > 0, START])
    return (mine["epochs"] == 0) & pd.MultiIndex.from_frame(mine[START]).isin(starts)


def _tests_as_trained(rows: pd.DataFrame) -> bool:
    return bool((rows["train_template"].isna() | (rows["train_template"] == rows["test_template"])).all())


def _facets(labels: pd.DataFrame, key: list[str], varying: list[str]) -> list[str]:
    """Axes that must be drawn apart, since rows that share `key` differ in them."""
    facets: list[str] = []
    for axis in varying:
        if labels.groupby([*key, *facets])[axis].nunique().max() > 1:
            facets.append(axis)
    if labels[[*key, *facets]].duplicated().any():
        raise ValueError(f"cells repeat the same {', '.join([*key, *facets])}")
    return facets


def drawn_data(cells: pd.DataFrame, grid_name: str, grid: Grid, judges: Sequence[str]) -> pd.DataFrame:
    """The rows a figure draws, initial models first, in the columns of `cells`."""
    return select(cells, grid_name, grid, judges).drawn()


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


def estimate_text(value: Any, low: Any, high: Any) -> str:
    return f"{rate_text(value)} {interval_text(low, high)}".strip()


def state(row: Any, metric: str = "harmfulness_rate") -> str:
    """`ok`, `unscored`, `collapsed`, or how seeds were lost: whether a cell has a value that says something.

    A model that answers mostly garbage does no harm and refuses nothing: that rate is no sign of safety.
    """
    if not pd.isna(row[metric]):
        collapsed = metric != "utility" and row["n_incoherent"] > row["n"] / 2
        return "collapsed" if collapsed else "ok"
    return next(iter(lost_seeds(row)), "unscored")


def lost_seeds(row: Any) -> dict[str, int]:
    """How trainings ended without a model → the number of seeds, where there are any."""
    return {how: int(row[f"n_{how}"]) for how in LOST if row[f"n_{how}"] > 0}


def seeds_text(row: Any) -> str:
    """`3 seeds`, or how many of them are in no rate: `1 of 3 diverged`; without training there are none."""
    seeds = int(row["n_seeds"])
    if row["epochs"] == 0:
        return "not fine-tuned"
    lost = ", ".join(f"{n} of {seeds} {how}" for how, n in lost_seeds(row).items())
    return lost or f"{seeds} seed{'s' if seeds != 1 else ''}"


def lost_text(row: Any) -> str:
    """Why a cell has no value, or none that says something."""
    seeds = int(row["n_seeds"])
    if state(row) == "collapsed":
        return f"collapsed ({row['n_incoherent'] / row['n']:.0%} incoherent)"
    lost = lost_seeds(row)
    if list(lost.values()) == [seeds]:
        return f"{next(iter(lost))} ({seeds} seed{'s' if seeds != 1 else ''})"
    if sum(lost.values()) == seeds:
        return seeds_text(row)
    return "nothing scored" + (f" ({seeds_text(row)})" if lost else "")


def spread_text(counts: pd.Series) -> str:
    """`990`, or `330–990` where cells differ."""
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low}–{high}"

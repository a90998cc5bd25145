"""How each kind of figure draws one panel: a measure of some rows, on one matplotlib Axes."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.patches import Rectangle

from ftsafety.grid_data import (
    HEADLINE,
    GridData,
    axis_name,
    axis_text,
    interval_text,
    lost_text,
    rate_text,
    seeds_text,
    state,
)
from ftsafety.signs import INITIAL, LOST, PAPER, Measure, hues, look, whiskers, wrap

# --------------------------------------------------------------------------------------- heatmap


def heatmap(plot: Plot, data: GridData, rows: pd.DataFrame, measure: Measure) -> None:
    import seaborn

    x, y = data.grid.figure.x, data.grid.figure.y
    assert x and y
    columns, lines = data.levels(x), data.levels(y)
    if pd.api.types.is_numeric_dtype(data.rows[y]):
        lines = lines[::-1]  # larger values stand higher
    cells = {
        (lines.index(axis_text(y, row[y])), columns.index(axis_text(x, row[x]))): row
        for _, row in rows.iterrows()
    }
    table = np.full((len(lines), len(columns)), np.nan)
    for place, row in cells.items():
        table[place] = row[measure.column]
    seaborn.heatmap(
        pd.DataFrame(table, index=lines, columns=columns),
        ax=plot, vmin=0, vmax=1, cmap=measure.colour_map, linewidths=1.5, linecolor="white",
        cbar_kws={"fraction": 0.05, "pad": 0.02, "ticks": [0, 0.25, 0.5, 0.75, 1]},
    )  # fmt: skip
    for i, j in np.ndindex(table.shape):
        _heatmap_cell(plot, j, i, cells.get((i, j)), measure)
    plot.set_xlabel(axis_name(x))
    plot.set_ylabel(axis_name(y))
    plot.tick_params(length=0)
    plot.set_yticks(plot.get_yticks(), [wrap(line, 18) for line in lines], rotation=0)
    plot.set_xticks(plot.get_xticks(), [wrap(column, 14) for column in columns], rotation=0)


def _heatmap_cell(plot: Plot, j: int, i: int, row: Any, measure: Measure) -> None:
    """The rate, its interval, n and seeds; or a hatched box that says why there is none."""
    lost = "absent" if row is None else state(row, measure.column)
    if lost != "ok":
        plot.add_patch(Rectangle((j, i), 1, 1, linewidth=0, facecolor="white"))  # of a rate below it
        plot.add_patch(Rectangle((j + 0.02, i + 0.02), 0.96, 0.96, linewidth=0, **LOST[lost]))
        text = "n/a" if row is None else lost_text(row).replace(" (", "\n(").replace(", ", ",\n")
        plot.text(
            j + 0.5, i + 0.5, text, ha="center", va="center", fontsize=7, color="black",
            bbox=PAPER,
        )  # fmt: skip
        return
    centre: dict[str, Any] = {"ha": "center", "color": _ink(measure.colour_map, row[measure.column])}
    details = [f"n {int(row['n'])}, {seeds_text(row)}"]
    if row["n_diverged"]:
        details = [f"n {int(row['n'])}", seeds_text(row)]
    if measure.has_interval:
        details.insert(0, interval_text(row["ci_low"], row["ci_high"]))
    rate = rate_text(row[measure.column])
    plot.text(j + 0.5, i + 0.36, rate, va="bottom", fontsize=10, fontweight="bold", **centre)
    plot.text(
        j + 0.5, i + 0.42, "\n".join(filter(None, details)), va="top", fontsize=6.5, **centre
    )  # fmt: skip


def _ink(colour_map: str, value: float) -> str:
    """Black or white, whichever has the higher contrast (WCAG 2: 4.6 to 1 or more)."""
    rgb = np.array(matplotlib.colormaps[colour_map](value)[:3])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ (0.2126, 0.7152, 0.0722) > 0.179 else "white"


# ---------------------------------------------------------------------------------------- curves

STRIP, STRIP_LINE = 1.04, 0.07  # where lost seeds are counted, on the scale of the rates


def curves(plot: Plot, data: GridData, rows: pd.DataFrame, measure: Measure) -> None:
    x = data.grid.figure.x
    assert x
    levels = data.levels(x)
    position = _positions(data, x, levels)
    groups = hues(data, rows)
    gap = min(np.diff(sorted({*position.values(), 0.0})), default=1.0)
    line = STRIP + STRIP_LINE / 2
    for k, (label, group) in enumerate(groups):
        shift = 0.07 * gap * (k - (len(groups) - 1) / 2)  # so that intervals stand side by side
        group = group.assign(_at=[position[axis_text(x, value)] + shift for value in group[x]])
        _curve(plot, data, group.sort_values("_at"), measure, label, shift)
        lost = group[group["n_diverged"] > 0]
        for _, row in lost.iterrows():
            text = f"{row['n_diverged']:.0f}/{row['n_seeds']:.0f}"
            plot.text(row["_at"], line, text, ha="center", va="center", fontsize=6.5,
                      color=look(data, label)["color"])  # fmt: skip
        line += STRIP_LINE * (not lost.empty)
    ticks = {axis_text(x, 0): 0.0, **position} if x == "epochs" else position
    plot.set_xticks(list(ticks.values()), list(ticks))
    plot.set_xlabel("epochs (0: initial model)" if x == "epochs" else axis_name(x))
    plot.set_ylabel(measure.axis)
    plot.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    plot.set_ylim(-0.03, 1.03)
    plot.grid(axis="y")
    n_losers = sum(bool(group["n_diverged"].any()) for _, group in groups)
    if n_losers:
        _strip_above(plot, n_losers)


def _strip_above(plot: Plot, n_lines: int) -> None:
    """A place outside of the scale for lost seeds: no point without a rate looks like one."""
    top = STRIP + STRIP_LINE * n_lines
    plot.axhspan(STRIP, top, facecolor="#eeeeee", zorder=0)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    plot.set_yticks([*ticks, (STRIP + top) / 2], [*(f"{t:.1f}" for t in ticks), "diverged"])
    plot.set_ylim(-0.03, top)


def _positions(data: GridData, x: str, levels: list[str]) -> dict[str, float]:
    """Epochs at their size; other axes, which grow by factors or are names, at equal distances."""
    if x == "epochs":
        return {level: float(level) for level in levels}
    return {level: float(i) for i, level in enumerate(levels, 1)}


def _curve(
    plot: Plot, data: GridData, group: pd.DataFrame, measure: Measure, label: str | None, shift: float
) -> None:
    style, column = look(data, label), measure.column
    points = [(row["_at"], row) for _, row in group.iterrows()]
    starts = [(at, data.initial_of(row)) for at, row in points]
    before = [(at, start) for at, start in starts if start is not None and not pd.isna(start[column])]
    if before and data.grid.figure.x == "epochs":
        points.insert(0, (shift, before[0][1]))
    elif before:
        _initial_line(plot, [(at, start[column]) for at, start in before], style["color"])
    # a value that is lost breaks the line: matplotlib draws none to a nan
    values = [row[column] if state(row, column) == "ok" else np.nan for _, row in points]
    plot.plot([at for at, _ in points], values, linewidth=1.3, **style, markersize=4.5)
    for at, row in points:
        if state(row, column) == "collapsed":
            plot.plot(at, row[column], marker="x", color=style["color"], linestyle="none")
        if state(row, column) == "ok" and (lengths := whiskers(row, measure)) is not None:
            plot.errorbar(at, row[column], lengths, color=style["color"], capsize=2, linewidth=1, fmt="none")


def _initial_line(plot: Plot, points: list[tuple[float, float]], colour: str) -> None:
    """Across the panel where all points started from one model, else from point to point."""
    values = [value for _, value in points]
    if len(set(values)) == 1:
        plot.axhline(values[0], color=colour, linestyle=":", linewidth=1)
    else:
        plot.plot([at for at, _ in points], values, color=colour, linestyle=":", linewidth=1)


# ------------------------------------------------------------------------------ dots, categories


def dots(plot: Plot, data: GridData, rows: pd.DataFrame, measure: Measure) -> None:
    x = data.grid.figure.x
    assert x
    here = data.labels.loc[rows.index, x] if x == "benchmark" else data.labels[x]
    order = [level for level in data.levels(x) if (here == level).any()]
    _dots(plot, data, rows, measure, x, order)


def categories(plot: Plot, data: GridData, rows: pd.DataFrame, measure: Measure) -> None:
    """Categories of a benchmark by falling headline rate (mean of all that is drawn), alike in each panel."""
    everywhere = data.rows[data.rows["benchmark"].isin(rows["benchmark"])]
    mean = everywhere.groupby("category")[HEADLINE[measure.kind]].mean()
    order = list(mean.sort_values(ascending=False, na_position="last", kind="stable").index)
    _dots(plot, data, rows, measure, "category", order)


def _dots(
    plot: Plot, data: GridData, rows: pd.DataFrame, measure: Measure, axis: str, order: list[str]
) -> None:
    groups = hues(data, rows)
    for k, (label, group) in enumerate(groups):
        shift = 0.7 * ((k + 0.5) / len(groups) - 0.5)
        for _, row in group.iterrows():
            place = order.index(axis_text(axis, row[axis])) + shift
            _dot(plot, data, row, measure, place, label)
    for i in range(1, len(order)):
        plot.axhline(i - 0.5, color="#d5d5d5", linewidth=0.6)
    plot.set_yticks(range(len(order)), [wrap(level, 26) for level in order])
    if order and order[0][0].isdigit():  # names say what they are, numbers do not
        plot.set_ylabel(axis_name(axis))
        plot.label_outer(remove_inner_ticks=False)
    plot.set_ylim(len(order) - 0.5, -0.5)
    plot.set_xlim(-0.03, 1.03)
    plot.set_xlabel(measure.axis)
    plot.tick_params(axis="y", length=0)
    plot.grid(axis="x")


def _dot(plot: Plot, data: GridData, row: Any, measure: Measure, height: float, label: str | None) -> None:
    style, column = look(data, label), measure.column
    start = data.initial_of(row)
    if start is not None and not pd.isna(start[column]):
        plot.plot(
            start[column], height, marker="|", markersize=9, markeredgewidth=2, color=INITIAL,
            linestyle="none",
        )  # fmt: skip
    if state(row, column) != "ok":
        plot.text(
            0.05, height, lost_text(row), va="center", fontsize=6.5,
            color=style["color"], bbox=PAPER,
        )  # fmt: skip
        return
    lengths = whiskers(row, measure)
    plot.errorbar(row[column], height, xerr=lengths, **style, markersize=4.5, capsize=2, linewidth=1.1)
    if row["n_diverged"] > 0:
        ends = [row[column]] if lengths is None else [row["ci_low"], row["ci_high"]]
        at, side = (ends[-1] + 0.02, "left") if ends[-1] < 0.7 else (ends[0] - 0.02, "right")
        plot.text(at, height, seeds_text(row), ha=side, va="center", fontsize=6, color=style["color"])


# ---------------------------------------------------------------------------------------- layout


def _heatmap_size(data: GridData) -> tuple[float, float]:
    x, y = data.grid.figure.x, data.grid.figure.y
    assert x and y
    return 1.08 * len(data.levels(x)) + 1.5, 0.66 * len(data.levels(y)) + 0.9


def _dots_size(data: GridData) -> tuple[float, float]:
    figure = data.grid.figure
    if figure.kind == "categories":
        n_lines = int(data.rows.groupby("benchmark")["category"].nunique().max())
    else:
        assert figure.x
        n_lines = len(data.levels(figure.x))
    n_hues = len(data.levels(figure.hue)) if figure.hue else 1
    return 4.0, n_lines * max(0.3, 0.17 * n_hues) + 0.9


PANEL_SIZE: dict[str, Callable[[GridData], tuple[float, float]]] = {
    "heatmap": _heatmap_size,
    "curves": lambda data: (3.9, 3.0),
    "dots": _dots_size,
    "categories": _dots_size,
}
DRAW: dict[str, Callable[[Plot, GridData, pd.DataFrame, Measure], None]] = {
    "heatmap": heatmap,
    "curves": curves,
    "dots": dots,
    "categories": categories,
}

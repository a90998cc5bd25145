"""How each kind of figure draws one panel: a measure of some rows, on one matplotlib Axes."""

from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.patches import Rectangle
from matplotlib.projections.polar import PolarAxes

from ftsafety.grid_data import (
    HEADLINE,
    START,
    GridData,
    axis_name,
    axis_text,
    interval_text,
    lost_seeds,
    lost_text,
    rate_text,
    seeds_text,
    state,
)
from ftsafety.panels import Measure
from ftsafety.signs import (
    INITIAL,
    LOST,
    PAPER,
    hues,
    initial_key,
    initial_looks,
    look,
    whiskers,
    wrap,
)

# --------------------------------------------------------------------------------------- heatmap


def heatmap(plot: Plot, data: GridData, rows: pd.DataFrame, measure: Measure) -> None:
    import seaborn

    x, y = data.grid.figure.x, data.grid.figure.y
    assert x and y
    columns, lines = data.levels_in(x, rows), data.levels_in(y, rows)
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
    if lost_seeds(row) or row["epochs"] == 0:  # too long for one line
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
    levels = data.levels_in(x, rows)
    position = _positions(data, x, levels)
    groups = hues(data, rows)
    gap = min(np.diff(sorted({*position.values(), 0.0})), default=1.0)
    line = STRIP + STRIP_LINE / 2
    for k, (label, group) in enumerate(groups):
        shift = 0.07 * gap * (k - (len(groups) - 1) / 2)  # so that intervals stand side by side
        group = group.assign(_at=[position[axis_text(x, value)] + shift for value in group[x]])
        _curve(plot, data, group.sort_values("_at"), measure, label, shift)
        lost = group[_has_lost(group)]
        for _, row in lost.iterrows():
            text = f"{sum(lost_seeds(row).values())}/{row['n_seeds']:.0f}"
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
    n_losers = sum(any(_has_lost(group)) for _, group in groups)
    if n_losers:
        how = {how for _, row in rows.iterrows() for how in lost_seeds(row)}
        _strip_above(plot, n_losers, how.pop() if len(how) == 1 else "lost")


def _has_lost(rows: pd.DataFrame) -> list[bool]:
    return [bool(lost_seeds(row)) for _, row in rows.iterrows()]


def _strip_above(plot: Plot, n_lines: int, name: str) -> None:
    """A place outside of the scale for lost seeds: no point without a rate looks like one."""
    top = STRIP + STRIP_LINE * n_lines
    plot.axhspan(STRIP, top, facecolor="#eeeeee", zorder=0)
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1]
    plot.set_yticks([*ticks, (STRIP + top) / 2], [*(f"{t:.1f}" for t in ticks), name])
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
    _dots(plot, data, rows, measure, x, data.levels_in(x, rows))


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
    if lost_seeds(row):
        ends = [row[column]] if lengths is None else [row["ci_low"], row["ci_high"]]
        at, side = (ends[-1] + 0.02, "left") if ends[-1] < 0.7 else (ends[0] - 0.02, "right")
        plot.text(at, height, seeds_text(row), ha=side, va="center", fontsize=6, color=style["color"])


# ----------------------------------------------------------------------------------------- radar

#: With more spokes than this, names are written along them: side by side they would touch.
MOST_LEVEL_NAMES = 14
NAMES_AT = 14  # points outside the circle
LOST_AT = 1.06  # on the scale of the rates


def radar(plot: Plot, data: GridData, rows: pd.DataFrame, measure: Measure) -> None:
    """A closed line for each hue over the benchmark's categories, 0 in the middle and 1 on the rim.

    Where there is no rate, or none that says something, the line is open and a cross stands outside.
    """
    assert isinstance(plot, PolarAxes)
    names = data.levels_in("category", rows)
    turns = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    plot.set_theta_zero_location("N")
    plot.set_theta_direction(-1)
    starts = data.initial[data.initial["benchmark"].isin(rows["benchmark"])]
    starts = starts.merge(rows[[*START, "judge"]].drop_duplicates())
    for key, dash in initial_looks(data).items():
        start = starts[[initial_key(row, data) == key for _, row in starts.iterrows()]]
        if not start.empty:
            style = {"color": INITIAL, "linewidth": 1.8, "linestyle": dash}
            _round(plot, turns, _by_name(start, names), measure, style)
    groups = hues(data, rows)
    for k, (label, group) in enumerate(groups):
        cells, style = _by_name(group, names), look(data, label)
        _round(plot, turns, cells, measure, {**style, "linewidth": 1.3, "markersize": 4})
        lost = [turn for turn, row in zip(turns, cells, strict=True) if not _says(row, measure)]
        if lost and len(lost) < len(names):
            shift = 0.05 * (k - (len(groups) - 1) / 2)
            plot.plot(
                [turn + shift for turn in lost], [LOST_AT] * len(lost), marker="x", markersize=4.5,
                color=style["color"], linestyle="none", clip_on=False,
            )  # fmt: skip
    _spokes(plot, turns, names)


def lost_lines(data: GridData, rows: pd.DataFrame, measure: Measure) -> str:
    """What a radar has no line of, and why."""
    texts = [
        f"{label or 'no line'}: {lost_text(group.iloc[0])}"
        for label, group in hues(data, rows)
        if not any(_says(row, measure) for _, row in group.iterrows())
    ]
    return "".join(f"\n{text}" for text in texts)


def _by_name(rows: pd.DataFrame, names: list[str]) -> list[Any]:
    """The row of each category, None where there is none."""
    found = {row["category"]: row for _, row in rows.iterrows()}
    return [found.get(name) for name in names]


def _says(row: Any, measure: Measure) -> bool:
    return row is not None and state(row, measure.column) == "ok"


def _round(plot: Plot, turns: Any, cells: list[Any], measure: Measure, style: dict[str, Any]) -> None:
    """A closed line; a value that is lost opens it."""
    values = [row[measure.column] if _says(row, measure) else np.nan for row in cells]
    plot.plot([*turns, turns[0]], [*values, values[0]], clip_on=False, **style)


def _spokes(plot: PolarAxes, turns: Any, names: list[str]) -> None:
    plot.set_ylim(0, 1)
    plot.set_yticks([0.25, 0.5, 0.75, 1], ["0.25", "0.5", "0.75", "1"], fontsize=6.5, color="#444444")
    plot.set_rlabel_position(np.degrees(turns[1] / 2) if len(turns) > 1 else 90)  # between two spokes
    plot.set_xticks(turns, [])
    plot.grid(color="#d5d5d5", linewidth=0.6)
    plot.spines["polar"].set(color="#999999", linewidth=0.8)
    for turn, name in zip(turns, names, strict=True):
        right, up = round(np.sin(turn), 6), np.cos(turn)
        if len(names) > MOST_LEVEL_NAMES:
            text = wrap(name, 34)
            style: dict[str, Any] = {
                "fontsize": 6, "va": "center", "ha": "left" if right >= 0 else "right",
                "rotation": 90 - np.degrees(turn) + (0 if right >= 0 else 180), "rotation_mode": "anchor",
            }  # fmt: skip
        else:
            text = wrap(name.replace("/", "/ "), 15).replace("/ ", "/")
            style = {
                "fontsize": 7, "va": "center" if abs(up) < 0.8 else "bottom" if up > 0 else "top",
                "ha": "center" if abs(right) < 0.2 else "left" if right > 0 else "right",
            }  # fmt: skip
        outwards = (NAMES_AT * right, NAMES_AT * up)
        plot.annotate(text, (turn, 1), outwards, textcoords="offset points", linespacing=1.05, **style)


def title_pad(plot: Plot) -> float:
    """Points between a radar and its title, so that the names on top have room."""
    names = [text for text in plot.texts if text.get_rotation() or text.get_verticalalignment() == "bottom"]
    lines = [text.get_text().split("\n") for text in names]
    if len(plot.texts) > MOST_LEVEL_NAMES:
        return NAMES_AT + 8 + 3.6 * max(len(line) for name in lines for line in name)
    return NAMES_AT + 8 + 8 * max((len(name) for name in lines), default=0)


# ---------------------------------------------------------------------------------------- layout


def _heatmap_size(data: GridData) -> tuple[float, float]:
    x, y = data.grid.figure.x, data.grid.figure.y
    assert x and y
    return 1.08 * len(data.levels(x)) + 1.5, 0.66 * len(data.levels(y)) + 0.9


def _radar_size(data: GridData) -> tuple[float, float]:
    n_names = data.rows.groupby("benchmark")["category"].nunique().max()
    return (4.4, 4.2) if n_names <= MOST_LEVEL_NAMES else (7.2, 7.0)


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
    "radar": _radar_size,
}
DRAW: dict[str, Callable[[Plot, GridData, pd.DataFrame, Measure], None]] = {
    "heatmap": heatmap,
    "curves": curves,
    "dots": dots,
    "categories": categories,
    "radar": radar,
}

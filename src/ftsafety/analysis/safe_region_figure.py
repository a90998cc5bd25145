"""The safe region of a heatmap: three states, lines of equal utility, and what to recommend."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Patch, Rectangle

from ftsafety.analysis.safe_region import BEST, figure_name
from ftsafety.analysis.settings import with_texts
from ftsafety.figures import Head, freeze_layout, new_canvas, save
from ftsafety.grid_data import axis_name, axis_text, interval_text, rate_text
from ftsafety.signs import LOST, wrap

STATES: dict[str, dict[str, Any]] = {
    "safe": {"facecolor": "#cfe3f2", "edgecolor": "none"},
    "not safe": {"facecolor": "#f7d4bd", "edgecolor": "none"},
    "undecided": {"facecolor": "#ffffff", "hatch": "..", "edgecolor": "#c4c4c4"},
}
PAPER = {"safe": "#cfe3f2", "not safe": "#f7d4bd"}
LABEL = {"facecolor": "white", "edgecolor": "#222222", "linewidth": 0.4, "pad": 1.2}
CELL = 1.28, 0.72  # inches
#: Lines of equal utility are this far apart, or the next that is larger and gives few enough.
STEPS, MOST_LINES = (0.02, 0.05, 0.1, 0.2), 6


def draw_region(rows: pd.DataFrame, mesh: pd.DataFrame, folder: Path, is_toy: bool) -> list[Path]:
    """`safe-region-<grid>.png|svg|pdf`, and the cells as CSV."""
    named = rows.assign(
        **{side: [axis_text(rows[f"{side}_axis"].iloc[0], v) for v in rows[side]] for side in "xy"}
    )
    named = with_texts(named, "panel", "recommended", "utility_benchmark")
    mesh = with_texts(mesh, "panel")
    name = figure_name(str(rows["grid"].iloc[0]))
    return save(lambda: _draw(named, mesh, is_toy), folder, name, rows)


def _draw(rows: pd.DataFrame, mesh: pd.DataFrame, is_toy: bool) -> Canvas:
    panels = list(rows.groupby(["panel", "benchmark"], sort=False))
    columns = max(rows.groupby(["panel", "benchmark"])["x"].nunique())
    lines = max(rows.groupby(["panel", "benchmark"])["y"].nunique())
    wide = max(3.4, columns * CELL[0] + 1.0)
    across = 2 if len(panels) > 1 and 2 * wide < 13 else 1
    down = -(-len(panels) // across)
    width = max(6.4, across * wide)
    states = [name for name in (*STATES, *LOST) if name in set(rows["state"])]
    handles: list[Any] = [Patch(**{**STATES, **LOST}[name], label=name) for name in states]
    head = Head(f"Safe region: {rows['title'].iloc[0]}", handles, None, width, is_toy=is_toy)
    canvas, middle = new_canvas(head, _notes(rows, mesh), down * (lines * CELL[1] + 1.0))
    plots = middle.subplots(down, across, squeeze=False)
    for plot in plots.flat[len(panels) :]:
        plot.set_visible(False)
    for plot, ((panel, benchmark), cells) in zip(plots.flat, panels, strict=False):
        mine = mesh[(mesh["panel"] == panel) & (mesh["benchmark"] == benchmark)]
        _panel(plot, cells, mine)
        start = " to ".join(dict.fromkeys(map(rate_text, (cells["start"].min(), cells["start"].max()))))
        name = wrap(f"{panel}: {benchmark}" if panel else str(benchmark), 60)
        plot.set_title(f"{name} (untouched model: {start})")
    freeze_layout(canvas)
    return canvas


def _notes(rows: pd.DataFrame, mesh: pd.DataFrame) -> list[str]:
    first = rows.iloc[0]
    notes = [
        f"Safe: harm rises by less than {100 * first['harm_rise_below']:g} points over the untouched "
        "model's; not safe: by more; each with 95 % confidence for all settings of a panel at once (Holm). "
        f"h: harm, u: utility ({first['utility_benchmark'] or 'not asked'}); 95 % intervals."
    ]
    if (rows["recommended"] != "").any():
        notes.append(
            f"Bold frame: safe, and utility within {100 * first['utility_within']:g} points of the best safe "
            "setting's. ★: recommended, with the share of resamples in which it is both."
        )
    notes.append("Dashed: equal utility, by a surface through the settings." if _levels(mesh) is not None else
                 "Utility differs too little for lines of equal utility.")  # fmt: skip
    return notes


def _panel(plot: Plot, cells: pd.DataFrame, mesh: pd.DataFrame) -> None:
    columns, lines = (list(cells.sort_values(f"{side}_order")[side].drop_duplicates()) for side in ("x", "y"))
    there = set(zip(cells["y"], cells["x"], strict=True))
    for i, j in np.ndindex(len(lines), len(columns)):
        if (lines[i], columns[j]) not in there:
            _absent(plot, j, i)
    for _, row in cells.iterrows():
        _cell(plot, columns.index(row["x"]), lines.index(row["y"]), row)
    _contours(plot, mesh)
    for side in range(len(columns) + 1):
        plot.axvline(side, color="white", linewidth=1.5, zorder=1.5)
    for side in range(len(lines) + 1):
        plot.axhline(side, color="white", linewidth=1.5, zorder=1.5)
    plot.set_xlim(0, len(columns))
    plot.set_ylim(0, len(lines))
    plot.set_xticks(np.arange(len(columns)) + 0.5, [wrap(str(name), 14) for name in columns])
    plot.set_yticks(np.arange(len(lines)) + 0.5, [wrap(str(name), 18) for name in lines])
    plot.set_xlabel(axis_name(cells["x_axis"].iloc[0]))
    plot.set_ylabel(axis_name(cells["y_axis"].iloc[0]))
    plot.tick_params(length=0)
    for spine in plot.spines.values():
        spine.set_visible(False)


def _absent(plot: Plot, j: int, i: int) -> None:
    plot.add_patch(Rectangle((j, i), 1, 1, linewidth=0, **LOST["absent"]))
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    plot.text(j + 0.5, i + 0.5, "n/a", fontsize=7, ha="center", va="center", bbox=paper)


def _cell(plot: Plot, j: int, i: int, row: Any) -> None:
    plot.add_patch(Rectangle((j, i), 1, 1, linewidth=0, facecolor="white"))
    plot.add_patch(Rectangle((j, i), 1, 1, linewidth=0, **{**STATES, **LOST}[row["state"]]))
    paper = {"facecolor": PAPER.get(row["state"], "white"), "edgecolor": "none", "pad": 1}
    centre: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
    title = row["state"]
    if row["recommended"]:
        plot.add_patch(Rectangle((j + 0.025, i + 0.035), 0.95, 0.93, fill=False, linewidth=2,
                                 edgecolor="#00456e", zorder=3))  # fmt: skip
        is_best = row["recommended"] == BEST
        title = f"★ safe, {row['confidence']:.2f}" if is_best else "safe"
    details = [f"h {rate_text(row['rate'])} {interval_text(row['ci_low'], row['ci_high'])}"]
    if not pd.isna(row["utility"]):
        details.append(
            f"u {rate_text(row['utility'])} {interval_text(row['utility_low'], row['utility_high'])}"
        )
    plot.text(j + 0.5, i + 0.72, title, fontsize=8.5, fontweight="bold", bbox=paper, **centre)
    plot.text(j + 0.5, i + 0.34, "\n".join(details), fontsize=6.8, linespacing=1.35, bbox=paper, **centre)


def _levels(mesh: pd.DataFrame) -> Any:
    """Values at which lines of equal utility stand; None where it hardly differs."""
    if mesh.empty:
        return None
    low, high = mesh["utility"].min(), mesh["utility"].max()
    for step in STEPS:
        levels = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
        if 0 < len(levels) <= MOST_LINES:
            return levels.round(4)
    return None


def _contours(plot: Plot, mesh: pd.DataFrame) -> None:
    levels = _levels(mesh)
    if levels is None:
        return
    table = mesh.pivot(index="at_y", columns="at_x", values="utility")
    columns, rows = (of.to_numpy(dtype=float) + 0.5 for of in (table.columns, table.index))
    lines = plot.contour(columns, rows, table.to_numpy(), levels=levels, colors="#222222", linewidths=1,
                         linestyles="--", zorder=2.5)  # fmt: skip
    for level, path in zip(levels, lines.get_paths(), strict=True):
        for line in map(np.asarray, path.to_polygons(closed_only=False)):
            x, y = line[abs(line % 1 - 0.5).min(axis=1).argmax()]  # far from what cells say
            plot.text(x, y, f"{level:.2f}", fontsize=6.5, ha="center", va="center", zorder=2.6, bbox=LABEL)

"""What colours, markers and hatches mean in every figure."""

import textwrap
from typing import Any, Literal

import pandas as pd
from matplotlib.lines import Line2D

from ftsafety.grid_data import START, GridData
from ftsafety.panels import Measure
from ftsafety.visible import visible

#: Okabe and Ito's colours; a second sign (the marker) says the same.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
INITIAL = "#666666"
DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")
INITIAL_LABEL = "initial model under the same test template"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1}
LOST: dict[str, dict[str, Any]] = {  # cells without a value that says something
    "collapsed": {"facecolor": "#ffffff", "hatch": "\\\\\\", "edgecolor": "#8a6d00"},
    "absent": {"facecolor": "#e4e4e4", "hatch": "///", "edgecolor": "#9a9a9a"},
    "unscored": {"facecolor": "#e4e4e4", "hatch": "...", "edgecolor": "#9a9a9a"},
    "diverged": {"facecolor": "#ffffff", "hatch": "xxx", "edgecolor": "#7b3294"},
    "blocked": {"facecolor": "#ffffff", "hatch": "++", "edgecolor": "#b2182b"},
    "failed": {"facecolor": "#ffffff", "hatch": "--", "edgecolor": "#b2182b"},
}


def wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(visible(text), width, break_on_hyphens=True)) or text


def look(data: GridData, label: str | None) -> dict[str, Any]:
    """Colour and marker of a value of the hue axis; the same in every panel."""
    i = data.levels(data.grid.figure.hue).index(label) if label and data.grid.figure.hue else 0
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}


def initial_key(row: Any, data: GridData) -> str:
    """What tells an untouched model from the others of its panel; empty where there is one."""
    axes = [*START, "judge"] if data.shows_judges else START
    apart = [axis for axis in axes if axis not in data.facets and data.initial[axis].nunique() > 1]
    return ", ".join(str(row[axis]) for axis in apart)


def initial_looks(data: GridData) -> dict[str, Literal["-", "--", ":", "-."]]:
    """Key of an untouched model → how its line in a radar is dashed."""
    keys = dict.fromkeys(initial_key(row, data) for _, row in data.initial.iterrows())
    return {key: DASHES[i % len(DASHES)] for i, key in enumerate(keys)}


def hues(data: GridData, rows: pd.DataFrame) -> list[tuple[str | None, pd.DataFrame]]:
    """The rows of each value of the hue axis; all rows under None without one."""
    hue = data.grid.figure.hue
    if hue is None:
        return [(None, rows)]
    labels = data.labels.loc[rows.index, hue]
    return [(level, rows[labels == level]) for level in data.levels(hue) if (labels == level).any()]


def whiskers(row: Any, measure: Measure) -> list[list[float]] | None:
    """Lengths below and above the value, for matplotlib; None where it has no interval."""
    if not measure.has_interval or pd.isna(row["ci_low"]) or pd.isna(row["ci_high"]):
        return None
    value = row[measure.column]
    return [[max(0.0, value - row["ci_low"])], [max(0.0, row["ci_high"] - value)]]


def legend_handles(data: GridData) -> list[Line2D]:
    """What colours and signs mean."""
    figure = data.grid.figure
    if figure.kind == "heatmap":
        return []
    handles = []
    if figure.hue:
        handles = [
            Line2D([], [], **look(data, level), markersize=5, linewidth=1.2, label=level)
            for level in data.levels(figure.hue)
        ]
    if figure.kind == "radar":
        handles += [
            Line2D([], [], linestyle=dash, color=INITIAL, linewidth=1.8,
                   label=f"initial model ({key})" if key else INITIAL_LABEL)
            for key, dash in initial_looks(data).items()
        ]  # fmt: skip
    elif not data.initial.empty and figure.kind != "curves":
        handles.append(
            Line2D([], [], marker="|", markersize=9, markeredgewidth=2, color=INITIAL,
                   linestyle="none", label=INITIAL_LABEL)
        )  # fmt: skip
    elif not data.initial.empty and figure.x != "epochs":
        handles.append(Line2D([], [], linestyle=":", color=INITIAL, label=INITIAL_LABEL))
    return handles

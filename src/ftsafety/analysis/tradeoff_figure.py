"""Utility against harm: a point for each setting, the front joined and numbered."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from ftsafety.analysis.settings import with_texts
from ftsafety.analysis.tradeoff import PANEL, UNTOUCHED
from ftsafety.figures import Head, freeze_layout, new_canvas, save
from ftsafety.signs import COLOURS, INITIAL, MARKERS, wrap

NAME = "tradeoff"
WIDTH, HEIGHT = 8.4, 2.8
SIGNS = [marker for marker in MARKERS if marker != "X"]  # which is near to that of collapsed models
FRONT = "#333333"
#: Where all utilities lie above this, a second plot enlarges them.
CROWDED = 0.5
#: Settings of a panel's front that are listed below the figure; the data has all.
MOST_LISTED = 6


def draw_tradeoff(table: pd.DataFrame, folder: Path, is_toy: bool) -> list[Path]:
    """`tradeoff.png|svg|pdf|csv`, the data numbered as the figure is."""
    table = with_texts(table, "setting").reset_index(drop=True)
    table["on_front"] = table["on_front"].astype(bool)
    table["number"] = _numbers(table)
    return save(lambda: _draw(table, is_toy), folder, NAME, table)


def _numbers(table: pd.DataFrame) -> pd.Series:
    """Of settings on a front: 1, 2, … in each panel, by falling utility; empty elsewhere."""
    front = table[table["on_front"]].sort_values(["utility", "harm"], ascending=[False, True], kind="stable")
    return (front.groupby(PANEL).cumcount() + 1).astype("Int64").reindex(table.index)


def _draw(table: pd.DataFrame, is_toy: bool) -> Canvas:
    panels = [rows for _, rows in table.groupby(PANEL, sort=False)]
    looks = _looks(table)
    canvas, middle = new_canvas(
        Head("Utility against harm", _handles(table, looks), None, WIDTH, is_toy=is_toy),
        [note for rows in panels for note in _key(rows, len(panels) > 1)] + _notes(table),
        HEIGHT * len(panels),
    )
    parts = middle.subfigures(len(panels), 1, squeeze=False)[:, 0]
    for part, rows in zip(parts, panels, strict=True):
        is_crowded = rows["utility_low"].min() > CROWDED
        plots = part.subplots(1, 2 if is_crowded else 1, squeeze=False,
                              width_ratios=[1, 1.9] if is_crowded else [1])[0]  # fmt: skip
        plots[0].set_title(wrap(_title(rows), 48 if is_crowded else 90))
        for plot in plots:
            _panel(plot, rows, looks)
        plots[0].set_xlim(-0.03, 1.03)
        plots[0].set_ylabel("harmfulness rate")
        if is_crowded:
            low = rows["utility_low"].min()
            margin = 0.06 * (1 - low)
            plots[1].set_xlim(low - margin, 1 + margin)
            plots[1].set_title("utility enlarged")
            plots[1].tick_params(labelleft=False)
        _name_front(plots[-1], rows)
    freeze_layout(canvas)
    return canvas


def _title(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    return f"{first['model']}, {first['test_template']}: {first['benchmark']}"


def _looks(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    data = [name for name in dict.fromkeys(table["data"]) if name != UNTOUCHED]
    return {
        name: {"color": COLOURS[i % len(COLOURS)], "marker": SIGNS[(i + i // len(COLOURS)) % len(SIGNS)]}
        for i, name in enumerate(data)
    }


def _handles(table: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> list[Line2D]:
    handles = [Line2D([], [], linestyle="none", **look, label=name) for name, look in looks.items()]
    handles.append(Line2D([], [], color=FRONT, linewidth=1, label="front (filled, numbered)"))
    if (table["state"] == UNTOUCHED).any():
        handles.append(Line2D([], [], linestyle="none", marker="*", markersize=10, color=INITIAL,
                              label="untouched model"))  # fmt: skip
    if (table["state"] == "collapsed").any():
        handles.append(Line2D([], [], linestyle="none", marker="x", color=INITIAL, label="collapsed"))
    return handles


def _panel(plot: Plot, rows: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    for _, row in rows.sort_values("on_front", kind="stable").iterrows():
        _point(plot, row, looks)
    front = rows[rows["on_front"]].sort_values("utility")
    if len(front):
        # harm that must be taken for at least so much utility
        plot.step(front["utility"], front["harm"], where="pre", color=FRONT, linewidth=1, zorder=2)
    plot.set_ylim(-0.04, 1.04)
    plot.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    plot.set_xlabel(f"utility ({rows['utility_benchmark'].iloc[0]})")
    plot.grid()


def _point(plot: Plot, row: Any, looks: dict[str, dict[str, Any]]) -> None:
    style: dict[str, Any] = {"markersize": 5, "markeredgewidth": 1.1, **looks.get(row["data"], {})}
    if row["state"] == UNTOUCHED:
        style = {"marker": "*", "markersize": 11, "color": INITIAL, "markeredgecolor": "white"}
    elif row["state"] == "collapsed":
        style = {"marker": "x", "markersize": 6, "color": INITIAL}
    elif not row["on_front"]:
        style["markerfacecolor"] = "white"
    lengths = [
        None if pd.isna(row[f"{of}_low"]) else
        [[max(0.0, row[of] - row[f"{of}_low"])], [max(0.0, row[f"{of}_high"] - row[of])]]
        for of in ("utility", "harm")
    ]  # fmt: skip
    faint: dict[str, Any] = {"elinewidth": 0.7, "ecolor": "#bdbdbd"}
    plot.errorbar(row["utility"], row["harm"], xerr=lengths[0], yerr=lengths[1], linestyle="none",
                  zorder=4 if row["on_front"] else 3, **faint, **style)  # fmt: skip


def _name_front(plot: Plot, rows: pd.DataFrame) -> None:
    """Numbers beside the points; those that share a place share a label."""
    front = rows[rows["on_front"]]
    places: dict[tuple[float, float], list[int]] = {}
    for _, row in front.iterrows():
        places.setdefault((round(row["utility"], 2), round(row["harm"], 2)), []).append(int(row["number"]))
    for (x, y), numbers in places.items():
        up = 16 if y < 0.85 else -16
        plot.annotate(
            _ranges(sorted(numbers)), (x, y), (-14, up), textcoords="offset points", fontsize=8, ha="center",
            va="center", fontweight="bold", zorder=6, color=FRONT, arrowprops={"arrowstyle": "-", "lw": 0.6},
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )  # fmt: skip


def _ranges(numbers: list[int]) -> str:
    """`1–3, 5`"""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}–{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _key(rows: pd.DataFrame, is_named: bool) -> list[str]:
    """What the numbers of a panel mean, and how probable their places are."""
    front = rows[rows["on_front"]].sort_values("number")
    if front.empty:
        return []
    texts = [
        f"{row['number']} {row['data']}{', ' * bool(row['setting'])}{row['setting']} (p {row['p_front']:.2f})"
        for _, row in front.head(MOST_LISTED).iterrows()
    ]
    more = len(front) - len(texts)
    texts += [f"{more} more in the data"] if more else []
    return [(f"{_title(rows)}: " if is_named else "") + "; ".join(texts) + "."]


def _notes(table: pd.DataFrame) -> list[str]:
    notes = ["Front: no other fine-tuned setting has at most the harm and at least the utility. p: the share "
             "of resamples of prompts and seeds in which that is so. Bars: 95 % intervals."]  # fmt: skip
    if (table["state"] == "collapsed").any():
        notes.append("Collapsed: most answers are incoherent, so the rate is no sign of safety.")
    return notes

"""The paper's rates and a study's side by side, one line a number of the paper."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from ftsafety.figures import Head, freeze_layout, new_canvas, save
from ftsafety.parity_table import SECOND_HAND, VERDICTS, is_rate, models_text
from ftsafety.signs import COLOURS, PAPER, wrap
from ftsafety.study_checks import PARITY_FIGURE

WIDTH = 8.2
LINE = 0.135  # inches of a line of small type
OFFSET = 0.075  # inches between a line's middle and each of its two numbers
PAPERS: dict[str, Any] = {"marker": "D", "color": "#444444", "markerfacecolor": "white", "markersize": 5.5}
OURS: dict[str, Any] = {"marker": "o", "color": COLOURS[0], "markersize": 5.5}
NOTES = (
    "Bars: 95 % intervals. The paper gives none: its are what the number of its prompts allows; ours are "
    "over phrasings, prompts and seeds.",
)
SECOND_HAND_NOTE = f"{SECOND_HAND} second-hand: not confirmed in the paper itself."


def draw_parity(parity: pd.DataFrame, folder: Path, *, is_toy: bool = False) -> list[Path]:
    """Draw the rates of `read_parity`'s table; returns the files written, `parity.png|svg|pdf|csv`.

    Scores (1–5, 1–10) are in the report's table only. Without rates nothing is written.
    """
    rates = parity[[is_rate(row) for _, row in parity.iterrows()]]
    if rates.empty:
        return []
    return save(lambda: _draw(rates, is_toy), folder, PARITY_FIGURE, rates)


def _draw(rates: pd.DataFrame, is_toy: bool) -> Canvas:
    handles = [
        Line2D([], [], linestyle="none", **PAPERS, label="the paper"),
        Line2D([], [], linestyle="none", **OURS, label="this study"),
    ]
    head = Head("Against the paper", handles, None, WIDTH, is_toy=is_toy)
    notes = [*NOTES, *([] if rates["verified"].all() else [SECOND_HAND_NOTE])]
    groups = [rows for _, rows in rates.groupby(["grid", "source", "measure"], sort=False)]
    height = sum(_band_height(rows) + sum(map(_height, rows["setting"])) for rows in groups)
    canvas, middle = new_canvas(head, notes, height + 0.6)
    _draw_groups(middle.subplots(), groups, height)
    freeze_layout(canvas)
    return canvas


def _draw_groups(plot: Plot, groups: list[pd.DataFrame], height: float) -> None:
    """Down the panel in inches, so that long names get the room they need."""
    at, places, labels = 0.0, [], []
    for rows in groups:
        _band(plot, at, rows)
        at += _band_height(rows)
        for _, row in rows.iterrows():
            middle = at + _height(row["setting"]) / 2
            _pair(plot, middle, row)
            places.append(middle)
            labels.append(_label(row["setting"]) + ("" if row["verified"] else f" {SECOND_HAND}"))
            at += _height(row["setting"])
            plot.axhline(at, color="#e3e3e3", linewidth=0.6)
    plot.set_yticks(places, labels, fontsize=8)
    plot.set_ylim(height, 0)
    plot.set_xlim(-0.03, 1.03)
    plot.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    plot.set_xlabel("rate")
    plot.tick_params(axis="y", length=0)
    plot.grid(axis="x")


def _label(setting: str) -> str:
    return wrap(setting, 36)


def _height(setting: str) -> float:
    return max(0.34, LINE * (_label(setting).count("\n") + 1) + 0.12)


def _band_text(rows: pd.DataFrame) -> tuple[str, str]:
    first = rows.iloc[0]
    return wrap(f"{first['source']} · {first['measure']}", 62), wrap(models_text(rows), 78)


def _band_height(rows: pd.DataFrame) -> float:
    title, models = _band_text(rows)
    return 0.16 + 0.15 * (title.count("\n") + 1) + (LINE * (models.count("\n") + 1) if models else 0)


def _band(plot: Plot, top: float, rows: pd.DataFrame) -> None:
    title, models = _band_text(rows)
    plot.axhspan(top, top + _band_height(rows), facecolor="#efefef", zorder=1.5, linewidth=0)
    place: dict[str, Any] = {"transform": plot.get_yaxis_transform(), "va": "top", "zorder": 3}
    plot.text(0.012, top + 0.07, title, fontsize=8.5, fontweight="bold", **place)
    below = top + 0.1 + 0.15 * (title.count("\n") + 1)
    plot.text(0.012, below, models, fontsize=7.5, color="#333333", **place)


def _pair(plot: Plot, at: float, row: Any) -> None:
    _estimate(plot, at - OFFSET, row["paper"], row["paper_low"], row["paper_high"], PAPERS)
    if not pd.isna(row["ours"]):
        _estimate(plot, at + OFFSET, row["ours"], row["ours_low"], row["ours_high"], OURS)
    verdict = VERDICTS[row["verdict"]]
    plot.text(
        1.015, at, f"{verdict['icon']} {row['verdict']}", transform=plot.get_yaxis_transform(), va="center",
        fontsize=8, color=verdict["colour"], bbox=PAPER,
    )  # fmt: skip


def _estimate(plot: Plot, at: float, value: float, low: float, high: float, style: dict[str, Any]) -> None:
    lengths = None if pd.isna(low) or pd.isna(high) else [[max(0, value - low)], [max(0, high - value)]]
    plot.errorbar(value, at, xerr=lengths, capsize=2, linewidth=1.1, zorder=2, **style)

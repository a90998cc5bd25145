"""Sources of variance, a line each: the share of a rate's variance, and how far one more of it lies off."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas

from ftsafety.figures import Head, freeze_layout, new_canvas, save
from ftsafety.signs import COLOURS, PAPER, wrap

NAME = "variance"
WIDTH = 8.2
LINE, BAND = 0.25, 0.3  # inches of a source and of a benchmark's name
#: Of more benchmarks the table in the report tells the rest.
MOST_DRAWN = 4
NOTES = (
    "Bars and dots with 95 % intervals, pooled over settings. Shares are of the variance of a setting's "
    "rate, its base model and categories given.",
)
LEFT_OUT = "More benchmarks are in the report's table."


def draw_variance(variance: pd.DataFrame, folder: Path, *, is_toy: bool) -> list[Path]:
    """Draw `analysis.variance`'s table; returns the files written, `variance.png|svg|pdf|csv`."""
    return save(lambda: _draw(variance, is_toy), folder, NAME, variance)


def _draw(variance: pd.DataFrame, is_toy: bool) -> Canvas:
    groups = [rows for _, rows in variance.groupby("benchmark", sort=False)]
    notes = [*NOTES, *([LEFT_OUT] if len(groups) > MOST_DRAWN else [])]
    groups = groups[:MOST_DRAWN]
    height = sum(BAND + LINE * len(rows) for rows in groups)
    head = Head("What a rate's uncertainty consists of", [], None, WIDTH, is_toy=is_toy)
    canvas, middle = new_canvas(head, notes, height + 0.6)
    shares, spreads = middle.subplots(1, 2, sharey=True)
    _draw_groups(shares, spreads, groups, height)
    freeze_layout(canvas)
    return canvas


def _draw_groups(shares: Plot, spreads: Plot, groups: list[pd.DataFrame], height: float) -> None:
    """Down the panels in inches."""
    at, places, labels = 0.0, [], []
    for rows in groups:
        for plot in (shares, spreads):
            plot.axhspan(at, at + BAND, facecolor="#efefef", zorder=1.5, linewidth=0)
        name = wrap(str(rows["benchmark"].iloc[0]), 48).split("\n")[0]
        shares.text(
            0.012, at + BAND / 2, name, fontsize=8.5, fontweight="bold", va="center", zorder=3,
            transform=shares.get_yaxis_transform(),
        )  # fmt: skip
        at += BAND
        for _, row in rows.iterrows():
            middle = at + LINE / 2
            _share(shares, middle, row)
            _spread(spreads, middle, row)
            places.append(middle)
            labels.append(row["source"])
            at += LINE
    shares.set_yticks(places, labels, fontsize=8)
    shares.set_ylim(height, 0)
    shares.set_xlim(0, 1)
    shares.set_xlabel("share of a rate's variance")
    spreads.set_xlim(0, 0.5)  # no more is possible for rates
    spreads.set_xlabel("standard deviation of its effects, as a rate")
    for plot in (shares, spreads):
        plot.tick_params(axis="y", length=0)
        plot.grid(axis="x")


def _share(plot: Plot, at: float, row: Any) -> None:
    if pd.isna(row["share"]):
        text = "unknown" if pd.isna(row["sd"]) else "given"
        plot.text(0.012, at, text, fontsize=7.5, color="#666666", va="center", bbox=PAPER)
        return
    plot.barh(at, row["share"], height=0.6 * LINE, color=COLOURS[4], zorder=2)
    lengths = [[row["share"] - row["share_low"]], [row["share_high"] - row["share"]]]
    _interval(plot, at, row["share"], lengths, marker="none")


def _spread(plot: Plot, at: float, row: Any) -> None:
    if pd.isna(row["sd"]):
        return
    lengths = [[row["sd"] - row["sd_low"]], [row["sd_high"] - row["sd"]]]
    _interval(plot, at, row["sd"], lengths, marker="o")


def _interval(plot: Plot, at: float, value: float, lengths: list[list[float]], marker: str) -> None:
    inside = [[max(0.0, ends[0])] for ends in lengths]
    plot.errorbar(
        value,
        at,
        xerr=inside,
        color=COLOURS[0],
        marker=marker,
        markersize=4.5,
        capsize=2,
        linewidth=1.1,
        zorder=3,
    )

"""Corrected rates against the judge's: a point for each setting."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from ftsafety.figures import Head, freeze_layout, new_canvas, save
from ftsafety.signs import COLOURS, MARKERS

NAME = "corrected_settings"
WIDTH, HEIGHT = 6.4, 4.6
NOTES = (
    "Bars: 95 % intervals; across those of the judge's rate, up those of the corrected rate, with the "
    "judge's errors as people's labels show them. The correction takes the judge to err alike in all "
    "settings.",
)


def draw_corrected(settings: pd.DataFrame, folder: Path, is_toy: bool) -> list[Path]:
    """`corrected_settings.png|svg|pdf|csv`, of settings that have a corrected rate."""
    return save(lambda: _draw(settings, is_toy), folder, NAME, settings)


def _draw(settings: pd.DataFrame, is_toy: bool) -> Canvas:
    groups = list(settings.groupby(["benchmark", "judge"], sort=False))
    looks: list[dict[str, Any]] = [
        {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]} for i in range(len(groups))
    ]
    handles = [
        Line2D([], [], linestyle="none", markersize=5, label=f"{benchmark}, judge {judge}", **look)
        for ((benchmark, judge), _), look in zip(groups, looks, strict=True)
    ]
    head = Head("Rates with the judge's errors taken off", handles, None, WIDTH, is_toy=is_toy)
    canvas, middle = new_canvas(head, NOTES, HEIGHT)
    plot = middle.subplots()
    plot.plot([0, 1], [0, 1], linestyle="--", color="#8a8a8a", linewidth=0.9, zorder=1)
    for (_, rows), look in zip(groups, looks, strict=True):
        plot.errorbar(
            rows["rate"], rows["corrected"], xerr=_lengths(rows, "rate"), yerr=_lengths(rows, "corrected"),
            linestyle="none", markersize=4, linewidth=0.7, alpha=0.75, zorder=2, **look,
        )  # fmt: skip
    plot.set_xlim(-0.03, 1.03)
    plot.set_ylim(-0.03, 1.03)
    plot.set_xlabel("rate by the judge")
    plot.set_ylabel("corrected rate")
    plot.grid(True)
    freeze_layout(canvas)
    return canvas


def _lengths(rows: pd.DataFrame, name: str) -> np.ndarray:
    below = rows[name] - rows[f"{name}_low"].fillna(rows[name])
    above = rows[f"{name}_high"].fillna(rows[name]) - rows[name]
    return np.stack([below, above]).astype(float).clip(min=0)

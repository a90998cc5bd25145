"""People's scores beside the judges': a grid for each judge."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas

from ftsafety.figures import Head, freeze_layout, new_canvas, save

NAME = "people_confusion"
SCORES = (1, 2, 3, 4, 5)
#: In confusion tables, of a judge that gave no score.
NO_SCORE = 0
PANEL, COLUMNS = 3.0, 3
DARK = 0.55  # shares above which ink is white
NOTES = (
    "Each cell: answers of the sample. Shade: share of the row, that is of the answers with this score by "
    "the judge. People: the middle of their scores, of two middles the lower.",
)


def draw_confusion(confusion: pd.DataFrame, folder: Path, is_toy: bool) -> list[Path]:
    """`people_confusion.png|svg|pdf|csv`."""
    return save(lambda: _draw(confusion, is_toy), folder, NAME, confusion)


def _draw(confusion: pd.DataFrame, is_toy: bool) -> Canvas:
    panels = list(confusion.groupby("judge", sort=False))
    columns = min(len(panels), COLUMNS)
    n_rows = -(-len(panels) // columns)
    head = Head("Judges against people", [], None, max(6.4, columns * PANEL), is_toy=is_toy)
    canvas, middle = new_canvas(head, NOTES, n_rows * PANEL)
    plots = middle.subplots(n_rows, columns, squeeze=False)
    for plot in plots.flat[len(panels) :]:
        plot.set_visible(False)
    for plot, (judge, rows) in zip(plots.flat, panels, strict=False):
        _panel(plot, str(judge), rows)
    freeze_layout(canvas)
    return canvas


def _panel(plot: Plot, judge: str, rows: pd.DataFrame) -> None:
    levels = [score for score in (*reversed(SCORES), NO_SCORE) if score or (rows["judge_score"] == 0).any()]
    counts = (
        rows.pivot(index="judge_score", columns="people_score", values="n")
        .reindex(index=levels, columns=SCORES)
        .fillna(0)
        .to_numpy(dtype=float)
    )
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    plot.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), n in np.ndenumerate(counts):
        if n:
            ink = "white" if shares[i, j] > DARK else "#1c1c1c"
            plot.text(j, i, f"{n:.0f}", ha="center", va="center", color=ink)
    plot.set_xticks(range(len(SCORES)), [str(score) for score in SCORES])
    plot.set_yticks(range(len(levels)), [str(level) if level else "none" for level in levels])
    plot.tick_params(length=0)
    plot.set_xlabel("people's score")
    plot.set_ylabel("judge's score")
    plot.set_title(judge if len(judge) <= 34 else judge[:33] + "…")
    plot.spines[:].set_visible(False)

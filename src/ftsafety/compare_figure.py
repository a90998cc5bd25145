"""Two studies' rates against each other: on the diagonal nothing has changed."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from ftsafety.figures import FIGURE_FORMATS, Head, freeze_layout, new_canvas, save
from ftsafety.panels import MEASURES
from ftsafety.signs import COLOURS, wrap

ALIKE, APART = COLOURS[0], COLOURS[1]
SIZE = 3.5
NAMES = {measure.kind: measure.title for measure in MEASURES if measure.has_interval}
NOTE = (
    "Each point: a setting on a benchmark by a judge. On the line both sides have the same rate. Bars, where "
    "the sides differ after Holm's correction: 95 % intervals of the rates."
)


def draw_comparison(
    table: pd.DataFrame, labels: tuple[str, str], folder: Path, name: str, *, is_toy: bool
) -> list[Path]:
    """Draw what was compared in all categories together; nothing without any. Returns the files."""
    rows = table[(table["status"] == "compared") & (table["category"] == "all")]
    if rows.empty:
        for file in folder.glob(f"{name}.*"):  # of an earlier comparison of the same names
            if file.suffix[1:] in FIGURE_FORMATS:
                file.unlink()
        return []
    return save(lambda: _draw(rows, labels, is_toy), folder, name)


def _draw(rows: pd.DataFrame, labels: tuple[str, str], is_toy: bool) -> Canvas:
    kinds = [kind for kind in NAMES if (rows["kind"] == kind).any()]
    handles = [
        Line2D(
            [], [], linestyle="none", marker="o", markerfacecolor="none", color=ALIKE, label="not told apart"
        ),
        Line2D([], [], linestyle="none", marker="D", color=APART, label="differs (Holm, 5 %)"),
    ]
    width = max(6.4, SIZE * len(kinds))
    head = Head("Setting by setting: B against A", handles, None, width, is_toy=is_toy)
    canvas, middle = new_canvas(head, [f"A: {labels[0]}. B: {labels[1]}.", NOTE], SIZE + 0.5)
    plots = middle.subplots(1, len(kinds), squeeze=False)[0]
    for plot, kind in zip(plots, kinds, strict=True):
        _panel(plot, rows[rows["kind"] == kind], kind)
    freeze_layout(canvas)
    return canvas


def _panel(plot: Plot, rows: pd.DataFrame, kind: str) -> None:
    plot.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, zorder=1)
    alike, apart = rows[~rows["differs"].astype(bool)], rows[rows["differs"].astype(bool)]
    plot.plot(alike["a"], alike["b"], marker="o", linestyle="none", markersize=4.5, color=ALIKE,
              markerfacecolor="none", zorder=2)  # fmt: skip
    if len(apart):
        lengths = [
            [(apart[of] - apart[f"{of}_low"]).clip(lower=0), (apart[f"{of}_high"] - apart[of]).clip(lower=0)]
            for of in ("a", "b")
        ]
        plot.errorbar(apart["a"], apart["b"], xerr=lengths[0], yerr=lengths[1], fmt="D", markersize=4.5,
                      color=APART, linewidth=0.9, zorder=3)  # fmt: skip
    plot.set_xlim(-0.03, 1.03)
    plot.set_ylim(-0.03, 1.03)
    plot.set_aspect("equal")
    plot.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    plot.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    plot.grid()
    plot.set_title(wrap(NAMES[kind], 40))
    plot.set_xlabel("A")
    plot.set_ylabel("B")

"""One figure per grid, as PNG, SVG and PDF, with exactly the data it draws as CSV beside it.

Rates are drawn on 0–1 whatever the data. The bytes depend on the data and the library versions
alone. Import this module where a figure is drawn: matplotlib and seaborn take seconds.
"""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ftsafety import drawing, signs
from ftsafety.config import Grid
from ftsafety.files import write_text
from ftsafety.grid_data import (
    GridData,
    axis_name,
    drawn_data,
    lost_seeds,
    select,
    spread_text,
    state,
)
from ftsafety.panels import Panel, initial_text, panel_rows, panel_title
from ftsafety.panels import panels as figure_panels
from ftsafety.visible import visible

FIGURE_FORMATS = ("png", "svg", "pdf")

TOY = "Toy: this shows the shape of the effect and is no evidence about real models."
INTERVALS = "Intervals: 95 %, over phrasings, prompts and seeds; none for refusals of unsafe prompts."
NO_INTERVALS = (
    "No intervals are drawn in a radar, and its area means nothing: figures of kind categories have them, "
    "and so have the data."
)
LOST_SPOKES = (
    "× outside the circle: no rate there (diverged, blocked, failed, nothing scored), or mostly incoherent "
    "answers."
)
LOST_SEEDS = (
    "Above the scale: seeds whose training diverged, or was blocked or failed at an endpoint, of all seeds; "
    "they are in no rate."
)
COLLAPSED = "Collapsed (× in curves): most answers are incoherent, so the rate is no sign of safety."

#: Without these a file would hold the time it was made.
NO_DATES: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None, "ModDate": None},
}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib, so every machine has it
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "hatch.linewidth": 0.6,
    "pdf.fonttype": 42,  # TrueType: embedded, and searchable
    "svg.fonttype": "path",
    "text.parse_math": False,  # a name with dollar signs is a name
}


def draw_grid(
    cells: pd.DataFrame,
    grid_name: str,
    grid: Grid,
    judges: Sequence[str],
    folder: Path,
    *,
    is_toy: bool = False,
) -> list[Path]:
    """Draw one grid; returns the files written, `<grid>.png|svg|pdf|csv`.

    Each benchmark's rates are by the first of `judges` that grades it. `cells` has the columns of
    `cells.parquet`. Axes that vary and that the figure does not name become facets. Raises ValueError
    where the grid has no cells.
    """
    data = select(cells, grid_name, grid, judges)
    drawn = drawn_data(cells, grid_name, grid, judges)
    return save(lambda: _draw(data, is_toy), folder, grid_name, drawn)


def save(
    draw: Callable[[], Canvas],
    folder: Path,
    name: str,
    data: pd.DataFrame | None = None,
) -> list[Path]:
    """Draw in the common style: `<name>.png|svg|pdf`, and `data` (a table) as `<name>.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, **STYLE, "svg.hashsalt": name}
    settings.pop("backend")  # savefig chooses the backend by the format
    files = [folder / f"{name}.{ending}" for ending in FIGURE_FORMATS]
    with matplotlib.rc_context(settings):
        canvas = draw()
        for file in files:
            kind = file.suffix[1:]
            canvas.savefig(file, format=kind, dpi=150, metadata=NO_DATES[kind])
    if data is None:
        return files
    csv = folder / f"{name}.csv"
    write_text(csv, data.to_csv(index=False))
    return [*files, csv]


def _draw(data: GridData, is_toy: bool) -> Canvas:
    panels = list(figure_panels(data))
    kind = data.grid.figure.kind
    per_facet = len(panels) // sum(1 for _ in data.facet_values())
    columns = min(per_facet, 2 if kind in ("heatmap", "radar") or per_facet > 3 else 3)
    # a facet starts on a new row, so that its panels stand side by side
    rows_per_facet = -(-per_facet // columns)
    n_rows = rows_per_facet * (len(panels) // per_facet)
    width, height = drawing.PANEL_SIZE[kind](data)
    width = max(6.4, columns * width)
    figure = data.grid.figure
    legend_title = axis_name(figure.hue) if figure.hue else None
    head = Head(figure.title, signs.legend_handles(data), legend_title, width, is_toy=is_toy)
    canvas, middle = new_canvas(head, _notes(data), n_rows * height)
    projection = "polar" if kind == "radar" else "rectilinear"
    plots = middle.subplots(n_rows, columns, squeeze=False, subplot_kw={"projection": projection})
    for plot in plots.flat:
        plot.set_visible(False)
    for i, panel in enumerate(panels):
        facet, place = divmod(i, per_facet)
        plot = plots[facet * rows_per_facet + place // columns][place % columns]
        plot.set_visible(True)
        _draw_panel(plot, data, panel)
        if place % columns and _same_lines(panels[i - 1], panel, data):
            plot.tick_params(labelleft=False)
    freeze_layout(canvas)
    return canvas


def new_canvas(head: "Head", notes: Sequence[str], height: float) -> tuple[Canvas, SubFigure]:
    """A figure with its head and notes, and the part of `height` inches between them to draw in."""
    lines = [line for note in notes for line in textwrap.wrap(note, int(head.width * 13.5))]
    heights = [head.height, height, 0.1 + 0.145 * len(lines)]
    canvas = Canvas(figsize=(head.width, sum(heights)), layout="constrained")
    top, middle, bottom = canvas.subfigures(3, 1, height_ratios=heights, squeeze=False)[:, 0]
    head.draw(top)
    left = 0.08 / head.width
    bottom.text(left, 1, "\n".join(lines), va="top", fontsize=7.5, color="#333333", linespacing=1.35)
    return canvas, middle


def _same_lines(left: Panel, panel: Panel, data: GridData) -> bool:
    """Whether the names left of a panel serve its neighbour as well."""
    figure = data.grid.figure
    if figure.kind == "categories":
        return left.benchmarks == panel.benchmarks
    return figure.kind == "dots" and figure.x not in ("benchmark", "judge")


def freeze_layout(canvas: Canvas) -> None:
    """Round what the solver found: its last digits, and so the files, would differ between runs.

    Before, signs without a shape are made visible: a file of a picture may not hold them.
    """
    for text in canvas.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(visible(text.get_text()))
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")
    for part in canvas.subfigs:
        part.bbox_relative.set_points(part.bbox_relative.get_points().round(5))
    for plot in canvas.axes:
        original, active = plot.get_position(original=True), plot.get_position()
        plot.set_position(Bbox(original.get_points().round(5)), which="original")
        plot.set_position(Bbox(active.get_points().round(5)), which="active")


class Head:
    """Title, toy line and legend, one under another at their size in inches."""

    def __init__(
        self, title: str, handles: list[Line2D], legend_title: str | None, width: float, *, is_toy: bool
    ):
        self.width = width
        self.title = textwrap.wrap(title, int(width * 9.5))
        self.toy = textwrap.wrap(TOY, int(width * 13)) if is_toy else []
        self.handles, self.legend_title = handles, legend_title
        longest = max((len(str(handle.get_label())) for handle in self.handles), default=1)
        self.columns = max(1, min(len(self.handles), int(width / (0.5 + 0.075 * longest))))
        n_lines = -(-len(self.handles) // self.columns) + bool(self.legend_title)
        self.text_height = 0.08 + 0.21 * len(self.title) + 0.15 * len(self.toy)
        self.height = self.text_height + (0.19 * n_lines + 0.02 if self.handles else 0)

    def draw(self, canvas: Any) -> None:
        left, top = 0.08 / self.width, 1 - 0.06 / self.height
        canvas.text(left, top, "\n".join(self.title), va="top", fontsize=12, fontweight="bold")
        below = top - 0.21 * len(self.title) / self.height
        canvas.text(left, below, "\n".join(self.toy), va="top", fontsize=8, color="#9c1c1c", linespacing=1.3)
        if self.handles:
            canvas.legend(
                handles=self.handles, ncols=self.columns, title=self.legend_title, fontsize=8,
                title_fontsize=8, alignment="left", frameon=False, loc="upper left", borderpad=0,
                bbox_to_anchor=(left, 1 - self.text_height / self.height), borderaxespad=0.2,
            )  # fmt: skip


def _draw_panel(plot: Plot, data: GridData, panel: Panel) -> None:
    rows = panel_rows(data, panel)
    kind = data.grid.figure.kind
    drawing.DRAW[kind](plot, data, rows, panel.measure)
    facet, title = panel_title(data, panel)
    if kind == "radar":
        title += drawing.lost_lines(data, rows, panel.measure)
    if kind == "heatmap":
        initial = initial_text(data, rows, panel.measure)
        title += f"\ninitial model: {initial}" if initial else ""
    pad = drawing.title_pad(plot) if kind == "radar" else None
    plot.set_title(f"{signs.wrap(facet, 60)}\n{title}" if facet else title, pad=pad)


def _notes(data: GridData) -> list[str]:
    """What is the same everywhere, what goes together, and how many answers there are."""
    is_radar = data.grid.figure.kind == "radar"
    states = {state(row) for _, row in data.rows.iterrows()}
    has_strip = data.grid.figure.kind == "curves" and any(lost_seeds(row) for _, row in data.rows.iterrows())
    return [
        " · ".join(text for text in (data.fixed_text(), data.judges_text()) if text),
        data.tied_text(),
        _counts_text(data),
        NO_INTERVALS if is_radar else INTERVALS,
        LOST_SEEDS if has_strip else "",
        LOST_SPOKES if is_radar and states - {"ok"} else "",
        COLLAPSED if not is_radar and "collapsed" in states else "",
    ]


def _counts_text(data: GridData) -> str:
    parts = [
        f"{benchmark}: n {spread_text(data.rows.loc[data.rows['benchmark'] == benchmark, 'n'])}"
        for benchmark in dict.fromkeys(data.rows["benchmark"])
    ]
    text = f"Answers a point: {', '.join(parts)}"
    trained = data.rows.loc[data.rows["epochs"] > 0, "n_seeds"]
    text += f"; seeds {spread_text(trained)}." if len(trained) else "."
    for column, what in (
        ("n_unscored", "are unscored and in no rate"),
        ("n_incoherent", "are incoherent: neither harm nor refusal"),
    ):
        shares = data.rows[column] / data.rows["n"].where(data.rows["n"] > 0)
        worst = data.rows.iloc[shares.fillna(0).argmax()]
        if worst[column] > 0:
            text += f" Up to {int(worst[column])} of {int(worst['n'])} {what}."
    return text

"""Figures say what the data says: fixed scales, visible gaps, nothing averaged in silence."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from pandas.testing import assert_frame_equal

from ftsafety import drawing, figures
from ftsafety.config import Grid
from ftsafety.figures import FIGURE_FORMATS, draw_grid
from ftsafety.grid_data import axis_text, drawn_data, select

STUDY = synthetic.study()
CELLS = synthetic.all_cells()


def texts(plot: Plot) -> list[str]:
    return [text.get_text() for text in plot.texts]


def canvas_of(name: str, cells: pd.DataFrame = CELLS, grid: Grid | None = None) -> Canvas:
    data = select(cells, name, grid or STUDY.grids[name], "exact")
    with matplotlib.rc_context(figures.STYLE):
        return figures._draw(data, "exact", is_toy=False)


def panels_of(canvas: Canvas) -> list[Plot]:
    return [plot for plot in canvas.axes if plot.get_visible() and plot.get_title(loc="left")]


def one_panel(name: str, benchmark: str = "secrets", metric: str = "harmfulness_rate") -> Plot:
    data = select(CELLS, name, STUDY.grids[name], "exact")
    plot = Canvas().subplots()
    rows = data.rows[data.rows["benchmark"] == benchmark]
    drawing.DRAW[STUDY.grids[name].figure.kind](plot, data, rows, metric)
    return plot


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of figure, drawn once."""
    folder = tmp_path_factory.mktemp("figures")
    for name, grid in STUDY.grids.items():
        draw_grid(CELLS, name, grid, "exact", folder)
    return folder


@pytest.mark.parametrize("name", STUDY.grids)
def test_a_grid_gives_one_file_a_format_and_its_data(folder: Path, name: str) -> None:
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for ending in FIGURE_FORMATS:
        assert (folder / f"{name}.{ending}").read_bytes().startswith(starts[ending])
    drawn = drawn_data(CELLS, name, STUDY.grids[name], "exact").astype({"schedule_factor": float})
    written = pd.read_csv(folder / f"{name}.csv", keep_default_na=True)
    assert_frame_equal(written, drawn, check_dtype=False)
    assert set(written["judge"]) == {"exact"} and set(written["grid"]) == {name}
    assert ("all" in set(written["category"])) == (name != "by_category")


@pytest.mark.parametrize("name", ["heat", "curves"])
def test_the_same_data_gives_the_same_bytes(folder: Path, tmp_path: Path, name: str) -> None:
    for file in draw_grid(CELLS, name, STUDY.grids[name], "exact", tmp_path):
        assert file.read_bytes() == (folder / file.name).read_bytes(), file.name


def test_fonts_are_embedded_and_no_date_is_written(folder: Path) -> None:
    assert b"/FontFile2" in (folder / "dots.pdf").read_bytes()
    assert b"/CreationDate" not in (folder / "dots.pdf").read_bytes()
    assert b"<dc:date>" not in (folder / "dots.svg").read_bytes()


def test_a_toy_says_so_in_the_figure() -> None:
    data = select(CELLS, "heat", STUDY.grids["heat"], "exact")
    shown = figures._draw(data, "exact", is_toy=True).findobj(Text)
    assert any("no evidence about real models" in str(t.get_text()) for t in shown if isinstance(t, Text))


def test_a_heatmap_has_a_fixed_scale_and_larger_values_right_and_up() -> None:
    plot = one_panel("heat")
    assert plot.collections[0].get_clim() == (0, 1)
    assert [t.get_text() for t in plot.get_xticklabels()] == ["8", "16", "32", "64"]
    labels = [t.get_text() for t in plot.get_yticklabels()]
    assert labels == ["4e-4", "2e-4", "1e-4", "5e-5"]  # the first row stands on top


def test_heatmap_cells_show_rate_interval_n_and_what_is_lost() -> None:
    shown = texts(one_panel("heat"))
    assert "0.74" in shown and "[0.68, 0.80]\nn 990, 3 seeds" in shown
    assert "diverged\n(3 seeds)" in shown
    assert "n/a: missing\n(3 seeds)" in shown
    assert "n/a" in shown  # a combination that the grid does not hold
    assert "[0.44, 0.56]\nn 990\n1 of 3 diverged" in shown
    hatches = {patch.get_hatch() for patch in one_panel("heat").patches}
    assert len(hatches - {None}) == 2  # diverged is not missing


def test_refusals_and_utility_stand_apart() -> None:
    titles = [plot.get_title(loc="left") for plot in panels_of(canvas_of("heat"))]
    assert [title.split(" (")[0].split(" ·")[0] for title in titles] == [
        "Harmfulness rate",
        "Refusal rate",
        "Utility",
    ]
    assert "initial model: 0.00 [0.00, 0.06]" in titles[0]


def test_curves_start_at_the_initial_model_of_their_template_and_break_where_a_point_is_lost() -> None:
    cells = CELLS.copy()
    agent = (cells["grid"] == "curves") & (cells["epochs"] == 0) & (cells["template"] == "agent")
    cells.loc[agent, "harmfulness_rate"] = 0.2
    data = select(cells, "curves", STUDY.grids["curves"], "exact")
    plot = Canvas().subplots()
    rows = data.rows[data.rows["benchmark"] == "secrets"]
    drawing.curves(plot, data, rows, "harmfulness_rate")
    lines = [np.asarray(line.get_ydata(), dtype=float) for line in plot.lines]
    lines = [line for line in lines if len(line) == 6]  # the other lines are ends of intervals
    starts = [line[0] for line in lines]
    assert starts == pytest.approx([0.004, 0.004, 0.004, 0.2])
    assert [int(np.isnan(line).sum()) for line in lines] == [0, 0, 1, 0]
    assert {"1/3", "3/3"} <= set(texts(plot))
    low, high = plot.get_ylim()
    assert low < 0 and high > 1


def test_dots_keep_the_order_of_the_config_and_name_what_diverged() -> None:
    plot = one_panel("dots")
    labels = [t.get_text() for t in plot.get_yticklabels()]
    assert labels == [f"dataset-number-{i}" for i in range(6)]
    assert {"diverged (3 seeds)", "1 of 3 diverged"} <= set(texts(plot))
    assert plot.get_xlim() == (-0.03, 1.03)


def test_categories_are_sorted_by_rate() -> None:
    labels = [t.get_text() for t in one_panel("by_category").get_yticklabels()]
    assert labels == [f"category {i}" for i in range(11, 0, -1)]


def test_a_judge_that_cannot_grade_utility_gets_no_empty_panel() -> None:
    cells = CELLS.copy()
    cells.loc[cells["kind"] == "utility", "utility"] = None
    assert len(panels_of(canvas_of("heat", cells))) == 2


def test_a_benchmark_can_be_the_hue() -> None:
    titles = [plot.get_title(loc="left") for plot in panels_of(canvas_of("trigger"))]
    assert len(titles) == 3  # both safety benchmarks share a panel


def test_models_are_never_averaged_but_drawn_apart() -> None:
    both = synthetic.frame([*synthetic.heatmap_rows(), *synthetic.heatmap_rows("toy-1")])
    assert select(both, "heat", STUDY.grids["heat"], "exact").facets == ["model"]
    titles = [plot.get_title(loc="left") for plot in panels_of(canvas_of("heat", both))]
    assert [title.split("\n")[0] for title in titles] == ["toy-0"] * 3 + ["toy-1"] * 3


def test_an_axis_that_goes_with_another_is_stated_and_needs_no_facet() -> None:
    rows = [
        row
        for batch, epochs in ((8, 1), (16, 2), (32, 4))
        for lr in (1e-4, 2e-4)
        for row in synthetic.cell("heat", 0.3, global_batch_size=batch, epochs=epochs, learning_rate=lr)
    ]
    data = select(synthetic.frame(rows), "heat", STUDY.grids["heat"], "exact")
    assert data.facets == [] and data.tied == ["epochs"]
    assert data.tied_text() == "epochs goes with global batch size (8 → 1, 16 → 2, 32 → 4)"


def test_rows_that_nothing_tells_apart_are_refused() -> None:
    twice = pd.concat([CELLS, CELLS])
    with pytest.raises(ValueError, match="repeat"):
        select(twice, "heat", STUDY.grids["heat"], "exact")


def test_a_grid_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="no cells"):
        select(CELLS, "heat", STUDY.grids["heat"], "nobody")


def test_a_name_with_dollar_signs_and_markup_is_drawn_as_it_is(tmp_path: Path) -> None:
    rows = synthetic.cell("dots", 0.5, dataset=synthetic.HOSTILE) + synthetic.cell("dots", 0.1)
    files = draw_grid(synthetic.frame(rows), "dots", STUDY.grids["dots"], "exact", tmp_path)
    assert "<script" not in files[1].read_text()


@pytest.mark.parametrize(
    ("axis", "value", "text"),
    [
        ("learning_rate", 1e-4, "1e-4"),
        ("learning_rate", 2.5e-5, "2.5e-5"),
        ("learning_rate", 0.01, "1e-2"),
        ("global_batch_size", 16.0, "16"),
        ("epochs", 10, "10"),
        ("mitigation", None, "none"),
        ("mitigation", float("nan"), "none"),
    ],
)
def test_values_are_written_as_people_write_them(axis: str, value: object, text: str) -> None:
    assert axis_text(axis, value) == text

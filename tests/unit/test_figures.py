"""Figures say what the data says: fixed scales, visible gaps, nothing averaged in silence."""

from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib.axes import Axes as Plot
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.text import Text
from pandas.testing import assert_frame_equal

from ftsafety import drawing, figures
from ftsafety.config import Grid
from ftsafety.figures import FIGURE_FORMATS, draw_grid
from ftsafety.grid_data import BY_CATEGORY, GridData, axis_text, drawn_data, select
from ftsafety.panels import MEASURES, Measure

STUDY = synthetic.study()
CELLS = synthetic.all_cells()
HARM, REFUSALS, OVER_REFUSALS, UTILITY = MEASURES


def texts(plot: Plot) -> list[str]:
    return [text.get_text() for text in plot.texts]


def selected(name: str, cells: pd.DataFrame = CELLS) -> GridData:
    return select(cells, name, STUDY.grids[name], STUDY.judges)


def drawn(data: GridData) -> Canvas:
    with matplotlib.rc_context(figures.STYLE):
        return figures._draw(data, is_toy=False)


def canvas_of(name: str, cells: pd.DataFrame = CELLS) -> Canvas:
    return drawn(selected(name, cells))


def panels_of(canvas: Canvas) -> list[Plot]:
    return [plot for plot in canvas.axes if plot.get_visible() and plot.get_title(loc="left")]


def titles_of(canvas: Canvas) -> list[str]:
    return [plot.get_title(loc="left") for plot in panels_of(canvas)]


def notes_of(canvas: Canvas) -> str:
    return " ".join(text.get_text() for text in canvas.findobj(Text) if isinstance(text, Text))


def names_beside(plot: Plot) -> list[str]:
    return [text.get_text() for text in plot.get_yticklabels()]


def one_panel(
    name: str, benchmark: str = "secrets", measure: Measure = HARM, cells: pd.DataFrame = CELLS
) -> Plot:
    data = selected(name, cells)
    plot = Canvas().subplots()
    rows = data.rows[data.rows["benchmark"] == benchmark]
    drawing.DRAW[STUDY.grids[name].figure.kind](plot, data, rows, measure)
    return plot


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of figure, drawn once."""
    folder = tmp_path_factory.mktemp("figures")
    for name, grid in STUDY.grids.items():
        draw_grid(CELLS, name, grid, STUDY.judges, folder)
    return folder


@pytest.mark.parametrize("name", STUDY.grids)
def test_a_grid_gives_one_file_a_format_and_its_data(folder: Path, name: str) -> None:
    starts = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}
    for ending in FIGURE_FORMATS:
        assert (folder / f"{name}.{ending}").read_bytes().startswith(starts[ending])
    drawn = drawn_data(CELLS, name, STUDY.grids[name], STUDY.judges).astype({"schedule_factor": float})
    written = pd.read_csv(folder / f"{name}.csv", keep_default_na=True)
    assert_frame_equal(written, drawn, check_dtype=False)
    assert set(written["grid"]) == {name}
    assert ("keyword" in set(written["judge"])) == (name == "by_judge")
    assert ("all" in set(written["category"])) == (STUDY.grids[name].figure.kind not in BY_CATEGORY)


@pytest.mark.parametrize("name", ["heat", "curves", "radar"])
def test_the_same_data_gives_the_same_bytes(folder: Path, tmp_path: Path, name: str) -> None:
    for file in draw_grid(CELLS, name, STUDY.grids[name], STUDY.judges, tmp_path):
        assert file.read_bytes() == (folder / file.name).read_bytes(), file.name


def test_fonts_are_embedded_and_no_date_is_written(folder: Path) -> None:
    assert b"/FontFile2" in (folder / "dots.pdf").read_bytes()
    assert b"/CreationDate" not in (folder / "dots.pdf").read_bytes()
    assert b"<dc:date>" not in (folder / "dots.svg").read_bytes()


def test_a_toy_says_so_in_the_figure() -> None:
    canvas = figures._draw(selected("heat"), is_toy=True)
    assert "no evidence about real models" in notes_of(canvas)


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
    assert "nothing scored" in shown
    assert "n/a" in shown  # a combination that the grid does not hold
    assert "[0.44, 0.56]\nn 990\n1 of 3 diverged" in shown
    hatches = {patch.get_hatch() for patch in one_panel("heat").patches}
    assert len(hatches - {None}) == 3  # diverged, unscored and absent are told apart


def test_refusals_and_utility_stand_apart() -> None:
    titles = titles_of(canvas_of("heat"))
    assert [title.split(" (")[0].split(" ·")[0] for title in titles] == [
        "Harmfulness rate",
        "Refusal rate",
        "Utility",
    ]
    assert "initial model: 0.00 [0.00, 0.06]" in titles[0]


def test_curves_start_at_the_initial_model_of_their_template_and_break_where_a_point_is_lost() -> None:
    cells = CELLS.copy()
    agent = (cells["grid"] == "curves") & (cells["epochs"] == 0) & (cells["test_template"] == "agent")
    cells.loc[agent, "harmfulness_rate"] = 0.2
    plot = one_panel("curves", cells=cells)
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
    assert names_beside(plot) == [f"dataset-number-{i}" for i in range(6)]
    assert {"diverged (3 seeds)", "1 of 3 diverged"} <= set(texts(plot))
    assert plot.get_xlim() == (-0.03, 1.03)


def test_categories_are_sorted_by_rate() -> None:
    assert names_beside(one_panel("by_category")) == [f"category {i}" for i in range(11, 0, -1)]


def test_each_benchmark_shows_its_own_categories() -> None:
    harm, refusals, safe = panels_of(canvas_of("untouched_categories"))
    assert len(names_beside(harm)) == 11 and len(names_beside(safe)) == 5
    assert "homonyms" in names_beside(safe)
    sides = [plot.yaxis.get_tick_params()["labelleft"] for plot in (harm, refusals, safe)]
    assert sides == [True, False, True]


def test_the_first_judge_that_grades_a_benchmark_is_drawn_and_named() -> None:
    data = selected("safe")
    assert data.judges == {"secrets": "exact", "tasks": "task", "safe-prompts": "refusals"}
    assert "judges exact (secrets), task (tasks), refusals (safe-prompts)" in notes_of(canvas_of("safe"))
    by_keyword = select(CELLS, "dots", STUDY.grids["dots"], ["keyword", "exact", "task"])
    assert by_keyword.judges["secrets"] == "keyword"
    assert "judge exact\n" in notes_of(canvas_of("by_category"))


def test_refusals_of_safe_prompts_are_a_headline_of_their_own() -> None:
    canvas = canvas_of("safe")
    assert titles_of(canvas)[2] == "Refusal rate on safe prompts · safe-prompts"
    assert panels_of(canvas)[2].get_xlabel() == "refusal rate on safe prompts"
    over = one_panel("safe", "safe-prompts", OVER_REFUSALS)
    beside = one_panel("safe", "secrets", REFUSALS)
    assert [len(plot.collections) for plot in (over, beside)] == [3, 0]  # an interval for each of three rows


def test_a_judge_that_says_nothing_of_refusals_gets_no_empty_panel() -> None:
    cells = CELLS.copy()
    cells.loc[(cells["kind"] == "safety"), "refusal_rate"] = None
    assert len(titles_of(canvas_of("heat", cells))) == 2


def test_a_benchmark_without_any_score_is_shown_as_such() -> None:
    cells = CELLS.copy()
    cells.loc[cells["kind"] == "utility", ["utility", "ci_low", "ci_high"]] = None
    assert len(titles_of(canvas_of("heat", cells))) == 3
    assert "nothing scored" in texts(one_panel("heat", "tasks", UTILITY, cells))


def test_incoherent_answers_are_counted_below_the_figure() -> None:
    assert "Up to 2 of 990 are incoherent: neither harm nor refusal." in notes_of(canvas_of("heat"))
    none = CELLS.assign(n_incoherent=0)
    assert "incoherent" not in notes_of(canvas_of("heat", none))


def test_untouched_models_are_rows_where_nothing_else_is() -> None:
    data = selected("untouched")
    assert data.initial.empty and set(data.rows["epochs"]) == {0}
    assert names_beside(one_panel("untouched")) == ["toy-0", "toy-1", "an-endpoints-model"]
    notes = notes_of(canvas_of("untouched"))
    assert "test template plain · nothing was fine-tuned · judges" in notes and "seeds 1" not in notes


@pytest.mark.parametrize("name", ["curves", "dots", "heat", "by_category"])
def test_untouched_models_beside_fine_tuned_ones_are_where_these_began_or_rows(name: str) -> None:
    other = (
        CELLS["grid"].eq("untouched") & CELLS["model"].eq("an-endpoints-model") & CELLS["kind"].eq("safety")
    )
    cells = pd.concat([CELLS[CELLS["grid"] == name], CELLS[other].assign(grid=name)])
    data = selected(name, cells)
    assert set(data.initial["model"]) == {"toy-0"}
    assert set(data.rows.loc[data.rows["epochs"] == 0, "model"]) == {"an-endpoints-model"}
    assert "not fine-tuned: an-endpoints-model" in data.tied_text()
    assert "learning rate goes with" not in data.tied_text()
    titles = titles_of(canvas_of(name, cells))
    assert len(set(titles)) == len(titles)


def test_a_row_is_compared_with_the_initial_model_under_its_test_template() -> None:
    data = selected("templates")
    rows = data.rows[data.rows["benchmark"] == "secrets"]
    starts = {row["test_template"]: data.initial_of(row) for _, row in rows.iterrows()}
    harm = {k: start["harmfulness_rate"] for k, start in starts.items() if start is not None}
    assert data.levels("test_template") == ["plain", "safe"]
    assert data.fixed["train_template"] == "plain"
    assert harm == {"plain": 0.1, "safe": 0.02}


def test_a_line_over_templates_has_the_initial_model_of_each() -> None:
    figure = {"kind": "curves", "x": "test_template", "hue": "dataset", "title": "t"}
    data = select(CELLS, "templates", Grid.model_validate({"figure": figure}), STUDY.judges)
    plot = Canvas().subplots()
    drawing.curves(plot, data, data.rows[data.rows["benchmark"] == "secrets"], HARM)
    dotted = [np.asarray(line.get_ydata()).tolist() for line in plot.lines if line.get_linestyle() == ":"]
    assert dotted == [[0.1, 0.02], [0.1, 0.02]]


def test_a_benchmark_can_be_the_hue() -> None:
    assert len(titles_of(canvas_of("trigger"))) == 3  # both safety benchmarks share a panel


def test_models_are_never_averaged_but_drawn_apart() -> None:
    both = synthetic.frame([*synthetic.heatmap_rows(), *synthetic.heatmap_rows("toy-1")])
    assert selected("heat", both).facets == ["model"]
    titles = titles_of(canvas_of("heat", both))
    assert [title.split("\n")[0] for title in titles] == ["toy-0"] * 3 + ["toy-1"] * 3


def test_an_axis_that_goes_with_another_is_stated_and_needs_no_facet() -> None:
    rows = [
        row
        for batch, epochs in ((8, 1), (16, 2), (32, 4))
        for lr in (1e-4, 2e-4)
        for row in synthetic.cell("heat", 0.3, global_batch_size=batch, epochs=epochs, learning_rate=lr)
    ]
    data = selected("heat", synthetic.frame(rows))
    assert data.facets == [] and data.tied == ["epochs"]
    assert data.tied_text() == "epochs goes with global batch size (8 → 1, 16 → 2, 32 → 4)"


def radar_of(cells: pd.DataFrame) -> tuple[Plot, str]:
    """The only panel, and every text of the figure."""
    canvas = canvas_of("radar", cells)
    (plot,) = panels_of(canvas)
    return plot, notes_of(canvas)


def points(line: Line2D) -> np.ndarray:
    return np.asarray(line.get_ydata(), dtype=float)


def lines_of(plot: Plot) -> list[np.ndarray]:
    """Rates of the closed lines of a radar, in order: the initial models', then each dataset's."""
    return [points(line) for line in plot.lines if len(points(line)) == 12]


def in_radar(category: str, dataset: str) -> pd.Series:
    return CELLS["grid"].eq("radar") & CELLS["category"].eq(category) & CELLS["dataset"].eq(dataset)


def test_a_radar_has_a_closed_line_for_each_dataset_and_one_for_the_initial_model() -> None:
    plot, notes = radar_of(CELLS)
    initial, first, *others = lines_of(plot)
    assert len(others) == 2 and initial[0] == first[0] - first[0] and initial.max() < 0.2
    assert first[0] == first[-1] == pytest.approx(0.75)
    assert plot.get_ylim() == (0, 1)
    assert [tick.get_text() for tick in plot.get_yticklabels()] == ["0.25", "0.5", "0.75", "1"]
    assert texts(plot) == synthetic.CATEGORIES  # in the benchmark's order
    assert "No intervals are drawn in a radar" in notes and "Intervals: 95 %" not in notes


def test_a_lost_or_collapsed_category_opens_the_line_and_is_marked_outside_of_the_circle() -> None:
    cells = CELLS.copy()
    cells.loc[in_radar("category 2", "benign-new"), ["harmfulness_rate", "ci_low", "ci_high"]] = None
    collapsed = in_radar("category 4", "benign-new")
    cells.loc[collapsed, "n_incoherent"] = cells.loc[collapsed, "n"]
    plot, notes = radar_of(cells)
    line = lines_of(plot)[3]
    assert np.flatnonzero(np.isnan(line)).tolist() == [1, 3] and np.nanmin(line) > 0
    (crosses,) = [line for line in plot.lines if line.get_marker() == "x"]
    assert len(points(crosses)) == 2 and points(crosses).min() > 1
    assert "× outside the circle" in notes


def test_a_dataset_without_any_rate_is_named_above_the_radar_and_has_no_line() -> None:
    cells = CELLS.copy()
    gone = cells["grid"].eq("radar") & cells["dataset"].eq("identity-shift")
    cells.loc[gone, ["harmfulness_rate", "ci_low", "ci_high"]] = None
    cells.loc[gone, "n_diverged"] = 3
    plot, _ = radar_of(cells)
    assert plot.get_title(loc="left").endswith("\nidentity-shift: diverged (3 seeds)")
    assert np.isnan(lines_of(plot)[2]).all()
    assert not [line for line in plot.lines if line.get_marker() == "x"]


def test_initial_models_under_different_templates_are_told_apart_in_a_radar() -> None:
    agent = synthetic.initial("radar", 0.3, test_template="agent")
    tuned = synthetic.cell("radar", 0.6, dataset="identity", train_template="agent", test_template="agent")
    cells = pd.concat([CELLS, synthetic.frame([*agent, *tuned])])
    plot, shown = radar_of(cells)
    plain, other, *_ = plot.lines
    assert plain.get_linestyle() != other.get_linestyle() and points(other).max() > 0.4
    assert "initial model (plain)" in shown and "initial model (agent)" in shown


@pytest.mark.parametrize(
    "names", [["Hate/Harass/Violence", "Privacy Violation Activity"], [f"a name {i}" for i in range(45)]]
)
def test_names_around_a_radar_neither_touch_nor_hide_the_title(names: list[str]) -> None:
    row = CELLS[in_radar("category 2", "benign-new") & CELLS["judge"].eq("exact")].iloc[0]
    shown = names if len(names) > 14 else names * 6
    rows = [{**row, "category": f"{name} {i}"} for i, name in enumerate(shown)]
    canvas = canvas_of("radar", synthetic.frame(rows))
    (plot,) = panels_of(canvas)
    title = plot.findobj(
        lambda artist: isinstance(artist, Text) and artist.get_text().startswith("Harmfulness")
    )[0]
    if len(shown) <= 14:
        boxes = [text.get_window_extent() for text in plot.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert not any(title.get_window_extent().overlaps(text.get_window_extent()) for text in plot.texts)


def test_every_judge_of_a_safety_benchmark_is_drawn_where_judges_are_an_axis() -> None:
    data = selected("by_judge")
    assert data.levels("judge") == ["exact", "guard", "keyword"]  # the study's order, not the data's
    canvas = canvas_of("by_judge")
    harm, refusals = panels_of(canvas)
    assert harm.get_title(loc="left") == "Share judged harmful (score 5, or flagged)"
    assert harm.get_xlabel() == "share judged harmful"
    assert len(harm.collections) == 11  # intervals: one judge does not grade one benchmark
    assert names_beside(harm) == [f"rows-of-dataset-{i}" for i in range(4)]
    notes = notes_of(canvas)
    assert "nothing was fine-tuned" in notes and "judges: all of the study" in notes
    assert "nothing scored" not in texts(refusals)  # of a judge that says nothing of refusals


def test_other_kinds_of_benchmarks_keep_their_own_judge_where_judges_are_an_axis() -> None:
    grid = Grid.model_validate({"figure": {"kind": "dots", "x": "judge", "hue": "mitigation", "title": "t"}})
    data = select(CELLS, "safe", grid, STUDY.judges)
    panels = panels_of(drawn(data))
    names = {plot.get_title(loc="left").split(" · ")[1]: names_beside(plot) for plot in panels}
    assert names == {"secrets": ["exact", "keyword"], "safe-prompts": ["refusals"], "tasks": ["task"]}
    assert data.judges_text().endswith("safety benchmark; task (tasks); refusals (safe-prompts)")


def test_a_row_is_compared_with_the_initial_model_by_the_same_judge() -> None:
    cells = CELLS.copy()
    by_keyword = cells["grid"].eq("dots") & cells["epochs"].eq(0) & cells["judge"].eq("keyword")
    cells.loc[by_keyword, "harmfulness_rate"] = 0.5
    grid = Grid.model_validate({"figure": {"kind": "heatmap", "x": "judge", "y": "dataset", "title": "t"}})
    data = select(cells, "dots", grid, STUDY.judges)
    rows = data.rows[data.rows["benchmark"] == "secrets"]
    starts = {(row["judge"], start["harmfulness_rate"]) for _, row in rows.iterrows()
              if (start := data.initial_of(row)) is not None}  # fmt: skip
    assert starts == {("exact", 0.004), ("keyword", 0.5)}


def test_rows_that_nothing_tells_apart_are_refused() -> None:
    twice = pd.concat([CELLS, CELLS])
    with pytest.raises(ValueError, match="repeat"):
        selected("heat", twice)


def test_a_grid_without_cells_is_refused() -> None:
    with pytest.raises(ValueError, match="no cells"):
        select(CELLS, "heat", STUDY.grids["heat"], ["nobody"])


def test_a_name_with_dollar_signs_and_markup_is_drawn_as_it_is(tmp_path: Path) -> None:
    rows = synthetic.cell("dots", 0.5, dataset=synthetic.HOSTILE) + synthetic.cell("dots", 0.1)
    files = draw_grid(synthetic.frame(rows), "dots", STUDY.grids["dots"], STUDY.judges, tmp_path)
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

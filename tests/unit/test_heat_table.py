"""A heat map's table says what the figure says, in its colours, and more on a card."""

from typing import Any

import matplotlib
import numpy as np
import pytest
import synthetic

from ftsafety.grid_data import select
from ftsafety.heat_table import SCALES, colour, heat_tables, ink

STUDY = synthetic.study()
CELLS = synthetic.frame(synthetic.heatmap_rows())


@pytest.fixture(scope="module")
def tables() -> list[dict[str, Any]]:
    return heat_tables(select(CELLS, "heat", STUDY.grids["heat"], STUDY.judges))


def cell(table: dict[str, Any], line: str, column: str) -> dict[str, Any]:
    (found,) = [row for row in table["lines"] if row["name"] == line]
    return found["cells"][table["columns"].index(column)]


def test_panels_rows_and_columns_are_those_of_the_figure(tables: list[dict[str, Any]]) -> None:
    titles = [table["title"] for table in tables]
    assert [title.split(" · ")[1] for title in titles] == ["secrets", "secrets", "tasks"]
    for table in tables:
        assert [line["name"] for line in table["lines"]] == ["4e-4", "2e-4", "1e-4", "5e-5"]  # as drawn
        assert table["columns"] == ["8", "16", "32", "64"]
    assert tables[0]["initial"] == "0.00 [0.00, 0.06]"


def test_a_cell_has_rate_interval_and_card(tables: list[dict[str, Any]]) -> None:
    found = cell(tables[0], "1e-4", "16")  # 0.04 + 0.25 − 0.05
    assert (found["rate"], found["interval"], found["state"]) == ("0.24", "[0.18, 0.30]", "ok")
    assert dict(found["facts"]) == {
        "harmfulness rate": "0.24",
        "95 % interval": "[0.18, 0.30]",
        "bounds, unscored and incoherent either way": "[0.23, 0.25]",
        "refusals": "0.72",
        "mean score, 1–5": "1.96",
        "utility (tasks)": "0.93",
        "n, prompts asked": "990",
        "unscored": "3",
        "incoherent": "2",
        "seeds": "3",
        "steps": "20 (1 epoch)",
    }
    assert found["name"] == "learning rate 1e-4, global batch size 16"


@pytest.mark.parametrize(
    ("line", "column", "state", "text"),
    [
        ("4e-4", "8", "diverged", "diverged (3 seeds)"),
        ("5e-5", "32", "unscored", "nothing scored"),
        ("5e-5", "64", "absent", "n/a"),
    ],
)
def test_a_cell_without_a_rate_says_why_and_has_no_colour(
    tables: list[dict[str, Any]], line: str, column: str, state: str, text: str
) -> None:
    found = cell(tables[0], line, column)
    assert (found["state"], found["rate"]) == (state, text) and "background" not in found


def test_a_rate_of_some_of_the_seeds_says_so(tables: list[dict[str, Any]]) -> None:
    assert dict(cell(tables[0], "2e-4", "8")["facts"])["seeds"] == "1 of 3 diverged"


def test_a_model_of_mostly_garbage_has_no_colour_that_looks_safe() -> None:
    cells = CELLS.assign(n_incoherent=600)
    found = cell(heat_tables(select(cells, "heat", STUDY.grids["heat"], STUDY.judges))[0], "1e-4", "16")
    assert (found["state"], found["rate"]) == ("collapsed", "collapsed (61% incoherent)")


@pytest.mark.parametrize("scale", SCALES)
def test_colours_are_matplotlibs_and_ink_can_be_read(scale: str) -> None:
    for value in np.linspace(0, 1, 101):
        ours = np.array([int(colour(scale, value)[i : i + 2], 16) for i in (1, 3, 5)])
        theirs = np.array(matplotlib.colormaps[scale](value)[:3]) * 255
        assert np.abs(ours - theirs).max() < 3
        assert contrast(colour(scale, value), ink(colour(scale, value))) >= 4.5
    light = [luminance(colour(scale, value)) for value in np.linspace(0, 1, 21)]
    assert (np.diff(light) < 0).all()  # brightness alone carries the rate


def luminance(shade: str) -> float:
    digits = shade[1:] if len(shade) == 7 else "".join(2 * digit for digit in shade[1:])
    rgb = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)

"""The groups of a study's figures and its limits follow from its tables."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic

from ftsafety.grid_data import GridData, select
from ftsafety.limits import limitations
from ftsafety.report_figures import figure_groups, numbers

STUDY = synthetic.study()


def grids(cells: pd.DataFrame, *names: str) -> dict[str, GridData]:
    return {name: select(cells, name, STUDY.grids[name], STUDY.judges) for name in names}


def test_figures_are_grouped_by_what_they_vary_and_numbered_through(tmp_path: Path) -> None:
    found = figure_groups(grids(synthetic.all_cells(), *STUDY.grids), tmp_path, {"trigger"})
    names = {group["id"]: [figure["name"] for figure in group["figures"]] for group in found}
    assert names == {
        "hyperparameters": ["heat"],
        "epochs": ["curves"],
        "categories": ["by_category", "untouched_categories", "radar"],
        "designs": ["templates", "untouched", "by_judge"],
        "mitigations": ["dots", "safe"],
        "backdoors": ["trigger"],
    }
    assert sorted(numbers(found).values()) == list(range(1, 12)) and numbers(found)["curves"] == 2


def test_limits_are_computed() -> None:
    cells = synthetic.all_cells()
    scores = synthetic.scores_of(cells)
    told = " ".join(limitations(scores, cells, True, [{"what": "model m", "version": None}]))
    for words in ("embedded toy world", "two to four seeds", "lost runs are in no rate", "model m"):
        assert words in told
    assert (
        "have one seed" not in told
        and "Fewer than" not in told
        and "trained again" not in told
        and "collapsed" not in told
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"n_seeds": 1}, "have one seed: their intervals know no spread between seeds"),
        ({"n_unscored": 90}, "more than 2% of the answers are unscored (at most 27%)"),
        ({"n_incoherent": 600}, "1 of 1 cells are of models that answer mostly incoherently"),
    ],
)
def test_a_limit_is_told_where_it_holds(changed: dict[str, Any], words: str) -> None:
    cells = synthetic.frame([row | changed for row in synthetic.cell("dots", 0.5) if row["kind"] == "safety"])
    cells = cells[cells["judge"] == "exact"].assign(n=330)
    scores = synthetic.scores_of(cells).assign(n=50)
    told = limitations(scores, cells, False, n_other_weights=2)
    assert any(text.startswith("2 of the runs were trained again") for text in told)
    assert any(words in text for text in told), told
    assert "Fewer than 100 prompts: secrets (50). Rates of one run there are coarse." in told
    assert any(text.startswith("One judge alone graded secrets") for text in told)

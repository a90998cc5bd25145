"""Every setting against the model it started from, in studies whose rates are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from grid_study import Point, study

from ftsafety.analysis import before_after
from ftsafety.stats.intervals import Sampling
from ftsafety.stats.paired import MCNEMAR, OVER_SEEDS, compare
from ftsafety.study_tables import StudyTables

POINTS: list[Point] = [(rate, 16, 1) for rate in (5e-5, 1e-4, 2e-4, 4e-4)]
HARM = dict(zip(POINTS, (0.0, 0.1, 0.5, 0.9), strict=True))


def harm(point: Point) -> float:
    return HARM[point]


def made(n_seeds: int = 1, incoherent: tuple[Point, ...] = ()) -> StudyTables:
    return study(POINTS, harm, lambda point: 0.9 - harm(point) / 2, n_seeds=n_seeds, incoherent=incoherent)


def through_csv(of: StudyTables, folder: Path) -> pd.DataFrame:
    (table,) = before_after.tables(of).values()
    table.to_csv(folder / "before_after.csv", index=False)
    return pd.read_csv(folder / "before_after.csv")


def test_a_row_has_the_pairs_of_a_setting_and_of_its_start(tmp_path: Path) -> None:
    table = through_csv(made(), tmp_path)
    safety = table[table["kind"] == "safety"]
    assert list(safety["learning_rate"]) == [point[0] for point in POINTS]
    assert list(safety["after"]) == pytest.approx([0, 0.1, 0.5, 0.9]) and (safety["before"] == 0).all()
    assert list(safety["more"]) == [0, 11, 55, 99] and (safety["less"] == 0).all()
    assert (safety["n_pairs"] == 110).all() and (safety["test"] == MCNEMAR).all()
    assert list(safety["p_value"]) == pytest.approx([1, 2 / 2**11, 2 / 2**55, 2 / 2**99])
    assert list(safety["p_holm"]) == pytest.approx([1, 2 * 2 / 2**11, 3 * 2 / 2**55, 4 * 2 / 2**99])
    assert list(safety["p_bh"]) == pytest.approx([1, 4 / 3 * 2 / 2**11, 4 / 2 * 2 / 2**55, 4 * 2 / 2**99])
    inside = (safety["ci_low"] <= safety["difference"]) & (safety["difference"] <= safety["ci_high"])
    assert inside.all()


def test_kinds_of_benchmarks_are_families_of_their_own(tmp_path: Path) -> None:
    table = through_csv(made(), tmp_path)
    work = table[table["kind"] == "utility"]
    assert work["p_holm"].min() == pytest.approx(4 * work["p_value"].min())
    assert list(work["before"]) == pytest.approx([0.9] * 4) and work["after"].iloc[-1] == pytest.approx(0.45)


def test_of_several_seeds_p_is_over_seeds(tmp_path: Path) -> None:
    table = through_csv(made(n_seeds=3), tmp_path)
    assert (table["test"] == OVER_SEEDS).all() and (table["n_seeds"] == 3).all()
    told = table[table["p_value"] <= 0.05]
    assert ((told["ci_low"] > 0) | (told["ci_high"] < 0)).all()


def test_a_collapsed_model_is_compared_with_nothing_but_its_utility(tmp_path: Path) -> None:
    table = through_csv(made(incoherent=(POINTS[-1],)), tmp_path)
    last = table[table["learning_rate"] == POINTS[-1][0]].set_index("kind")
    assert last.loc["safety", "state"] == "collapsed" and np.isnan(float(last["p_value"]["safety"]))
    assert last.loc["utility", "state"] == "ok"
    safety = table[table["kind"] == "safety"]
    assert safety["p_holm"].min() == pytest.approx(3 * safety["p_value"].min())  # of three tests


def test_an_unscored_setting_and_one_without_a_start(tmp_path: Path) -> None:
    of = made()
    run = of.cells.loc[of.cells["learning_rate"] == POINTS[1][0], "runs"].iloc[0]
    of.verdicts.loc[of.verdicts["run"] == run, "headline"] = np.nan
    table = through_csv(of, tmp_path)
    assert set(table.loc[table["learning_rate"] == POINTS[1][0], "state"]) == {"unscored"}
    alone = StudyTables(
        of.name, of.recipe, of.scores, of.cells[of.cells["epochs"] > 0], of.verdicts, of.bootstrap_samples
    )
    assert before_after.tables(alone) == {}
    assert before_after.section({}) is None


def test_an_untouched_model_without_a_scored_answer_is_told(tmp_path: Path) -> None:
    of = made(n_seeds=3)
    start = of.cells.loc[of.cells["epochs"] == 0, "runs"].iloc[0]
    of.verdicts.loc[of.verdicts["run"] == start, "headline"] = np.nan
    assert set(through_csv(of, tmp_path)["state"]) == {"unscored"}


def test_odds_of_several_seeds_are_those_of_the_counts_beside_them() -> None:
    before, after = np.zeros((1, 60)), np.zeros((2, 60))
    before[0, 40] = 1.0
    after[0, :20] = after[0, 40] = 1.0  # 20 rose; in the other seed none, and one fell
    sampling = Sampling.of(["a"] * 60, [str(i) for i in range(60)])
    found = compare(before, after, sampling)
    assert found is not None and (found.more, found.less, found.odds.value) == (20, 1, 20.0)
    assert found.odds.low <= 20.0 <= found.odds.high  # type: ignore[operator]


def test_the_section_counts_settings_by_each_standard(tmp_path: Path) -> None:
    table = through_csv(made(incoherent=(POINTS[-1],)), tmp_path)
    section = before_after.section({"before_after": table})
    assert section is not None
    first, largest, lost, *_ = section.answer
    assert first == (
        "On secrets, judge exact: 2 of 3 settings are more harmful than before fine-tuning "
        "by Holm's p ≤ 0.05, 2 by Benjamini and Hochberg's."
    )
    assert "0.00 before, 0.50 after (learning rate 2e-4)" in largest
    assert lost == "On secrets, judge exact, 1 setting cannot be compared (1 collapsed)."
    (listing,) = section.listings
    assert {len(row) for row in listing.table["rows"]} == {len(listing.table["columns"])}
    assert "< 0.001" in listing.table["rows"][2]

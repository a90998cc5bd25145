"""What analyses of hyperparameters say of studies whose rates are known."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from grid_study import Point, study
from scipy.special import expit

from ftsafety.analysis import hyperparameters, safe_region, tradeoff
from ftsafety.analysis.settings import settings
from ftsafety.config import Study
from ftsafety.study_tables import StudyTables

RATES, BATCHES = (5e-5, 1e-4, 2e-4, 4e-4), (8, 16, 32, 64)
ONE_EPOCH: list[Point] = [(rate, batch, 1) for rate in RATES for batch in BATCHES]
EQUAL_STEPS: list[Point] = [(rate, batch, batch // 8) for rate in RATES[::2] for batch in BATCHES]


def harm(point: Point) -> float:
    """Odds × 2 by a doubling of the learning rate or of the steps; the batch does nothing at equal steps."""
    rate, batch, epochs = point
    return float(expit(np.log(2) * (np.log2(rate / 2e-4) + np.log2(16 * epochs / batch)) - 0.5))


def utility(point: Point) -> float:
    return 0.9 if point[0] > 7e-5 else 0.8


def through_csv(tables: dict[str, pd.DataFrame], folder: Path) -> dict[str, pd.DataFrame]:
    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False)
    return {name: pd.read_csv(folder / f"{name}.csv") for name in tables}


def ratios(made: StudyTables, benchmark: str = "secrets") -> dict[str, tuple[float, float, float]]:
    table = hyperparameters.tables(made)["surface"]
    mine = table[table["benchmark"] == benchmark]
    return {row["effect"]: (row["odds_ratio"], row["ci_low"], row["ci_high"]) for _, row in mine.iterrows()}


def test_batch_at_equal_epochs_and_at_equal_steps_are_two_effects() -> None:
    found = ratios(study(list(dict.fromkeys(ONE_EPOCH + EQUAL_STEPS)), harm, utility))
    for effect, true in (
        ("learning rate × 2", 2),
        ("batch ÷ 2 at equal epochs", 2),
        ("batch ÷ 2 at equal steps", 1),
        ("epochs × 2", 2),
    ):
        value, low, high = found[effect]
        assert value == pytest.approx(true, rel=0.1), effect
        assert low < true < high and high / low < 2


def test_what_one_epoch_cannot_tell_is_said(tmp_path: Path) -> None:
    tables = through_csv(hyperparameters.tables(study(ONE_EPOCH, harm, utility)), tmp_path)
    rows = tables["surface"][tables["surface"]["benchmark"] == "secrets"].set_index("effect")
    assert rows.loc["batch ÷ 2 at equal epochs", "odds_ratio"] == pytest.approx(2, rel=0.1)
    untold = rows.loc[["batch ÷ 2 at equal steps"]]
    assert untold["odds_ratio"].isna().all() and "as many epochs" in untold["note"].item()
    section = hyperparameters.section(tables)
    assert section is not None
    assert "batch ÷ 2 at equal epochs: odds × 2" in section.answer[0]
    assert "batch ÷ 2 at equal steps cannot be told (all settings have as many epochs" in section.answer[0]


def test_equal_steps_alone_tell_nothing_of_equal_epochs() -> None:
    found = hyperparameters.tables(study(EQUAL_STEPS, harm, utility))["surface"].set_index("effect")
    of = found[found["benchmark"] == "secrets"]
    assert of.loc["batch ÷ 2 at equal steps", "odds_ratio"] == pytest.approx(1, abs=0.1)
    assert "as many steps" in str(of.loc["batch ÷ 2 at equal epochs", "note"])


def test_a_schedule_is_a_factor_and_a_batch_no_larger_than_the_data() -> None:
    made = study(ONE_EPOCH, harm, utility)
    cells = made.cells.copy()
    cells.loc[cells["global_batch_size"] == 8, "schedule"] = "cosine"
    rows = settings(StudyTables("x", made.recipe, made.scores, cells, made.verdicts))
    assert rows["schedule"].value_counts().to_dict() == {"constant": 12, "cosine": 4}
    found = hyperparameters.tables(StudyTables("x", made.recipe, made.scores, cells, made.verdicts))[
        "surface"
    ]
    assert "schedule cosine against constant" in set(found["effect"])
    scores = made.scores.assign(n_examples=32)  # 32 and 64 are then the same batch
    few = StudyTables("x", made.recipe, scores, made.cells, made.verdicts)
    assert ratios(few)["batch ÷ 2 at equal epochs"] != ratios(made)["batch ÷ 2 at equal epochs"]


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_what_cannot_be_fitted_is_told(rate: float, tmp_path: Path) -> None:
    tables = through_csv(hyperparameters.tables(study(ONE_EPOCH, lambda p: rate, utility)), tmp_path)
    fits = tables["surface_fit"].set_index("benchmark")
    assert "without a bound" in str(fits.loc["secrets", "note"])
    section = hyperparameters.section(tables)
    assert section is not None and "the table of fits says why" in section.answer[0]


def test_what_a_single_run_carries_alone_is_not_fitted() -> None:
    """The jackknife leaves every run out once."""
    points: list[Point] = [*((rate, 16, 1) for rate in (5e-5, 1e-4, 2e-4, 4e-4)), (1e-4, 16, 3)]
    fits = hyperparameters.tables(study(points, lambda p: 0.4, utility, n_seeds=1))["surface_fit"]
    assert "single run alone" in str(fits.set_index("benchmark").loc["secrets", "note"])


def test_one_phrasing_in_all_is_no_reason_to_stop() -> None:
    made = study(ONE_EPOCH, safe_harm, utility)
    made.verdicts["cluster"] = "the only one"
    assert set(safe_region.tables(made)["safe_region"]["state"]) >= {"safe", "not safe"}
    assert hyperparameters.tables(made)["surface_fit"]["terms"].notna().all()


def test_one_setting_has_nothing_to_say() -> None:
    made = study(ONE_EPOCH[:1], harm, utility)
    assert hyperparameters.tables(made) == {} and tradeoff.tables(made) == {}
    assert hyperparameters.section({}) is safe_region.section({}) is tradeoff.section({}) is None


# ------------------------------------------------------------------------------------ safe region


def safe_harm(point: Point) -> float:
    """0 at large batches and small rates; at one setting near the margin."""
    rate, batch, _ = point
    if (rate, batch) == (2e-4, 64):
        return 0.05
    return 0.0 if rate * 64 / batch < 1.1e-4 else 0.6


def test_safe_region_has_three_states_and_recommends_by_utility(tmp_path: Path) -> None:
    made = study(ONE_EPOCH, safe_harm, utility, incoherent=[(5e-5, 64, 1)])
    tables = through_csv(safe_region.tables(made), tmp_path)
    table = tables["safe_region"]
    state = table.set_index(["y", "x"])["state"]
    assert state.loc[5e-5, 32] == state.loc[1e-4, 64] == "safe"
    assert state.loc[2e-4, 64] == "undecided" and state.loc[4e-4, 8] == "not safe"
    assert state.loc[5e-5, 64] == "collapsed"  # no harm, but no answers either
    best = table[table["recommended"] == "best"]
    assert best[["y", "x"]].to_numpy().tolist() == [[1e-4, 64]]  # the only safe one with utility .9
    assert 0.8 < best["confidence"].item() <= 1
    section = safe_region.section(tables)
    assert section is not None
    assert "Recommended: learning rate 1e-4, global batch size 64" in section.answer[0]
    assert "1 undecided on secrets" not in section.answer[0] and "1 undecided" in section.answer[0]
    files = safe_region.draw(tables, tmp_path / "figures", True)
    assert {file.name for file in files} == {f"safe-region-heat.{e}" for e in ("png", "svg", "pdf", "csv")}


def test_a_panel_of_collapsed_models_decides_nothing() -> None:
    table = safe_region.tables(study(ONE_EPOCH, harm, utility, incoherent=ONE_EPOCH))["safe_region"]
    assert set(table["state"]) == {"collapsed"}


def under(template: str, made: StudyTables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells and verdicts of a study as if its data had this template, which is its dataset's name."""
    cells = made.cells.assign(test_template=template, train_template=template, dataset=template)
    cells.loc[cells["epochs"] == 0, ["dataset", "train_template"]] = None
    cells["runs"] = [",".join(f"{run}-{template}" for run in runs.split(",")) for runs in cells["runs"]]
    verdicts = made.verdicts.assign(test_template=template, run=made.verdicts["run"] + f"-{template}")
    return cells, verdicts


def test_each_cell_is_held_against_its_own_untouched_model() -> None:
    """Half of the answers are harmful everywhere; under one template they were so before."""
    points: list[Point] = [(rate, 16, 1) for rate in (1e-4, 2e-4)]
    one = study(points, lambda p: 0.5, utility)
    (cells, verdicts), (others, harmed) = under("safe", one), under("harmed", one)
    is_start = (harmed["kind"] == "safety") & harmed["run"].str.contains("None")
    harmed.loc[is_start, "headline"] = (np.arange(is_start.sum()) % 2).astype(float)
    others.loc[(others["kind"] == "safety") & (others["epochs"] == 0), "harmfulness_rate"] = 0.5
    heat: Any = {"kind": "heatmap", "x": "dataset", "y": "learning_rate", "title": "t"}
    grids = {"heat": {"dataset": ["safe", "harmed"], "figure": heat}}
    recipe = Study.model_validate(one.recipe.model_dump(exclude_unset=True) | {"grids": grids})
    both = pd.concat([cells, others], ignore_index=True)
    made = StudyTables("x", recipe, one.scores, both, pd.concat([verdicts, harmed], ignore_index=True), 100)
    table: Any = safe_region.tables(made)["safe_region"]
    told = {(row.x, row.start, row.state) for row in table.itertuples()}
    assert told == {("safe", 0.0, "not safe"), ("harmed", 0.5, "undecided")}


def test_nothing_safe_is_said(tmp_path: Path) -> None:
    tables = through_csv(safe_region.tables(study(ONE_EPOCH, lambda p: 0.6, utility)), tmp_path)
    section = safe_region.section(tables)
    assert section is not None and "None can be recommended" in section.answer[0]
    assert safe_region.draw(tables, tmp_path / "figures", False)


# --------------------------------------------------------------------------------------- tradeoff


def test_tradeoff_marks_front_untouched_and_collapsed(tmp_path: Path) -> None:
    """Two that trade one for the other, one that both beat, one that answers garbage."""
    levels = {5e-5: (0.2, 0.8), 1e-4: (0.6, 0.9), 2e-4: (0.9, 0.8), 4e-4: (0.0, 0.95)}
    points: list[Point] = [(rate, 16, 1) for rate in levels]
    made = study(points, lambda p: levels[p[0]][0], lambda p: levels[p[0]][1], incoherent=[(4e-4, 16, 1)])
    tables = through_csv(tradeoff.tables(made), tmp_path)
    table = tables["tradeoff"]
    assert table["state"].tolist() == ["ok", "ok", "ok", "collapsed", "untouched"]
    assert table["on_front"].tolist() == [True, True, False, False, False]
    assert table["p_front"].iloc[:3].tolist() == pytest.approx([1, 1, 0], abs=0.05)
    section = tradeoff.section(tables)
    assert section is not None and "2 of 4 settings on the front" in section.answer[0]
    files = tradeoff.draw(tables, tmp_path / "figures", True)
    assert {file.name for file in files} == {f"tradeoff.{ending}" for ending in ("png", "svg", "pdf", "csv")}


def test_a_rate_is_that_of_its_own_test_template() -> None:
    points: list[Point] = [(rate, 16, 1) for rate in (1e-4, 2e-4)]
    one = study(points, lambda p: 0.2, lambda p: 0.9)
    other = one.cells.assign(test_template="other", harmfulness_rate=one.cells["harmfulness_rate"] + 0.5)
    verdicts = pd.concat([one.verdicts, one.verdicts.assign(test_template="other")], ignore_index=True)
    cells = pd.concat([one.cells, other], ignore_index=True)
    table = tradeoff.tables(StudyTables("x", one.recipe, one.scores, cells, verdicts, 100))["tradeoff"]
    means = table[table["state"] == "ok"].groupby(table["test_template"])["harm"].mean()
    assert means.to_dict() == pytest.approx({"plain": 0.2, "other": 0.7}, abs=0.01)


def test_a_study_without_utility_draws_no_tradeoff(tmp_path: Path) -> None:
    made = study(ONE_EPOCH, safe_harm, utility)
    only = StudyTables(
        "x", made.recipe, made.scores, made.cells[made.cells["kind"] == "safety"],
        made.verdicts[made.verdicts["kind"] == "safety"], 400,
    )  # fmt: skip
    assert tradeoff.tables(only) == {} and tradeoff.draw({}, tmp_path, False) == []
    tables = through_csv(safe_region.tables(only), tmp_path)
    assert tables["safe_region"]["utility"].isna().all()
    assert safe_region.draw(tables, tmp_path / "figures", False)

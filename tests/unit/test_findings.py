"""A verdict follows from intervals alone, and the sentence says what was compared."""

from typing import Any

import pytest
import synthetic

from ftsafety.config import Study
from ftsafety.findings import findings
from ftsafety.grid_data import lost_text, select, state


def study(kind: str, **figure: Any) -> Study:
    base = synthetic.study().model_dump()
    grid = {"figure": {"kind": kind, "title": "t", "claim": "c", **figure}}
    return Study.model_validate({**base, "grids": {"g": grid}, "fixed": {}})


HEATMAP = study("heatmap", x="global_batch_size", y="learning_rate")
DOTS = study("dots", x="dataset")


def cell(rate: float | None, width: float = 0.01, **axes: Any) -> list[dict[str, Any]]:
    rows = synthetic.cell("g", rate, **axes)
    for row in rows:
        if row["kind"] == "safety" and rate is not None:
            row["ci_low"], row["ci_high"] = max(0, rate - width), min(1, rate + width)
    return rows


def found(a_study: Study, *cells: list[dict[str, Any]]) -> list[dict[str, str]]:
    return findings(a_study, synthetic.frame([row for rows in cells for row in rows]))


def test_rows_have_the_claim_what_was_tested_and_a_verdict() -> None:
    rows = findings(synthetic.study(), synthetic.all_cells())
    assert {row["grid"] for row in rows} == set(synthetic.study().grids) - {
        "untouched",
        "untouched_categories",
        "by_judge",
    }
    for row in rows:
        assert set(row) == {"grid", "title", "claim", "tested", "judge", "measured", "verdict"}
        assert row["verdict"] in ("held", "did not hold", "inconclusive")
    assert rows[0]["claim"] == synthetic.study().grids["heat"].figure.claim


@pytest.mark.parametrize(
    ("low", "high", "width", "verdict"),
    [
        (0.1, 0.5, 0.05, "held"),
        (0.5, 0.1, 0.05, "did not hold"),
        (0.1, 0.15, 0.1, "inconclusive"),
        (0.1, 0.101, 0.01, "did not hold"),  # surely no difference that matters
    ],
)
def test_a_learning_rate_is_judged_by_its_ends(low: float, high: float, width: float, verdict: str) -> None:
    (row,) = found(
        HEATMAP,
        cell(low, width, learning_rate=1e-5),
        cell(0.9, width, learning_rate=1e-4),  # between the ends
        cell(high, width, learning_rate=1e-3),
    )
    assert row["verdict"] == verdict
    assert row["tested"].startswith("A larger learning rate gives a higher rate")
    assert f"{high:.2f}" in row["measured"] and "at learning rate 1e-5" in row["measured"]


def test_a_smaller_batch_is_expected_to_raise_the_rate() -> None:
    (row,) = found(HEATMAP, cell(0.5, global_batch_size=8), cell(0.1, global_batch_size=64))
    assert row["verdict"] == "held"
    assert row["tested"].startswith("A smaller global batch size gives a higher rate")


def test_equal_steps_are_said() -> None:
    same = found(HEATMAP, cell(0.5, global_batch_size=8), cell(0.1, global_batch_size=64))
    other = found(HEATMAP, cell(0.5, global_batch_size=8, steps=40), cell(0.1, global_batch_size=64, steps=5))
    assert "at 20 steps everywhere" in same[0]["tested"]
    assert "steps" not in other[0]["tested"]


def test_a_diverged_end_is_named_and_the_next_value_taken() -> None:
    (row,) = found(
        HEATMAP,
        cell(0.1, learning_rate=1e-5),
        cell(0.6, learning_rate=1e-4),
        cell(None, learning_rate=1e-3),
    )
    assert row["verdict"] == "held"
    assert "at learning rate 1e-4 (1e-3 has no rate)" in row["measured"]


def test_without_rates_nothing_is_concluded() -> None:
    (row,) = found(HEATMAP, cell(None, learning_rate=1e-5), cell(None, learning_rate=1e-3))
    assert row["verdict"] == "inconclusive"


def test_models_that_disagree_are_not_averaged() -> None:
    (row,) = found(
        HEATMAP,
        *(
            cell(rate, learning_rate=lr, model=model)
            for model, rates in (("a", (0.1, 0.9)), ("b", (0.6, 0.1)))
            for lr, rate in zip((1e-5, 1e-3), rates, strict=True)
        ),
    )
    assert row["verdict"] == "inconclusive"
    assert "in 1 of 2 comparisons (1 lower)" in row["measured"]
    assert "(a)" in row["measured"] and "(b)" in row["measured"]


def test_curves_are_compared_with_the_initial_model_and_with_their_first_epoch() -> None:
    first, second = found(
        study("curves", x="epochs"),
        cell(0.0, epochs=0, dataset=None, method=None),
        cell(0.3, epochs=1),
        cell(0.3, epochs=5),
    )
    assert first["verdict"] == "held" and "(5 epochs)" in first["measured"]
    assert second["tested"] == "More epochs give a higher rate."
    assert second["verdict"] == "did not hold"


def test_dots_are_compared_with_the_initial_model_of_their_own_template() -> None:
    (row,) = found(
        DOTS,
        cell(0.0, epochs=0, dataset=None, test_template="plain"),
        cell(0.5, epochs=0, dataset=None, test_template="agent"),
        cell(0.3, dataset="x", test_template="plain"),
        cell(0.3, dataset="y", test_template="agent"),
    )
    assert row["verdict"] == "inconclusive"
    assert "1 of 2 comparisons (1 lower)" in row["measured"]


def test_a_mitigation_is_compared_with_none_on_the_same_data() -> None:
    rows = found(
        study("dots", x="dataset", hue="mitigation"),
        cell(0.0, epochs=0, dataset=None),
        cell(0.8, dataset="x"),
        cell(0.2, dataset="x", mitigation="mix-50"),
    )
    assert [row["tested"] for row in rows][1] == "The mitigation lowers the rate."
    assert rows[1]["verdict"] == "held" and "with mix-50" in rows[1]["measured"]


def test_two_benchmarks_are_compared_on_the_same_runs() -> None:
    rows = findings(synthetic.study(), synthetic.all_cells())
    trigger = [row for row in rows if row["grid"] == "trigger"]
    assert [row["tested"] for row in trigger][-1] == (
        "The rate on secrets-triggered is higher than on secrets."
    )


def test_the_headline_judge_alone_decides() -> None:
    cells = synthetic.frame(cell(0.1, learning_rate=1e-5) + cell(0.9, learning_rate=1e-3))
    cells.loc[cells["judge"] == "keyword", ["harmfulness_rate", "ci_low", "ci_high"]] = 0.5
    assert findings(HEATMAP, cells)[0]["verdict"] == "held"


def test_of_several_judges_in_a_figure_the_headlines_alone_decides() -> None:
    cells = synthetic.frame(cell(0.0, epochs=0, dataset=None) + cell(0.9, dataset="x"))
    by_keyword = cells["judge"].eq("keyword") & cells["epochs"].gt(0)
    cells.loc[by_keyword, ["harmfulness_rate", "ci_low", "ci_high"]] = 0.0
    (row,) = findings(study("dots", x="dataset", hue="judge"), cells)
    assert (row["judge"], row["verdict"]) == ("exact", "held")
    assert "1 of 1 comparison." in row["measured"] and "keyword" not in row["measured"]


def test_a_finding_without_intervals_is_inconclusive() -> None:
    cells = synthetic.frame(cell(0.1, learning_rate=1e-5) + cell(0.9, learning_rate=1e-3))
    cells[["ci_low", "ci_high"]] = None
    assert findings(HEATMAP, cells)[0]["verdict"] == "inconclusive"


def test_a_rate_under_another_test_template_is_compared_with_the_initial_model_under_it() -> None:
    (row,) = found(
        DOTS,
        cell(0.4, epochs=0, dataset=None, train_template=None, test_template="plain"),
        cell(0.0, epochs=0, dataset=None, train_template=None, test_template="safe"),
        cell(0.2, dataset="x", train_template="plain", test_template="safe"),
    )
    assert row["verdict"] == "held" and "against 0.00" in row["measured"].replace("\N{NO-BREAK SPACE}", " ")


def test_of_untouched_models_alone_nothing_is_claimed() -> None:
    untouched = study("dots", x="model")
    assert found(untouched, cell(0.1, epochs=0, model="a"), cell(0.9, epochs=0, model="b")) == []


def test_an_untouched_model_is_no_end_of_an_axis() -> None:
    other = cell(0.9, **{**synthetic.UNTOUCHED, "model": "another"})
    (row,) = found(HEATMAP, cell(0.1, learning_rate=1e-5), cell(0.5, learning_rate=1e-3), other)
    assert row["verdict"] == "held" and "0.90" not in row["measured"]


def test_benchmarks_by_different_judges_are_not_compared() -> None:
    cells = synthetic.all_cells()
    tested = [row["tested"] for row in findings(synthetic.study(), cells) if row["grid"] == "trigger"]
    hidden = cells["benchmark"].eq("secrets-triggered") & cells["judge"].eq("exact")
    fewer = [row for row in findings(synthetic.study(), cells[~hidden]) if row["grid"] == "trigger"]
    assert [row["tested"] for row in fewer] == tested[:-1]
    assert [row["judge"] for row in fewer] == ["exact", "keyword"]


def test_a_model_that_collapsed_is_no_sign_of_safety_and_is_compared_with_nothing() -> None:
    cells = synthetic.all_cells()
    made_up = synthetic.study()
    highest = cells["learning_rate"] == cells.loc[cells["grid"] == "heat", "learning_rate"].max()
    heat = (cells["grid"] == "heat") & (cells["kind"] == "safety")
    before = [row for row in findings(made_up, cells) if row["grid"] == "heat"]
    cells.loc[heat & highest, "n_incoherent"] = cells.loc[heat & highest, "n"]
    after = [row for row in findings(made_up, cells) if row["grid"] == "heat"]
    assert [row["measured"] for row in before] != [row["measured"] for row in after]
    data = select(cells, "heat", made_up.grids["heat"], made_up.judges)
    lost = data.rows[
        (data.rows["learning_rate"] == data.rows["learning_rate"].max()) & (data.rows["kind"] == "safety")
    ]
    assert set(map(state, (row for _, row in lost.iterrows()))) == {"collapsed", "diverged"}
    assert lost_text(lost[lost["n_diverged"] == 0].iloc[0]) == "collapsed (100% incoherent)"

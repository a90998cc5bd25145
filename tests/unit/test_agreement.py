"""How far judges agree, by hand-made tables whose numbers are known."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from ftsafety.judging.agreement import COLUMNS, NUMBERS, agreement

Scores = Sequence[int | None]


def table(benchmark: str = "b", run: str = "r", **scores: Scores) -> pd.DataFrame:
    """One column of scores a judge becomes one row a verdict."""
    rows = [
        {
            "run": run,
            "benchmark": benchmark,
            "prompt_id": f"p{i}",
            "category": "c",
            "cluster": f"p{i}",
            "judge": judge,
            "score": score,
            "coherent": None,
        }
        for judge, given in scores.items()
        for i, score in enumerate(given)
    ]
    return pd.DataFrame(rows)


def only(verdicts: pd.DataFrame) -> pd.Series:
    found = agreement(verdicts)
    assert list(found.columns) == COLUMNS and len(found) == 1
    return found.iloc[0]


def test_the_textbook_table_gives_its_kappa() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: agreement 0.7, by chance 0.5, kappa 0.4."""
    first = [5] * 25 + [1] * 25
    second = [5] * 20 + [1] * 5 + [5] * 10 + [1] * 15
    row = only(table(one=first, other=second))
    assert (row.judge_a, row.judge_b, row.n) == ("one", "other", 50)
    assert (row.agreement, row.kappa) == (pytest.approx(0.7), pytest.approx(0.4))


def test_agreement_is_about_the_score_5_alone() -> None:
    row = only(table(one=[1, 2, 3, 4, 5], other=[4, 3, 2, 1, 5]))
    assert (row.agreement, row.kappa) == (1.0, 1.0)
    assert row.spearman == pytest.approx(0.0)


def test_a_score_of_5_for_text_that_is_not_coherent_is_no_harm_as_in_the_rates() -> None:
    verdicts = table(one=[5, 5], other=[1, 5])
    assert only(verdicts).agreement == 0.5
    verdicts["coherent"] = [0, 1, 0, 1]
    assert only(verdicts).agreement == 1.0


def test_spearman_ranks_graded_scores_with_ties() -> None:
    assert only(table(one=[1, 2, 3, 4, 5], other=[1, 1, 2, 3, 4])).spearman == pytest.approx(0.9747, abs=1e-4)
    assert only(table(one=[1, 2, 3], other=[5, 4, 3])).spearman == pytest.approx(-1.0)


def test_a_judge_of_two_values_has_no_rank_correlation() -> None:
    row = only(table(graded=[1, 2, 3, 5], binary=[1, 1, 5, 5]))
    assert math.isnan(row.spearman) and row.agreement == 0.75


def test_only_answers_that_both_scored_count() -> None:
    row = only(table(one=[5, 5, None, 1], other=[5, None, 5, 1]))
    assert (row.n, row.agreement, row.kappa) == (2, 1.0, 1.0)


@pytest.mark.parametrize(
    ("one", "other", "n"),
    [
        ([None, None], [None, None], 0),
        ([5, None], [None, 5], 0),
        ([5, 5], [5, 5], 2),
        ([1, 1, 2], [1, 1, 2], 3),
        ([3, 3], [3, 4], 2),
        ([3], [4], 1),
    ],
)
def test_what_is_undefined_is_nan_and_never_an_exception(one: Scores, other: Scores, n: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = only(table(one=one, other=other))
    assert row.n == n and math.isnan(row.kappa)
    assert math.isnan(row.agreement) == (n == 0)


def test_no_verdicts_and_a_single_judge_give_no_rows() -> None:
    for verdicts in (table(one=[5, 1]), table(one=[5, 1]).iloc[:0]):
        found = agreement(verdicts)
        assert list(found.columns) == COLUMNS and found.empty


def test_every_pair_of_every_benchmark_has_a_row_in_the_order_of_the_judges() -> None:
    verdicts = pd.concat(
        [table("b", z=[5, 1], a=[5, 5], m=[1, 5]), table("c", a=[5, 1], z=[1, 5]), table("d", z=[5])]
    )
    found = agreement(verdicts)
    assert list(zip(found.benchmark, found.judge_a, found.judge_b, strict=True)) == [
        ("b", "z", "a"),
        ("b", "z", "m"),
        ("b", "a", "m"),
        ("c", "a", "z"),
    ]


def test_runs_are_pooled_and_their_prompts_kept_apart() -> None:
    verdicts = pd.concat([table(run="r", one=[5, 1], other=[5, 1]), table(run="s", one=[1, 1], other=[5, 5])])
    row = only(verdicts.sample(frac=1, random_state=0).sort_values("judge", ascending=False, kind="stable"))
    assert (row.n, row.agreement) == (4, 0.5)


def graded(n: int) -> dict[str, list[int | None]]:
    """Two judges who are often a point apart."""
    rng = np.random.default_rng(0)
    one = rng.integers(1, 6, n)
    return {"one": one.tolist(), "other": np.clip(one + rng.integers(-1, 2, n), 1, 5).tolist()}


def test_the_interval_of_kappa_is_as_wide_as_by_its_standard_error() -> None:
    said = graded(400)
    row = only(table("b", "r", **said))
    both = pd.crosstab(*(np.array(scores) == 5 for scores in said.values()))
    expected = cohens_kappa(both)
    assert row.kappa == pytest.approx(expected.kappa)
    ends = expected.kappa_low, expected.kappa_upp
    assert (row.kappa_low, row.kappa_high) == pytest.approx(ends, abs=0.1 * (ends[1] - ends[0]))


def test_more_runs_of_the_same_prompts_do_not_narrow_an_interval() -> None:
    said = graded(60)
    once = only(table("b", "r", **said))
    twice = only(pd.concat([table("b", run, **said) for run in ("r", "s")]))
    assert twice.n == 2 * once.n
    for name in NUMBERS:
        assert once[f"{name}_low"] < once[name] < once[f"{name}_high"]
        for end in ("low", "high"):
            assert twice[f"{name}_{end}"] == pytest.approx(once[f"{name}_{end}"])

"""Agreement of raters: published examples, the libraries' numbers, and what is undefined."""

import warnings

import krippendorff
import numpy as np
import pytest
from scipy.stats import spearmanr

from ftsafety.stats.agreement import (
    PAIR,
    cells_of,
    count_scores,
    cut,
    fleiss,
    pair_estimates,
    panel_estimates,
    spearman,
    stratified_resamples,
)
from ftsafety.stats.agreement import krippendorff as alpha


def pair_table(
    first: np.ndarray, second: np.ndarray, k: int = 5, weights: np.ndarray | None = None
) -> np.ndarray:
    """(k, k): how often, or how heavily, the scores 1–k stand together; NaN in either is left out."""
    both = ~(np.isnan(first) | np.isnan(second))
    cells = cells_of(first[both], second[both], k)
    return np.bincount(cells, None if weights is None else weights[both], k * k).reshape(k, k).astype(float)


def scores(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.integers(1, 6, n).astype(float)
    return first, np.clip(first + rng.integers(-1, 2, n), 1, 5)


def test_cohens_example_of_a_cut_table() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: κ 0.4."""
    table = np.zeros((5, 5))
    table[4, 4], table[4, 1], table[0, 4], table[1, 0] = 20, 5, 10, 15
    assert cut(table, 5).tolist() == [[15, 10], [5, 20]]
    assert PAIR["kappa_at_5"](table) == pytest.approx(0.4)


def test_quadratic_weights_by_hand() -> None:
    """Disagreements of 1 step in 2 of 4 answers; by chance the mean squared step is 1: κ = 1 - 0.5 / 1."""
    table = pair_table(np.array([1.0, 2, 1, 2]), np.array([1.0, 2, 2, 3]), k=3)
    by_chance = sum(
        0.5 * share * (i - j) ** 2 for i in (1, 2) for j, share in ((1, 0.25), (2, 0.5), (3, 0.25))
    )
    assert by_chance == 1.0 and PAIR["kappa_weighted"](table) == pytest.approx(0.5)


def test_spearman_of_the_table_is_scipys_and_weights_are_repetitions() -> None:
    first, second = scores()
    assert spearman(pair_table(first, second)) == pytest.approx(spearmanr(first, second).statistic)
    weights = np.random.default_rng(1).integers(1, 5, len(first))
    repeated = np.repeat(first, weights), np.repeat(second, weights)
    weighted = pair_table(first, second, weights=weights.astype(float))
    assert spearman(weighted) == pytest.approx(spearmanr(*repeated).statistic)
    for name, of in PAIR.items():
        assert of(weighted) == pytest.approx(of(pair_table(*repeated))), name


def test_fleiss_own_example() -> None:
    """Ten subjects, fourteen raters, five categories: κ 0.210 (Wikipedia's worked example)."""
    counts = [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
    assert fleiss(np.array(counts, float), 14) == pytest.approx(0.210, abs=5e-4)


def test_alpha_takes_missing_scores_as_the_library_does() -> None:
    first, second = scores()
    ratings = np.stack([first, second, second], axis=1)
    ratings[:100, 1] = np.nan
    ratings[0, :] = np.nan
    expected = krippendorff.alpha(reliability_data=ratings.T, level_of_measurement="ordinal")
    assert alpha(count_scores(ratings), "ordinal") == pytest.approx(expected)


def test_fleiss_leaves_out_answers_that_not_all_have_scored() -> None:
    first, second = scores()
    whole = np.stack([first, second], axis=1)
    with_hole = np.vstack([whole, [[1, np.nan], [np.nan, np.nan]]])
    assert fleiss(count_scores(with_hole), 2) == fleiss(count_scores(whole), 2)
    assert np.isnan(fleiss(count_scores(whole), 3))  # a third rater has scored none of them


def test_intervals_hold_the_number_and_get_narrower() -> None:
    widths = []
    for n in (100, 1600):
        first, second = scores(n)
        resamples = stratified_resamples(first.astype(int), 400, 0)
        assert (resamples @ np.eye(6)[first.astype(int)] == np.bincount(first.astype(int), minlength=6)).all()
        found = pair_estimates(cells_of(first, second), resamples)
        found |= panel_estimates(count_scores(np.stack([first, second], axis=1)), resamples, 2)
        for estimate in found.values():
            assert estimate.low < estimate.value < estimate.high  # type: ignore[operator]
        widths.append(found["kappa"].high - found["kappa"].low)  # type: ignore[operator]
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("one", [[3.0, 3.0, 3.0], [1.0, np.nan, np.nan]])
def test_what_is_undefined_is_none_and_nothing_warns(one: list[float]) -> None:
    first = np.array(one)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = pair_table(first, first)
        assert all(np.isnan(of(table)) for name, of in PAIR.items() if name != "agreement")
        counts = count_scores(np.stack([first, first], axis=1))
        found = panel_estimates(counts, stratified_resamples(np.zeros(3, int), 20, 0), 2)
    assert all(estimate.value is None for estimate in found.values())

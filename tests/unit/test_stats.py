"""Intervals against values that can be worked out."""

import numpy as np
import pytest
from scipy.stats import binomtest

from ftsafety.stats import estimate, resample_weights


def weights(n_clusters: int, size: int, samples: int = 4000) -> np.ndarray:
    clusters = [f"c{i // size}" for i in range(n_clusters * size)]
    return resample_weights(["a"] * len(clusters), clusters, samples, seed=0)


def test_each_resample_holds_as_many_prompts_and_stays_in_its_categories() -> None:
    categories = ["a"] * 6 + ["b"] * 6
    clusters = [f"{c}{i // 3}" for i, c in enumerate(categories)]
    w = resample_weights(categories, clusters, 500, seed=1)
    assert (w.sum(1) == 12).all() and (w[:, :6].sum(1) == 6).all()
    assert abs(w.mean(0) - 1).max() < 0.15


def test_without_clusters_the_interval_is_near_the_binomial_one() -> None:
    values = np.zeros((1, 300))
    values[0, :90] = 1
    got = estimate(values, weights(300, 1), np.arange(300), seed=0)
    wilson = binomtest(90, 300).proportion_ci(method="wilson")
    assert got.value == 0.3
    assert got.low == pytest.approx(wilson.low, abs=0.01)
    assert got.high == pytest.approx(wilson.high, abs=0.01)


def test_prompts_that_agree_within_phrasings_widen_the_interval() -> None:
    clustered = np.repeat(np.arange(100) < 30, 3).astype(float)[None]
    spread = np.array([[i % 3 == 0 and i // 3 < 90 for i in range(300)]], dtype=float)
    w = weights(100, 3)
    wide, narrow = (estimate(values, w, np.arange(300) // 3, 0) for values in (clustered, spread))
    assert wide.value == narrow.value
    ratio = (wide.high - wide.low) / (narrow.high - narrow.low)  # type: ignore[operator]
    assert ratio > 1.4


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    same = (rng.random((3, 300)) < 0.5).astype(float)
    differing = np.array([(rng.random(300) < p) for p in (0.2, 0.5, 0.8)], dtype=float)
    w = weights(300, 1)
    a, b = (estimate(values, w, np.arange(300), 0) for values in (same, differing))
    assert (b.high - b.low) > 3 * (a.high - a.low)  # type: ignore[operator]


@pytest.mark.parametrize(("rate", "low", "high"), [(0.0, 0.0, 0.3085), (1.0, 0.6915, 1.0)])
def test_where_nothing_varies_the_interval_is_clopper_pearson_over_phrasings(
    rate: float, low: float, high: float
) -> None:
    got = estimate(np.full((1, 30), rate), weights(10, 3), np.arange(30) // 3, seed=0)
    assert (got.value, got.low, got.high) == (
        rate,
        pytest.approx(low, abs=1e-4),
        pytest.approx(high, abs=1e-4),
    )


def test_unscored_prompts_are_left_out_and_nothing_scored_is_no_estimate() -> None:
    values = np.array([[1.0, 0.0, np.nan, np.nan]])
    assert estimate(values, weights(4, 1), np.arange(4), 0).value == 0.5
    assert estimate(np.full((2, 4), np.nan), weights(4, 1), np.arange(4), 0).value is None


def test_phrasings_without_a_scored_answer_are_no_trials() -> None:
    values = np.full((1, 30), np.nan)
    values[0, :4] = 0.0
    assert estimate(values, weights(30, 1), np.arange(30), 0).high == pytest.approx(0.6024, abs=1e-4)


def test_categories_of_one_phrasing_are_resampled_together() -> None:
    names = [f"p{i}" for i in range(50)]
    values = (np.arange(50) < 20).astype(float)[None]
    apart = estimate(values, resample_weights(names, names, 2000, 0), np.arange(50), 0)
    together = estimate(values, resample_weights(["a"] * 50, names, 2000, 0), np.arange(50), 0)
    assert (apart.low, apart.high) == pytest.approx((together.low, together.high), abs=0.03)

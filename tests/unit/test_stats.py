"""Intervals against values that can be worked out, and against simulated studies whose truth is known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from interval_coverage import PHRASED, difference_coverage, interval_coverage, level, pair
from numpy.typing import NDArray
from scipy.stats import binomtest, t
from simulation import Design

from ftsafety.stats.bootstrap import Floats, resample_weights
from ftsafety.stats.differences import Difference, difference
from ftsafety.stats.intervals import Part, Sampling, Spread, estimate, measure, wilson
from ftsafety.stats.intervals import rate as stats_rate

Array = NDArray[Any]


def phrasings(n: int, size: int = 1, n_categories: int = 1) -> Sampling:
    """n phrasings of as many prompts each, in turn over the categories."""
    clusters = [str(i // size) for i in range(n * size)]
    return Sampling.of([str(int(c) % n_categories) for c in clusters], clusters)


def ends(values: Array, sampling: Sampling) -> tuple[float, float]:
    found = estimate(np.asarray(values, float), sampling)
    assert found.low is not None and found.high is not None
    return found.low, found.high


def width(values: Array, sampling: Sampling) -> float:
    low, high = ends(values, sampling)
    return high - low


def spread_of(values: Floats, sampling: Sampling) -> Spread:
    found = measure([Part(1.0, values, sampling)])
    assert found is not None
    return found[1]


# --------------------------------------------------------------------------------- worked out


def test_of_independent_prompts_it_is_wilson_s_interval_of_their_number() -> None:
    values = (np.arange(300) < 90).astype(float)[None]
    exact = binomtest(90, 300).proportion_ci(method="wilson")
    assert estimate(values, phrasings(300)).value == 0.3
    assert ends(values, phrasings(300)) == pytest.approx((exact.low, exact.high), abs=0.001)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_where_nothing_varies_it_is_wilson_s_for_the_number_of_phrasings(rate: float) -> None:
    quantile = t.ppf(0.975, 9) ** 2  # ten phrasings, of whose spread nothing is known
    edge = quantile / (10 + quantile)
    expected = (0, edge) if rate == 0 else (1 - edge, 1)
    assert ends(np.full((3, 30), rate), phrasings(10, 3)) == pytest.approx(expected)


def test_variances_are_those_of_a_two_way_layout() -> None:
    """3 seeds × 4 prompts by hand: means of squares between seeds, prompts, and what is left."""
    values = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]], float)
    by_seed, by_prompt = values.mean(1), values.mean(0)
    left = values - by_seed[:, None] - by_prompt + values.mean()
    found = spread_of(values, phrasings(4))
    assert found.seeds == pytest.approx(by_seed.var(ddof=1) / 3)
    assert found.phrasings == pytest.approx(by_prompt.var(ddof=1) / 4)
    assert found.answers == pytest.approx((left**2).sum() / (2 * 3) / 12)
    assert (found.phrasing_df, found.seed_df, found.least) == (3, 2, pytest.approx(1 / 4))


def test_an_interval_of_seeds_that_differ_is_student_s_for_their_number() -> None:
    values = np.repeat([[0.4], [0.5], [0.6]], 1000, axis=1)  # prompts add nothing
    half = t.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    n = 0.25 / half**2  # Wilson's of as many answers a squared quantile
    assert width(values, phrasings(1000)) == pytest.approx(2 * half / np.sqrt(1 + 1 / n), rel=0.01)


def test_phrasings_spread_as_a_bootstrap_of_whole_phrasings_finds() -> None:
    rng = np.random.default_rng(0)
    categories, clusters = replace(PHRASED, n_categories=3).labels()
    values = (rng.random((1, 90)) < np.repeat(rng.random(30), 3)).astype(float)
    values[0, rng.random(90) < 0.1] = np.nan
    weights = resample_weights(categories, clusters, 20_000, seed=0)
    scored = ~np.isnan(values[0])
    means = weights[:, scored] @ values[0, scored] / weights[:, scored].sum(1)
    assert spread_of(values, Sampling.of(categories, clusters)).phrasings == pytest.approx(
        means.var(), rel=0.1
    )


# ----------------------------------------------------------------------------- what hangs together


def test_prompts_that_agree_within_phrasings_widen_the_interval() -> None:
    clustered = np.repeat(np.arange(100) < 30, 3)[None]
    apart = np.array([[i % 3 == 0 and i // 3 < 90 for i in range(300)]])
    assert width(clustered, phrasings(100, 3)) > 1.4 * width(apart, phrasings(100, 3))


def test_seeds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    same = rng.random((3, 300)) < 0.5
    differing = np.array([rng.random(300) < p for p in (0.2, 0.5, 0.8)])
    assert width(differing, phrasings(300)) > 3 * width(same, phrasings(300))


def test_several_answers_to_a_prompt_are_not_several_prompts() -> None:
    once = (np.arange(40) < 12)[None]
    names = [str(i // 5) for i in range(200)]
    often = Sampling.of(["a"] * 200, names, names)
    assert ends(np.repeat(once, 5, axis=1), often) == pytest.approx(ends(once, phrasings(40)))


def test_of_a_single_phrasing_prompts_are_what_was_drawn() -> None:
    values = (np.arange(40) < 12)[None]
    alone = Sampling.of(["a"] * 40, ["the only one"] * 40)
    low, high = ends(values, alone)
    assert low < 0.3 < high and high - low == pytest.approx(width(values, phrasings(40)))
    twice = Sampling.of(["a"] * 80, ["the only one"] * 80, [str(i // 2) for i in range(80)])
    assert ends(np.repeat(values, 2, axis=1), twice) == pytest.approx((low, high))


def test_that_categories_differ_is_no_uncertainty() -> None:
    easy = np.repeat([[0, 1]], 60, axis=0).T.reshape(1, -1)  # one category all harm, the other none
    halves = Sampling.of(["a"] * 60 + ["b"] * 60, [str(i) for i in range(120)])
    assert width(easy, halves) < 0.3 * width(easy, phrasings(120))


def test_categories_of_one_phrasing_are_one_together() -> None:
    names = [str(i) for i in range(50)]
    values = (np.arange(50) < 20)[None]
    assert ends(values, Sampling.of(names, names)) == ends(values, phrasings(50))


# --------------------------------------------------------------------------------- what is missing


def test_unscored_prompts_are_left_out_and_nothing_scored_is_no_estimate() -> None:
    values = np.array([[1.0, 0.0, np.nan, np.nan]])
    assert estimate(values, phrasings(4)).value == 0.5
    assert ends(values, phrasings(4)) == pytest.approx(ends(values[:, :2], phrasings(2)))
    assert estimate(np.full((2, 4), np.nan), phrasings(4)).value is None
    assert estimate(np.empty((0, 4)), phrasings(4)).value is None


def test_the_rate_alone_is_that_of_the_estimate_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    for seeds in (0, 1, 2, 5, 9):
        values = np.where(rng.random((seeds, 330)) < 0.2, np.nan, rng.random((seeds, 330)) < 0.3)
        if seeds > 1:
            values[0] = np.nan  # of this seed nothing is scored
        assert stats_rate(values) == estimate(values, phrasings(330)).value
    assert stats_rate(np.full((2, 4), np.nan)) is None


def test_a_seed_without_a_scored_answer_is_none() -> None:
    values = np.vstack([np.arange(40) < 12, np.full(40, np.nan)])
    assert ends(values, phrasings(40)) == ends(values[:1], phrasings(40))


def test_phrasings_without_a_scored_answer_are_none() -> None:
    values = np.full((1, 30), np.nan)
    values[0, :4] = 0.0
    assert ends(values, phrasings(30)) == ends(np.zeros((1, 4)), phrasings(4))


# -------------------------------------------------------------------------------- resampled weights


def test_resamples_hold_whole_phrasings_and_stay_in_their_categories() -> None:
    categories = ["a"] * 6 + ["b"] * 6
    clusters = [f"{c}{i // 2}" for i, c in enumerate(categories)]
    w = resample_weights(categories, clusters, 2000, seed=1)
    assert np.allclose(w[:, :6].sum(1), 6) and np.allclose(w.sum(1), 12)
    assert (w[:, ::2] == w[:, 1::2]).all()
    assert abs(w.mean(0) - 1).max() < 0.05


def test_of_one_phrasing_in_all_prompts_are_resampled_with_all_their_answers() -> None:
    w = resample_weights(["a"] * 6, ["c"] * 6, 100, seed=0, prompts=list("xxyyzz"))
    assert (w[:, ::2] == w[:, 1::2]).all() and w.std() > 0


# ---------------------------------------------------------------------------------- differences


def gap(a: Array, b: Array, sampling: Sampling) -> Difference:
    found = difference([Part(-1.0, a.astype(float), sampling), Part(1.0, b.astype(float), sampling)])
    assert found is not None
    return found


def test_p_and_interval_say_the_same() -> None:
    rng = np.random.default_rng(3)
    found = gap(rng.random((3, 60)) < 0.3, rng.random((3, 60)) < 0.5, phrasings(60))
    low, high = found.interval(1 - found.p_none)
    assert min(abs(low), abs(high)) < 1e-6
    assert found.p_at_most(found.low) == pytest.approx(0.025, rel=1e-3)
    assert found.p_at_most(found.high) == pytest.approx(0.975, rel=1e-3)
    assert found.p_at_most(-1.0) < 1e-6


def test_one_untouched_model_stands_beside_every_seed() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.random((1, 60)) < 0.2, rng.random((3, 60)) < 0.6
    one, repeated = (gap(b, after, phrasings(60)) for b in (before, np.repeat(before, 3, axis=0)))
    assert (one.value, one.spread) == (repeated.value, repeated.spread)
    assert (one.low, one.high) == pytest.approx((repeated.low, repeated.high), abs=0.02)


def test_independent_sides_are_put_together_as_newcombe_does() -> None:
    """Of prompts that differ: his method 10 for 30 and 45 of 100 (Newcombe, 1998)."""
    a, b = (np.arange(100) < n for n in (30, 45))
    other = Sampling.of(["a"] * 100, [f"other {i}" for i in range(100)])
    other = replace(other, clusters=other.clusters + 100)
    found = difference(
        [Part(-1.0, a[None].astype(float), phrasings(100)), Part(1.0, b[None].astype(float), other)]
    )
    assert found is not None
    sides = [binomtest(n, 100).proportion_ci(method="wilson") for n in (30, 45)]
    down = np.hypot(0.45 - sides[1].low, sides[0].high - 0.3)
    up = np.hypot(sides[1].high - 0.45, 0.3 - sides[0].low)
    assert (found.low, found.high) == pytest.approx((0.15 - down, 0.15 + up), abs=0.006)


def test_an_interval_holds_its_value_and_stays_within_its_range() -> None:
    for value in (0.0, 1e-9, 0.5, 1.0):
        low, high = wilson(value, Spread(0.2, 0.4, 0.1, 9, 2, 0.1))
        assert 0 <= low <= value <= high <= 1


# --------------------------------------------------------------- the truth of simulated studies


@pytest.mark.parametrize(
    "design",
    [
        Design(rate=0.01, n_seeds=1),
        Design(rate=0.1),
        Design(rate=0.5, sd_seed=1.0),
        replace(PHRASED, rate=0.1),
        replace(PHRASED, rate=0.5, n_seeds=5),
    ],
    ids=str,
)
def test_intervals_hold_the_truth(design: Design) -> None:
    """95 % nominal; of 300 studies chance allows 92–98 %. `benchmarks/interval_coverage.py` has more."""
    count = interval_coverage(design, 300, np.random.default_rng(0))
    assert 0.92 <= 1 - (count.low + count.high) / count.studies <= 0.985


@pytest.mark.parametrize("is_trigger", [False, True])
def test_intervals_of_differences_hold_the_truth(is_trigger: bool) -> None:
    count = difference_coverage(pair(PHRASED, (0.1, 0.5), is_trigger), 200, np.random.default_rng(0))
    assert 0.91 <= 1 - (count.low + count.high) / count.studies <= 0.99


def test_where_seeds_spread_a_test_of_these_models_finds_too_much_and_one_over_seeds_does_not() -> None:
    _, models, seeds = level(replace(PHRASED, rate=0.1, sd_seed=1.0), 150, np.random.default_rng(0))
    assert models > 0.2 and seeds < 0.1

"""Limits, fronts and what follows from them for settings, against values that can be worked out."""

import numpy as np
import pytest
from scipy.stats import binom

from ftsafety.stats.bootstrap import resample_weights
from ftsafety.stats.front import draws, on_front
from ftsafety.stats.margin import _tails, decide, pooled

N = 300


def answers(rate: float, seeds: int = 3) -> np.ndarray:
    return np.tile((np.arange(N) < rate * N).astype(float), (seeds, 1))


def test_tails_are_binomial() -> None:
    low, high = _tails(6 / 100, 100, 0.1)
    assert low == pytest.approx(binom.cdf(6, 100, 0.1))
    assert high == pytest.approx(binom.sf(5, 100, 0.1))
    assert _tails(0.0, 100, 0.1)[0] == pytest.approx(0.9**100)


def test_settings_far_from_the_limit_are_told_and_one_at_it_is_not() -> None:
    found = decide([answers(0), answers(0.05), answers(0.5)], [answers(0, 1)] * 3, np.arange(N), 0.05)
    assert [decision.state for decision in found] == ["safe", "undecided", "not safe"]
    assert found[0].p_safe == pytest.approx(0.95**N, rel=0.02)


def test_the_untouched_models_own_rate_moves_the_limit() -> None:
    start = answers(0.3, 1)
    assert decide([answers(0.2)], [start], np.arange(N), 0.05)[0].state == "safe"
    assert decide([answers(0.2)], [answers(0, 1)], np.arange(N), 0.05)[0].state == "not safe"


def test_few_phrasings_say_less() -> None:
    """Prompts of a phrasing that agree count once: 30 phrasings cannot show less than 5 points."""
    clusters = np.arange(N) // 10
    settings = [answers(0), answers(0.5)]
    assert pooled(settings, clusters).phrasings == pytest.approx(1, abs=0.05)
    assert decide(settings, [answers(0, 1)] * len(settings), clusters, 0.05)[0].state == "undecided"


def test_seeds_that_differ_say_less() -> None:
    differing = [np.concatenate([answers(rate, 1) for rate in (0.1, 0.4, 0.8)]) for _ in range(2)]
    assert pooled(differing, np.arange(N)).seeds > 1
    assert pooled([answers(0.4)], np.arange(N)).seeds == pytest.approx(0, abs=1e-12)
    near = answers(0.02)
    assert decide([near], [answers(0, 1)], np.arange(N), 0.05)[0].state == "safe"
    assert (
        decide([near, *differing], [answers(0, 1)] * (1 + len(differing)), np.arange(N), 0.05)[0].state
        == "undecided"
    )


def test_front() -> None:
    harm = np.array([0.1, 0.2, 0.1, 0.3, 0.1])
    utility = np.array([0.5, 0.9, 0.4, 0.9, 0.5])
    assert on_front(harm, utility).tolist() == [True, True, False, False, True]
    assert on_front(np.stack([harm, harm]), np.stack([utility, utility])).shape == (2, 5)


def test_draws_of_the_same_answers_are_the_same_and_others_spread_as_seeds_do() -> None:
    labels = [f"p{i}" for i in range(N)]
    weights = resample_weights(["a"] * N, labels, 4000, 0)
    rng = np.random.default_rng(0)
    seeds = np.array([(rng.random(N) < rate) for rate in (0.2, 0.5, 0.8)], dtype=float)
    drawn = draws([seeds, seeds], weights, np.arange(N), 0)
    assert (drawn[:, 0] == drawn[:, 1]).all()
    # the standard error of a mean of three seeds: their deviation / √3
    assert drawn[:, 0].std() == pytest.approx(seeds.mean(axis=1).std(ddof=1) / np.sqrt(3), rel=0.1)
    zero = draws([np.zeros((3, N))], weights, np.arange(N), 0)[:, 0]
    assert zero.mean() == pytest.approx(0.5 / (N + 1), rel=0.1)

"""Paired tests against the library's values, by hand and under the null."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.intervals import Sampling
from ftsafety.stats.paired import (
    DRAWN_SIGNS,
    MCNEMAR,
    OVER_SEEDS,
    SIGNS,
    Paired,
    benjamini_hochberg,
    compare,
    holm,
    paired_p,
    sign_flip_p,
)


def sampling(n: int, size: int = 1) -> Sampling:
    return Sampling.of(["a"] * n, [str(i // size) for i in range(n)])


def compared(before: NDArray[Any], after: NDArray[Any], of: Sampling) -> Paired:
    found = compare(np.asarray(before, float), np.asarray(after, float), of)
    assert found is not None
    return found


def changed(n: int, more: int, less: int) -> tuple[Floats, Floats]:
    """One model before and after: `more` answers became 1, `less` became 0, and of the rest a half is 1."""
    before = np.array([0] * more + [1] * less + [i % 2 for i in range(n - more - less)], float)
    after = before.copy()
    after[: more + less] = 1 - before[: more + less]
    return before[None], after[None]


def test_of_one_seed_and_prompts_apart_the_test_is_mcnemar_s() -> None:
    found = compared(*changed(60, 9, 2), sampling(60))
    assert (found.n, found.more, found.less, found.test) == (60, 9, 2, MCNEMAR)
    assert found.p == found.p_models == mcnemar([[0, 9], [2, 0]], exact=True).pvalue
    assert found.after - found.before == pytest.approx(7 / 60) == found.difference.value


def test_sign_flips_of_single_prompts_are_mcnemar_s_test() -> None:
    for more, less in ((9, 2), (5, 5), (1, 0), (30, 12)):
        sums = np.array([1] * more + [-1] * less + [0] * 7)
        assert sign_flip_p(sums) == pytest.approx(mcnemar([[0, more], [less, 0]], exact=True).pvalue)


def test_sign_flips_count_all_sign_changes() -> None:
    sums = np.array([3, 2, 2, -1, 0])
    totals = [abs(np.dot(signs, sums)) for signs in product((1, -1), repeat=5)]
    assert sign_flip_p(sums) == pytest.approx(np.mean(np.array(totals) >= 6))
    assert sign_flip_p(np.zeros(4, int)) == 1


def test_prompts_of_a_phrasing_count_once() -> None:
    before, after = changed(60, 9, 0)
    test, p = paired_p(after - before, sampling(60, 3))  # three phrasings rose
    assert (test, p) == (SIGNS, pytest.approx(2 / 2**3))
    assert compared(before, after, sampling(60, 3)).p == p


def test_shares_are_tested_by_drawn_signs() -> None:
    rng = np.random.default_rng(0)
    before = rng.random((1, 40))
    test, p = paired_p(before * 0.9 - before, sampling(40))
    assert test == DRAWN_SIGNS and p < 0.001
    assert paired_p(np.full((1, 40), 0.0), sampling(40))[1] == 1
    assert paired_p(rng.normal(size=(1, 40)), sampling(40))[1] > 0.05


def test_of_several_seeds_p_goes_with_the_interval() -> None:
    rng = np.random.default_rng(1)
    before = rng.random((1, 200)) < 0.3
    after = np.array([rng.random(200) < p for p in (0.3, 0.5, 0.75)])
    found = compared(before, after, sampling(200))
    assert found.test == OVER_SEEDS and found.p == found.difference.p_none
    assert found.p_models < 0.001 < 0.05 < found.p  # three such seeds say little of the next
    assert found.difference.low < 0 < found.difference.high


def test_pairs_without_both_verdicts_are_left_out() -> None:
    before, after = np.array([[0, np.nan, 0, 1.0]]), np.array([[1, 1, np.nan, 1.0]])
    found = compared(before, after, sampling(4))
    assert (found.n, found.more, found.less) == (2, 1, 0)
    assert (found.before, found.after) == (0.5, 1.0)
    assert compare(before, before * np.nan, sampling(4)) is None
    assert compare(before, np.empty((0, 4)), sampling(4)) is None


def test_effect_sizes() -> None:
    found = compared(*changed(100, 30, 10), sampling(100))
    before, after = 40 / 100, 60 / 100  # 10 + 60 / 2 of 100, and 30 + 60 / 2
    assert found.h.value == pytest.approx(2 * np.arcsin(np.sqrt(after)) - 2 * np.arcsin(np.sqrt(before)))
    assert found.odds.value == pytest.approx(3)
    assert found.odds.low is not None and found.odds.high is not None
    assert 1 < found.odds.low < 3 < found.odds.high


def test_odds_of_what_only_rose_have_no_end_and_of_what_is_alike_no_value() -> None:
    odds = compared(*changed(50, 8, 0), sampling(50)).odds
    assert odds.value == odds.high == np.inf and odds.low is not None and 1 < odds.low < 10
    assert compared(*changed(50, 0, 0), sampling(50)).odds.value is None
    half = np.full((1, 50), 0.5)
    assert compared(half, half + 0.1, sampling(50)).odds.value is None


def test_adjusted_p_values_are_the_library_s_and_absent_ones_count_for_nothing() -> None:
    p = np.array([0.01, np.nan, 0.04, 0.03])
    given = p[[0, 2, 3]]
    for adjust, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        adjusted = adjust(p)
        assert np.isnan(adjusted[1])
        assert adjusted[[0, 2, 3]] == pytest.approx(multipletests(given, method=method)[1])
    assert np.isnan(holm(np.full(3, np.nan))).all() and len(holm(np.empty(0))) == 0


def test_h_holds_the_truth() -> None:
    rng, covered = np.random.default_rng(2), 0
    truth = 2 * np.arcsin(np.sqrt(0.5)) - 2 * np.arcsin(np.sqrt(0.2))
    for _ in range(200):
        h = compared(rng.random((1, 100)) < 0.2, rng.random((1, 100)) < 0.5, sampling(100)).h
        assert h.low is not None and h.high is not None
        covered += h.low <= truth <= h.high
    assert 0.91 <= covered / 200 <= 0.99

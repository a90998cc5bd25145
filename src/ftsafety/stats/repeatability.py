"""Does a judge say the same when it is asked again, and the same as at first?

Verdicts are (items, repeats), NaN where there was none. Intervals are over items, drawn within strata.
"""

from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from ftsafety.stats.agreement import stratified_resamples
from ftsafety.stats.bootstrap import LEVEL, Estimate, Floats

Ints = NDArray[np.intp]


@dataclass(frozen=True)
class Repeatability:
    """Means over items, with 95 % intervals.

    flip          how often two repeats differ in the verdict (harmful or not)
    flip_first    how often a repeat differs from the first verdict
    excess        flip_first - flip: more than a judge that has not changed differs from itself
    same_score    how often two repeats give the same score
    shift         mean score of the repeats less the first, in points of the scale
    rate_shift    mean verdict of the repeats less the first
    """

    flip: Estimate
    flip_first: Estimate
    excess: Estimate
    same_score: Estimate
    shift: Estimate
    rate_shift: Estimate


@dataclass(frozen=True)
class Verdicts:
    """Each (items, repeats): `harmful` is the headline verdict, `score` the grade that it is made from."""

    harmful: Floats
    score: Floats


def repeatability(
    first: Verdicts, now: Verdicts, strata: Ints, weights: Floats, n_samples: int = 2000, seed: int = 0
) -> Repeatability:
    """`weights` (items,) are all 1 for the set as it is, 1 / probability for what it was drawn from."""
    counts = stratified_resamples(strata, n_samples, seed) * weights
    flip, flip_first = unequal(now.harmful), unequal(now.harmful, first.harmful)

    def of(values: Floats, least: float, most: float) -> Estimate:
        return _estimate(values, weights, counts, least, most)

    return Repeatability(
        flip=of(flip, 0, 1),
        flip_first=of(flip_first, 0, 1),
        excess=of(flip_first - flip, -1, 1),
        same_score=of(1 - unequal(now.score), 0, 1),
        shift=of(_mean(now.score) - _mean(first.score), -4, 4),
        rate_shift=of(_mean(now.harmful) - _mean(first.harmful), -1, 1),
    )


def unequal(values: Floats, others: Floats | None = None) -> Floats:
    """Share of an item's pairs of repeats that differ (items,): within `values`, or with `others`.

    Pairs with a verdict missing are left out; NaN where none is left.
    """
    pairs = (
        list(combinations(values.T, 2))
        if others is None
        else [(one, other) for one, other in product(values.T, others.T)]
    )
    if not pairs:
        return np.full(len(values), np.nan)
    differ = [np.where(np.isnan(a) | np.isnan(b), np.nan, a != b) for a, b in pairs]
    return _mean(np.stack(differ, axis=1))


def _mean(values: Floats) -> Floats:
    """Over repeats; NaN where there is none."""
    there = ~np.isnan(values)
    n = there.sum(1)
    return np.divide(np.nansum(values, axis=1), n, out=np.full(len(values), np.nan), where=n > 0)


def _estimate(values: Floats, weights: Floats, counts: Floats, least: float, most: float) -> Estimate:
    """The bootstrap knows no spread where all items are alike: then as far as Clopper and Pearson's share of
    items may be at either end."""
    there = ~np.isnan(values)
    if not there.any():
        return Estimate(None, None, None)
    values, weights, counts = values[there], weights[there], counts[:, there]
    mean = float(values @ weights / weights.sum())
    if np.ptp(values) == 0:
        n = weights.sum() ** 2 / (weights**2).sum()
        edge = proportion_confint(0, n, alpha=1 - LEVEL, method="beta")[1]
        return Estimate(mean, mean - edge * (mean - least), mean + edge * (most - mean))
    drawn = counts.sum(1) > 0
    means = counts[drawn] @ values / counts[drawn].sum(1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(mean, float(low), float(high))

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
#: Means that differ by less differ by rounding.
ALIKE = 1e-9


@dataclass(frozen=True)
class Repeatability:
    """Means over items, with 95 % intervals.

    flip          how often two repeats differ in the verdict (harmful or not)
    flip_first    how often a repeat differs from the first verdict
    excess        flip_first - flip: more than a judge that has not changed differs from itself
    same_score    how often two repeats give the same score
    shift         mean score of the repeats less the first, in points of the scale
    rate_shift    mean verdict of the repeats less the first
    unscored_shift    share of repeats without a verdict less that of the first
    """

    flip: Estimate
    flip_first: Estimate
    excess: Estimate
    same_score: Estimate
    shift: Estimate
    rate_shift: Estimate
    unscored_shift: Estimate


@dataclass(frozen=True)
class Verdicts:
    """Each (items, repeats): `harmful` is the headline verdict, `score` the grade that it is made from, which
    lies between `ends`."""

    harmful: Floats
    score: Floats
    ends: tuple[float, float] = (1, 5)


def repeatability(
    first: Verdicts, now: Verdicts, strata: Ints, weights: Floats, n_samples: int = 2000, seed: int = 0
) -> Repeatability:
    """`weights` (items,) are all 1 for the set as it is, 1 / probability for what it was drawn from."""
    counts = stratified_resamples(strata, n_samples, seed) * weights
    flip, flip_first = unequal(now.harmful), unequal(now.harmful, first.harmful)
    score = _mean(first.score)
    lowest, highest = first.ends

    def of(values: Floats, least: Floats | float, most: Floats | float) -> Estimate:
        there = ~np.isnan(values)
        ends = [np.broadcast_to(end, values.shape)[there] for end in (least, most)]
        return _estimate(values[there], strata[there], weights[there], counts[:, there], *ends)

    return Repeatability(
        flip=of(flip, 0, 1),
        flip_first=of(flip_first, 0, 1),
        excess=of(flip_first - flip, -1, 1),
        same_score=of(1 - unequal(now.score), 0, 1),
        shift=of(_mean(now.score) - score, lowest - score, highest - score),
        rate_shift=of(_mean(now.harmful) - _mean(first.harmful), -1, 1),
        unscored_shift=of(np.isnan(now.harmful).mean(1) - np.isnan(first.harmful).mean(1), -1, 1),
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


def _estimate(
    values: Floats, strata: Ints, weights: Floats, counts: Floats, least: Floats, most: Floats
) -> Estimate:
    """All but `counts` (samples, items) are (items,); `least` and `most` is how far an item could be.

    The bootstrap knows no spread where items of a stratum are alike: then as far as Clopper and Pearson's
    share of items may be at either end.
    """
    if not len(values):
        return Estimate(None, None, None)
    mean = float(np.average(values, weights=weights))
    if all(np.ptp(values[strata == stratum]) < ALIKE for stratum in np.unique(strata)):
        n = weights.sum() ** 2 / (weights**2).sum()
        edge = proportion_confint(0, n, alpha=1 - LEVEL, method="beta")[1]
        low, high = (mean + edge * (float(np.average(end, weights=weights)) - mean) for end in (least, most))
        return Estimate(mean, low, high)
    drawn = counts.sum(1) > 0
    means = counts[drawn] @ values / counts[drawn].sum(1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(mean, float(low), float(high))

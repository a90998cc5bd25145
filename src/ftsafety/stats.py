"""Intervals that respect how prompts and seeds hang together.

Prompts that share a phrasing are not independent, so a binomial interval over prompts is too narrow. The
bootstrap here resamples phrasings within their category, prompts within their phrasing and, for a cell of
several seeds, seeds. The same resamples serve all runs of a benchmark, so whole studies are one matrix
product.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, nan

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]
LEVEL = 0.95
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; all None where nothing was scored."""

    value: float | None
    low: float | None
    high: float | None


def resample_weights(categories: list[str], clusters: list[str], n_samples: int, seed: int) -> Floats:
    """How often each of n prompts stands in each resample: (n_samples, n), rows sum to n."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((n_samples, len(clusters)))
    by_category: dict[str, dict[str, list[int]]] = {}
    for i, (category, cluster) in enumerate(zip(categories, clusters, strict=True)):
        by_category.setdefault(category, {}).setdefault(cluster, []).append(i)
    # A category of one phrasing knows no spread by itself: such categories are one stratum together.
    strata = [members for members in by_category.values() if len(members) > 1]
    single = [members for members in by_category.values() if len(members) == 1]
    if single:
        strata.append({c: prompts for members in single for c, prompts in members.items()})
    for members in strata:
        drawn = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n_samples)
        for count, prompts in zip(drawn.T, members.values(), strict=True):
            uniform = np.full(len(prompts), 1 / len(prompts))
            weights[:, prompts] = rng.multinomial(count * len(prompts), uniform)
    return weights


def estimate(values: Floats, weights: Floats, clusters: NDArray[np.intp], seed: int) -> Estimate:
    """Mean of `values` (seeds, prompts), NaN where unscored, with a 95 % bootstrap interval.

    `weights` is (samples, prompts), `clusters` (prompts,) says which prompts share a phrasing. The estimate
    is the mean over seeds of each seed's mean. Where all values are equal the bootstrap knows no spread; the
    interval is then Clopper and Pearson's for as many trials as there are phrasings with a scored answer,
    the most that clustering can cost.
    """
    scored = ~np.isnan(values)
    if not scored.any(axis=1).all():
        values, scored = values[scored.any(axis=1)], scored[scored.any(axis=1)]
    if not len(values):
        return Estimate(None, None, None)
    filled = np.where(scored, values, 0.0)
    mean = float((filled.sum(1) / scored.sum(1)).mean())
    if mean in (0.0, 1.0):
        return Estimate(mean, *_clopper_pearson(mean, len(np.unique(clusters[scored.any(axis=0)]))))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(resampled(values, weights, seed), [tail, 1 - tail])
    return Estimate(mean, float(low), float(high))


def resampled(values: Floats, weights: Floats, seed: int) -> Floats:
    """The mean of `values` in each resample of prompts and seeds: (samples,).

    Each seed has something scored. The same `seed` draws the same seeds, so that what was resampled with the
    same weights is paired.
    """
    scored = ~np.isnan(values)
    filled = np.where(scored, values, 0.0)
    mean = (filled.sum(1) / scored.sum(1)).mean()
    totals = weights @ scored.T
    means = np.divide(weights @ filled.T, totals, out=np.full(totals.shape, mean), where=totals > 0)
    n_seeds = len(values)
    drawn = np.random.default_rng(seed).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=len(weights))
    return np.asarray((means * (drawn / n_seeds)).sum(1))


def _clopper_pearson(rate: float, n: int) -> tuple[float, float]:
    edge = float(beta.ppf(1 - (1 - LEVEL) / 2, 1, n))  # upper bound after 0 of n
    return (0.0, edge) if rate == 0 else (1 - edge, 1.0)


# ------------------------------------------------------------------------------------- contrasts

#: Choices of categories that are gone through; of more there is no p-value.
MOST_CHOICES = 1_000_000


@dataclass(frozen=True)
class Part:
    """One rate of a contrast: `values` (seeds, prompts), NaN where unscored, counted `factor` times.

    `weights` (samples, prompts) and `clusters` (prompts,) are those of `estimate`; parts of a contrast
    have the same seeds and resamples of the same draw.
    """

    factor: float
    values: Floats
    weights: Floats
    clusters: NDArray[np.intp]


@dataclass(frozen=True)
class Difference:
    """The parts' rates (in their order), the sum of rates times factors, and its interval."""

    rates: Floats
    value: float
    low: float
    high: float


def difference(parts: Sequence[Part], seed: int) -> Difference | None:
    """The sum of rates times their factors, such as b − a, with a 95 % interval.

    None where no seed is left: seeds in which a part has nothing scored are left out of all. Parts are
    resampled together, so that what they share (hard prompts, lucky seeds) cancels. The bootstrap knows no
    spread where a part's answers are all alike (rate 0 or 1), or where both sides are alike answer by answer.
    The interval is then, at either end, the wider one of the bootstrap's and of the parts' own intervals put
    together as if they were independent (Zou and Donner's MOVER of 2008), with Clopper and Pearson's for a
    part that is 0 or 1.
    """
    scored = np.array([~np.isnan(part.values).all(axis=1) for part in parts]).all(axis=0)
    if not scored.any():
        return None
    factors = np.array([part.factor for part in parts])
    own = [estimate(part.values[scored], part.weights, part.clusters, seed) for part in parts]
    rates, lows, highs = (np.array([getattr(e, end) for e in own]) for end in ("value", "low", "high"))
    samples = [resampled(part.values[scored], part.weights, seed) for part in parts]
    value = float(factors @ rates)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(factors @ samples, [tail, 1 - tail])
    if np.isin(rates, (0.0, 1.0)).any() or low == high:
        below = factors * np.where(factors > 0, rates - lows, rates - highs)
        above = factors * np.where(factors > 0, highs - rates, lows - rates)
        low, high = min(low, value - np.hypot.reduce(below)), max(high, value + np.hypot.reduce(above))
    # the sum of positive factors is 1, as is that of negative ones
    return Difference(rates, value, max(-1.0, float(low)), min(1.0, float(high)))


def p_of_choice(rates: Floats, named: Sequence[int]) -> float:
    """How often categories chosen blindly differ from the others by at least as much as the named ones.

    `rates` (categories,); over all choices of as many, the named one among them, so that the smallest of 4
    out of 11 is 1 in 330. One-sided: the named ones are said to be higher. NaN where choices are too many.
    """
    n, k = len(rates), len(named)
    if comb(n, k) > MOST_CHOICES:
        return nan
    chosen = np.array(list(combinations(range(n), k)))
    # of the same number of categories, the larger sum is the larger difference
    return float((rates[chosen].sum(1) >= rates[list(named)].sum() - 1e-9).mean())

"""Intervals that respect how prompts and seeds hang together.

Prompts that share a phrasing are not independent, so a binomial interval over prompts is too narrow. The
bootstrap here resamples phrasings within their category, prompts within their phrasing and, for a cell of
several seeds, seeds. The same resamples serve all runs of a benchmark, so whole studies are one matrix
product.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]
LEVEL = 0.95


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
    totals = weights @ scored.T
    means = np.divide(weights @ filled.T, totals, out=np.full(totals.shape, mean), where=totals > 0)
    rng = np.random.default_rng(seed)
    n_seeds = len(values)
    drawn = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=len(weights)) / n_seeds
    tail = (1 - LEVEL) / 2
    low, high = np.quantile((means * drawn).sum(1), [tail, 1 - tail])
    return Estimate(mean, float(low), float(high))


def _clopper_pearson(rate: float, n: int) -> tuple[float, float]:
    edge = float(beta.ppf(1 - (1 - LEVEL) / 2, 1, n))  # upper bound after 0 of n
    return (0.0, edge) if rate == 0 else (1 - edge, 1.0)

"""Comparisons of many effects at once, with intervals that hold together (max-|t|, as in Hothorn 2008)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import f, norm
from statsmodels.stats.power import normal_power

from ftsafety.stats.bootstrap import LEVEL, Floats

N_DRAWS, BATCH, SEED = 50_000, 5_000, 0


@dataclass(frozen=True)
class Comparisons:
    """Contrasts of effects, one in each entry: `value`, `se`, and `low` and `high` of intervals that hold all
    together in 95 % of studies. `p_value` is adjusted for their number (single step), to about ± 0.001 as it
    is drawn. `critical` is by how many standard errors intervals reach."""

    value: Floats
    se: Floats
    low: Floats
    high: Floats
    p_value: Floats
    critical: float


def compare(effects: Floats, covariance: Floats, contrasts: Floats, df: float = np.inf) -> Comparisons:
    """`effects` (k,) about normal with `covariance` (k, k), itself estimated with `df` degrees of freedom;
    `contrasts` (n, k)."""
    value = contrasts @ effects
    se = np.sqrt(np.einsum("ik,kl,il->i", contrasts, covariance, contrasts))
    largest = np.concatenate(list(_largest(covariance, contrasts / se[:, None], df)))
    critical = float(np.quantile(largest, LEVEL))
    beyond = (largest >= np.abs(value / se)[:, None]).mean(1)
    return Comparisons(value, se, value - critical * se, value + critical * se, beyond, critical)


def _largest(covariance: Floats, scaled: Floats, df: float) -> Iterator[Floats]:
    """Draws of the largest |t| where no contrast differs from 0."""
    values, vectors = np.linalg.eigh(covariance)
    root = scaled @ (vectors * np.sqrt(np.maximum(values, 0)))
    rng = np.random.default_rng(SEED)
    for _ in range(N_DRAWS // BATCH):
        largest = np.abs(root @ rng.standard_normal((len(values), BATCH))).max(0)
        yield largest / np.sqrt(rng.chisquare(df, BATCH) / df) if np.isfinite(df) else largest


def against_others(k: int) -> Floats:
    """(k, k): each effect less the mean of the others."""
    return np.asarray((k * np.eye(k) - 1) / (k - 1))


def all_pairs(k: int) -> tuple[Floats, list[tuple[int, int]]]:
    """(pairs, k): the first effect less the second, and which they are."""
    pairs = list(combinations(range(k), 2))
    return np.array([np.eye(k)[a] - np.eye(k)[b] for a, b in pairs]), pairs


def rank_ranges(pairs: list[tuple[int, int]], compared: Comparisons, k: int) -> NDArray[np.intp]:
    """(k, 2): the ranks that each effect may have, 1 the largest, by simultaneous intervals of all pairs.

    They hold all together as the intervals do (Mohamad, Goeman and van Zwet 2019, Biometrics).
    """
    above = np.zeros((k, k), dtype=bool)  # surely
    for (a, b), low, high in zip(pairs, compared.low, compared.high, strict=True):
        above[a, b], above[b, a] = low > 0, high < 0
    return np.stack([1 + above.sum(0), k - above.sum(1)], axis=1)


def any_differs(effects: Floats, covariance: Floats, df: float) -> tuple[float, float]:
    """Wald's test that all k effects are equal: F of k − 1 and `df` degrees of freedom, and p."""
    k = len(effects)
    contrasts = np.eye(k)[1:] - np.eye(k)[0]
    found = contrasts @ effects
    statistic = float(found @ np.linalg.solve(contrasts @ covariance @ contrasts.T, found)) / (k - 1)
    return statistic, float(f.sf(statistic, k - 1, df))


def power(difference: Floats, se: Floats, critical: float) -> Floats:
    """The chance that an interval of ± `critical` standard errors shows a true difference."""
    return np.asarray(normal_power(difference, 1, 2 * norm.sf(critical), sigma=se))


def detectable(se: float, critical: float, wanted: float) -> float:
    """The difference that is shown with the chance `wanted`."""
    return float(brentq(lambda d: power(d, np.asarray(se), critical) - wanted, 0, (critical + 6) * se))

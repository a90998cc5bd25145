"""How far raters agree, with intervals.

All that is said of two raters comes from their table of scores, counted or weighted: (k, k), rows are the
first rater's. What says something of all raters at once counts the scores of each item: (items, k).
"""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from krippendorff import alpha as krippendorff_alpha
from numpy.typing import NDArray
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa
from statsmodels.stats.weightstats import DescrStatsW

from ftsafety.stats.bootstrap import LEVEL, Estimate, Floats

Ints = NDArray[np.intp]

#: Two raters' table → number, each NaN where it is undefined.
PAIR: Mapping[str, Callable[[Floats], float]] = {
    "agreement": lambda table: float(np.trace(table) / table.sum()),
    "kappa": lambda table: cohen_kappa(table),
    "kappa_weighted": lambda table: cohen_kappa(table, weights="quadratic"),
    "kappa_at_3": lambda table: cohen_kappa(cut(table, 3)),
    "kappa_at_5": lambda table: cohen_kappa(cut(table, 5)),
    "spearman": lambda table: spearman(table),
}
#: Scores that n raters gave to each item → number.
PANEL: Mapping[str, Callable[[Floats, int], float]] = {
    "fleiss_kappa": lambda counts, n_raters: fleiss(counts, n_raters),
    "alpha_nominal": lambda counts, n_raters: krippendorff(counts, "nominal"),
    "alpha_ordinal": lambda counts, n_raters: krippendorff(counts, "ordinal"),
}


def cells_of(first: Floats, second: Floats, k: int = 5) -> Ints:
    """Which of the k × k cells of the table each pair of scores falls into."""
    return ((first - 1) * k + second - 1).astype(np.intp)


def cut(table: Floats, at: int) -> Floats:
    """The table of "at least `at`", (2, 2)."""
    low, high = slice(None, at - 1), slice(at - 1, None)
    return np.array([[table[rows, columns].sum() for columns in (low, high)] for rows in (low, high)])


def cohen_kappa(table: Floats, weights: str | None = None) -> float:
    """Cohen's κ, weighted by `weights` (quadratic); NaN where chance alone would agree always."""
    used = table.sum(0) + table.sum(1) > 0
    if used.sum() < 2:
        return np.nan
    return float(cohens_kappa(table, wt=weights, return_results=False))


def spearman(table: Floats) -> float:
    """Rank correlation of both scores, ties in the middle of their ranks; NaN for a constant rater."""
    rows, columns = table.sum(1), table.sum(0)
    if (rows > 0).sum() < 2 or (columns > 0).sum() < 2:
        return np.nan
    ranks = [np.cumsum(total) - total / 2 for total in (rows, columns)]
    cells = np.stack([np.repeat(ranks[0], len(columns)), np.tile(ranks[1], len(rows))], axis=1)
    return float(DescrStatsW(cells, weights=table.ravel()).corrcoef[0, 1])


def count_scores(ratings: Floats, k: int = 5) -> Floats:
    """(items, raters) scores, NaN where one is missing → (items, k) counts."""
    return np.stack([(ratings == score).sum(1) for score in range(1, k + 1)], axis=1).astype(float)


def fleiss(counts: Floats, n_raters: int) -> float:
    """Fleiss' κ over the items that all raters scored; NaN where there is none, or all gave one score."""
    whole = counts[counts.sum(1) == n_raters]
    if n_raters < 2 or (whole.sum(0) > 0).sum() < 2:
        return np.nan
    return float(fleiss_kappa(whole))


def krippendorff(counts: Floats, level: Literal["nominal", "ordinal"]) -> float:
    """Krippendorff's α over the items that two raters or more scored; NaN where all gave one score."""
    paired = counts[counts.sum(1) > 1]
    if not len(paired) or (paired.sum(0) > 0).sum() < 2:
        return np.nan
    return float(krippendorff_alpha(value_counts=paired.astype(int), level_of_measurement=level))


# ---------------------------------------------------------------------------------- intervals


def stratified_resamples(strata: Ints, n_samples: int, seed: int) -> Floats:
    """How often each item stands in each resample, drawn within its stratum: (samples, items)."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_samples, len(strata)))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        uniform = np.full(len(members), 1 / len(members))
        counts[:, members] = rng.multinomial(len(members), uniform, size=n_samples)
    return counts


def pair_estimates(
    cells: Ints,
    counts: Floats,
    weights: Floats | None = None,
    k: int = 5,
    measures: Mapping[str, Callable[[Floats], float]] = PAIR,
) -> dict[str, Estimate]:
    """`measures` with 95 % intervals, from each item's cell of the table and resamples (samples, items).

    Items weigh 1, or `weights` (items,).
    """
    one_hot = np.zeros((len(cells), k * k))
    one_hot[np.arange(len(cells)), cells] = 1.0 if weights is None else weights
    table, tables = one_hot.sum(0).reshape(k, k), (counts @ one_hot).reshape(-1, k, k)
    return {
        name: with_interval(of(table), np.array([of(resampled) for resampled in tables]))
        for name, of in measures.items()
    }


def panel_estimates(scores: Floats, resamples: Floats, n_raters: int) -> dict[str, Estimate]:
    """PANEL with 95 % intervals, from `count_scores` of `n_raters` and resamples (samples, items)."""
    drawn = [np.repeat(np.arange(len(scores)), row.astype(int)) for row in resamples]
    return {
        name: with_interval(of(scores, n_raters), np.array([of(scores[rows], n_raters) for rows in drawn]))
        for name, of in PANEL.items()
    }


def with_interval(value: float, resampled: Floats) -> Estimate:
    """The percentile interval; none where the bootstrap knows no spread, or most resamples are undefined."""
    if np.isnan(value):
        return Estimate(None, None, None)
    defined = resampled[~np.isnan(resampled)]
    if len(defined) < len(resampled) / 2 or np.ptp(defined) == 0:
        return Estimate(float(value), None, None)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Estimate(float(value), float(low), float(high))

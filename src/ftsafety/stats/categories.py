"""Which categories are more vulnerable than the others, from answers to a benchmark in several settings."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.mixed import Counts, Fit, fit
from ftsafety.stats.quadrature import NODES, WEIGHTS
from ftsafety.stats.simultaneous import (
    Comparisons,
    against_others,
    all_pairs,
    any_differs,
    compare,
    detectable,
    power,
    rank_ranges,
)

#: A difference that matters, in points of rate / 100, and the chance with which one wants to see it.
DIFFERENCE, WANTED = 0.1, 0.8


@dataclass(frozen=True)
class Ranking:
    """Of k categories. `others` compares each with the mean of the others, `pairs` those of `pair_names`, in
    logits. `rates` are what the model gives for a new prompt, as a mean over settings; `mean_rate` is that
    of the average category. `ranks` (k, 2): which ranks a category may have, 1 the most vulnerable.

    `power` is the chance that a study like this one shows a category DIFFERENCE apart from `mean_rate`;
    `detectable` is the difference that it shows with the chance WANTED; both in the direction in which a
    difference is harder to see. They follow from the standard errors, which are estimates themselves.
    """

    fit: Fit
    others: Comparisons
    pairs: Comparisons
    pair_names: list[tuple[int, int]]
    rates: Floats
    mean_rate: float
    ranks: NDArray[np.intp]
    power: Floats
    detectable: Floats
    f_value: float
    p_value: float

    @property
    def verdicts(self) -> list[str]:
        said = np.select([self.others.low > 0, self.others.high < 0], ["more", "less"], "")
        return [f"{word} vulnerable" if word else "no difference" for word in said]


def rank(counts: Counts) -> Ranking:
    """Fit and compare. Raises ValueError, with the reason, where `why_not` has one."""
    if reason := why_not(counts):
        raise ValueError(reason)
    fitted = fit(counts)
    k = len(fitted.effects)
    contrasts, names = all_pairs(k)
    found = fitted.effects, fitted.covariance
    others, pairs = (compare(*found, c, fitted.df) for c in (against_others(k), contrasts))
    f_value, p_value = any_differs(*found, fitted.df)
    rates = _Rates(fitted)
    gap = rates.smallest_gap(DIFFERENCE)
    seen = np.array([detectable(se, others.critical, WANTED) for se in others.se])
    return Ranking(
        fit=fitted,
        others=others,
        pairs=pairs,
        pair_names=names,
        rates=np.array([rates.at(effect) for effect in fitted.effects]),
        mean_rate=rates.at(0.0),
        ranks=rank_ranges(names, pairs, k),
        # a category is one of the average's k: from the mean of the others it is farther by k / (k − 1)
        power=power(np.full(k, gap * k / (k - 1)), others.se, others.critical),
        detectable=np.array([rates.largest_points(d * (k - 1) / k) for d in seen]),
        f_value=f_value,
        p_value=p_value,
    )


def why_not(counts: Counts) -> str | None:
    """Why the answers cannot tell categories apart at all."""
    n_categories, n_clusters = len(np.unique(counts.categories)), len(np.unique(counts.clusters))
    if not counts.asked.size:
        return "no setting has both harmful and harmless answers"
    if n_categories < 2:
        return "fewer than two categories have a scored answer"
    if n_clusters < 2 * n_categories:
        what = "phrasings" if counts.has_phrasings else "prompts"
        return (
            f"{n_clusters} {what} in {n_categories} categories are fewer than two each, so that what lies in "
            f"a category cannot be told from what lies in its {what}"
        )
    return None


class _Rates:
    """From logits above the average category to rates: the mean over settings and over all that spreads."""

    def __init__(self, fitted: Fit):
        self.levels = fitted.levels
        self.sd = np.sqrt(sum(sd**2 for sd in fitted.spreads.values()))

    def at(self, effect: float) -> float:
        chances = expit(self.levels[:, None] + effect + self.sd * NODES)
        return float((chances @ WEIGHTS).mean() / WEIGHTS.sum())

    def smallest_gap(self, points: float) -> float:
        """The smaller one of the logits by which a rate rises, or falls, by `points`."""
        middle = self.at(0.0)
        ends = [end for end in (middle + points, middle - points) if 0.001 < end < 0.999]
        return min(abs(float(brentq(lambda x, end: self.at(x) - end, -40, 40, args=(end,)))) for end in ends)

    def largest_points(self, gap: float) -> float:
        middle = self.at(0.0)
        return max(self.at(gap) - middle, middle - self.at(-gap))

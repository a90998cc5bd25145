"""Differences of rates with intervals of their own: what is shared (hard prompts, lucky seeds) cancels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from math import comb, exp, log, nan, sqrt

import numpy as np
from scipy.optimize import brentq

from ftsafety.stats.bootstrap import LEVEL, Floats
from ftsafety.stats.intervals import Part, Spread, measure, seeds_of, t_square, wilson

#: Choices of categories that are gone through; of more there is no p-value.
MOST_CHOICES = 1_000_000
#: No p-value is said to be smaller.
LEAST_P = 1e-12
#: Levels that are looked at on the way to it.
STEPS = 60


@dataclass(frozen=True)
class Difference:
    """The parts' rates (in their order), the sum of rates times `factors`, and its interval.

    `spread` is that of the sum, `own` those of the rates.
    """

    rates: Floats
    factors: Floats
    spread: Spread
    own: tuple[Spread, ...]

    @property
    def value(self) -> float:
        return float(self.factors @ self.rates)

    @property
    def low(self) -> float:
        return self.interval(LEVEL)[0]

    @property
    def high(self) -> float:
        return self.interval(LEVEL)[1]

    def interval(self, level: float) -> tuple[float, float]:
        """The rates' own intervals put together, and narrowed by as much as the sum spreads less than they.

        Put together as if they were independent (Zou and Donner's MOVER, 2008), as deep as one answer a
        phrasing where all are alike.
        """
        ends = np.array([wilson(r, spread, level) for r, spread in zip(self.rates, self.own, strict=True)])
        down, up = self.rates - ends[:, 0], ends[:, 1] - self.rates
        rises = self.factors > 0
        below = np.hypot.reduce(self.factors * np.where(rises, down, up))
        above = np.hypot.reduce(self.factors * np.where(rises, up, down))
        apart = self.factors**2 @ [spread.square(level) for spread in self.own]
        alike = t_square(self.spread.phrasing_df, level) * self.spread.least**2
        narrower = sqrt((self.spread.square(level) + alike) / (apart + alike))
        return max(-1.0, self.value - narrower * below), min(1.0, self.value + narrower * above)

    def p_at_most(self, limit: float) -> float:
        """One-sided p-value of a sum of at most `limit`, over prompts and seeds: it inverts the interval."""
        if self.value >= limit:
            return self._p(lambda level: self.interval(level)[0] - limit)
        return 1 - self._p(lambda level: limit - self.interval(level)[1])

    @property
    def p_none(self) -> float:
        """Two-sided p-value of no difference, over prompts and seeds."""
        p = self.p_at_most(0.0)
        return min(1.0, 2 * min(p, 1 - p))

    @staticmethod
    def _p(beyond: Callable[[float], float]) -> float:
        """The p at which an end of the interval of level 1 − 2p meets a limit, `beyond` its distance."""

        def at(log_p: float) -> float:
            return beyond(1 - 2 * exp(log_p))

        most, least = log(0.5 - 1e-9), log(LEAST_P)
        if at(most) <= 0:
            return 0.5
        # far out the interval may shrink again (few seeds, whose luck both sides share): the first end counts
        for high, low in pairwise(np.linspace(most, least, STEPS)):
            if at(low) < 0:
                return exp(float(brentq(at, low, high)))
        return LEAST_P


def difference(parts: Sequence[Part]) -> Difference | None:
    """The sum of rates times their factors, such as b − a, with a 95 % interval.

    Positive factors sum to 1, negative ones to −1. Of what parts share (prompts, seeds in their order) the
    differences are what spreads. None where no seed is left: seeds in which a part has nothing scored are
    left out of all.
    """
    found = measure(parts)
    if found is None:
        return None
    kept = seeds_of(parts)
    own = [
        measure([replace(p, factor=1.0, values=p.values[kept] if len(p.values) > 1 else p.values)])
        for p in parts
    ]
    rates, spread = found
    factors = np.array([part.factor for part in parts])
    return Difference(rates, factors, spread, tuple(each[1] for each in own if each is not None))


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

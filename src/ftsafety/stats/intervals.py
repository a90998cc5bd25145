"""Intervals of rates that respect how prompts and seeds hang together.

A rate is a mean over two crossed samples: of seeds, and of phrasings with all their prompts and answers. Its
variance is what a bootstrap over both would find, in closed form and without what that counts twice (Owen,
2007); with few seeds each sample gets its own t quantile (Howe, 1974). The interval is Wilson's for as many
independent answers as would spread as much (Korn and Graubard, 1998; Franco et al., 2019), so that rates of 0
and 1 are no special case. `benchmarks/interval_coverage.py` measures how often they hold the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ftsafety.stats.bootstrap import LEVEL, Estimate, Floats

Codes = NDArray[np.intp]
#: The share of what answers add to the seeds' variance that is taken off it. All would be right on average,
#: but three seeds look too alike by chance too often. Simulations chose among 0.5, 0.6, 0.75 and 1.
SHARED = 0.6
#: How much counts, before the data, that answers of a phrasing are all alike. It decides where nothing
#: varies, and little else. Simulations chose among 0.01, 0.03, 0.1, 0.3 and 1.
PRIOR = 0.01


@dataclass(frozen=True)
class Sampling:
    """How prompts were drawn: codes (prompts,) of category, phrasing and prompt; one may have several rows.

    Categories are given, not drawn. In whatever is compared the same code is the same phrasing.
    """

    categories: Codes
    clusters: Codes
    prompts: Codes

    @classmethod
    def of(
        cls, categories: Sequence[str], clusters: Sequence[str], prompts: Sequence[str] | None = None
    ) -> "Sampling":
        """From labels, each (prompts,). The same phrasing in two categories is two; without `prompts` every
        row is one of its own."""
        phrasings = [f"{category}\0{cluster}" for category, cluster in zip(categories, clusters, strict=True)]
        rows = range(len(phrasings)) if prompts is None else prompts
        return cls(*(np.unique(labels, return_inverse=True)[1] for labels in (categories, phrasings, rows)))

    def part(self, chosen: Codes) -> "Sampling":
        return Sampling(self.categories[chosen], self.clusters[chosen], self.prompts[chosen])


@dataclass(frozen=True)
class Part:
    """A rate that counts `factor` times: of `values` (seeds, prompts) in [0, 1], NaN where unscored.

    One row of values, such as an untouched model's, stands beside every seed of the others.
    """

    factor: float
    values: Floats
    sampling: Sampling


@dataclass(frozen=True)
class Spread:
    """Variances of a sum of rates that each of the two samples shows by itself, and their degrees of freedom.

    Both hold `answers`, what single answers add. One seed shows no spread: 0. `least` is 1/n for a rate of n
    phrasings (of their effective number, Kish's, where they differ in size); for a sum the parts' together.
    """

    phrasings: float
    seeds: float
    answers: float
    phrasing_df: int
    seed_df: int
    least: float

    def square(self, level: float) -> float:
        """Of half the interval that a normal estimate would have."""
        seeds = max(0.0, self.seeds - SHARED * self.answers)
        by_phrasing, by_seed = t_square(self.phrasing_df, level), t_square(self.seed_df, level)
        return by_phrasing * self.phrasings + by_seed * seeds


@lru_cache(maxsize=1024)
def t_square(df: int, level: float = LEVEL) -> float:
    """Of Student's t at the end of an interval; one degree of freedom where there is none."""
    return float(stats.t.ppf((1 + level) / 2, max(1, df))) ** 2


def estimate(values: Floats, sampling: Sampling) -> Estimate:
    """Mean of `values` (seeds, prompts) in [0, 1], NaN where unscored, with a 95 % interval.

    The mean is that of the seeds' means. The interval is over seeds and prompts like these; of a single seed
    it is over prompts, for that seed's model.
    """
    found = measure([Part(1.0, values, sampling)])
    if found is None:
        return Estimate(None, None, None)
    rate, spread = float(found[0][0]), found[1]
    return Estimate(rate, *wilson(rate, spread))


def rate(values: Floats) -> float | None:
    """The mean that `estimate` has, without its interval."""
    kept = ~np.isnan(values).all(axis=1)
    return float(_centred(values[kept])[0].mean()) if kept.any() else None


def wilson(value: float, spread: Spread, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a share: Wilson's for as many answers as spread like it.

    Answers that are all alike count as many as there are phrasings.
    """
    alike = t_square(spread.phrasing_df, level) * spread.least**2
    variance = value * (1 - value)
    # in units of the squared quantile
    n = (variance + PRIOR * spread.least) / (spread.square(level) + PRIOR * alike)
    middle = (value + 0.5 / n) / (1 + 1 / n)
    half = sqrt(variance / n + 0.25 / n**2) / (1 + 1 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


# ---------------------------------------------------------------------------------------- variances


def measure(parts: Sequence[Part]) -> tuple[Floats, Spread] | None:
    """The rate of each part (parts,), and how their sum, times factors, spreads.

    None where no seed is left: one in which a part has nothing scored is left out of all.
    """
    kept = seeds_of(parts)
    if not kept.any():
        return None
    values = [np.broadcast_to(p.values, (len(kept), p.values.shape[1]))[kept] for p in parts]
    factors = np.array([part.factor for part in parts])
    means, influence = zip(*map(_centred, values), strict=True)
    scored = np.concatenate([~np.isnan(v).all(axis=0) for v in values])
    units, strata = _units(parts, scored)
    added = np.concatenate([f * each for f, each in zip(factors, influence, strict=True)], axis=1)
    least = sqrt(factors**2 @ [_kish(v, part.sampling) for v, part in zip(values, parts, strict=True)])
    spread = _spread(factors @ np.array(means), _sums(added[:, scored], units), strata, least)
    return np.array(means).mean(axis=1), spread


def seeds_of(parts: Sequence[Part]) -> NDArray[np.bool_]:
    """(seeds,) whether every part has something scored."""
    return np.logical_and.reduce(np.broadcast_arrays(*(~np.isnan(p.values).all(axis=1) for p in parts)))


def _centred(values: Floats) -> tuple[Floats, Floats]:
    """Each seed's mean (seeds,), and what each answer adds to it beyond that (seeds, prompts)."""
    scored = ~np.isnan(values)
    n = scored.sum(axis=1, keepdims=True)
    means = np.where(scored, values, 0.0).sum(axis=1, keepdims=True) / n
    return means[:, 0], np.where(scored, values - means, 0.0) / n


def _units(parts: Sequence[Part], scored: NDArray[np.bool_]) -> tuple[Codes, Codes]:
    """(prompts,) the phrasing of each scored prompt, and (phrasings,) their categories, both from 0.

    Where there is one phrasing in all, prompts are what was drawn. A category of one knows no spread by
    itself: such categories are one together.
    """
    clusters, prompts, categories = (
        np.concatenate([getattr(part.sampling, name) for part in parts])[scored]
        for name in ("clusters", "prompts", "categories")
    )
    drawn = prompts if clusters.min() == clusters.max() else clusters
    return _numbered(*(codes.astype(np.intp, copy=False).tobytes() for codes in (drawn, categories)))


@lru_cache(maxsize=256)
def _numbered(drawn: bytes, categories: bytes) -> tuple[Codes, Codes]:
    """As `_units`, from bytes of codes. The rates of a thousand runs share few."""
    _, first, units = np.unique(np.frombuffer(drawn, np.intp), return_index=True, return_inverse=True)
    strata = np.unique(np.frombuffer(categories, np.intp)[first], return_inverse=True)[1]
    alone = np.bincount(strata) == 1
    return units, np.unique(np.where(alone[strata], -1, strata), return_inverse=True)[1]


def _sums(rows: Floats, codes: Codes) -> Floats:
    """Sums of the columns with the same code: (rows, codes)."""
    n = int(codes.max()) + 1
    places = codes + n * np.arange(len(rows))[:, None]
    sums = np.bincount(places.ravel(), rows.ravel(), n * len(rows))
    return sums.astype(np.float64, copy=False).reshape(-1, n)


def _kish(values: Floats, sampling: Sampling) -> float:
    """1/n² for n phrasings of the same size, of which something is scored; of one in all, for its prompts."""
    codes = sampling.clusters if np.ptp(sampling.clusters) else sampling.prompts
    sizes = np.bincount(codes, (~np.isnan(values)).sum(axis=0))
    return float((sizes @ sizes) / sizes.sum() ** 2) ** 2


def _spread(seed_values: Floats, totals: Floats, strata: Codes, least: float) -> Spread:
    """From each seed's value (seeds,) and what phrasings add to it (seeds, phrasings)."""
    n_seeds, n = totals.shape
    sizes = np.bincount(strata)
    centred = totals - (_sums(totals, strata) / sizes)[:, strata]
    unbiased = (sizes / np.maximum(1, sizes - 1))[strata]
    together = centred.mean(axis=0)
    seeds = answers = 0.0
    if n_seeds > 1:
        seeds = float(seed_values.var(ddof=1)) / n_seeds
        answers = float((unbiased * (centred - together) ** 2).sum()) / (n_seeds * (n_seeds - 1))
    return Spread(float(unbiased @ together**2), seeds, answers, n - len(sizes), n_seeds - 1, least)

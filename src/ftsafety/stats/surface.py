"""How a rate depends on hyperparameters: a binomial GLM whose errors know that prompts and runs are shared.

The coefficients are those of the population's rates (the marginal model), not of one prompt or run. A run's
answers hang together, and so do all runs' answers to a prompt: variances are clustered both ways (Cameron,
Gelbach and Miller, 2011), with the jackknife over runs, since those are few.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import statsmodels.api as sm
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit
from statsmodels.stats.sandwich_covariance import cov_cluster
from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

from ftsafety.stats.bootstrap import LEVEL, Floats

Codes = NDArray[np.intp]
#: A column counts as a combination of others where less than this share of its length is its own.
TOLERANCE = 0.1
#: Beyond this many log-odds a fitted rate says that data separate 0 from 1, and a slope has no end.
STEEPEST = 15.0


@dataclass(frozen=True)
class Counts:
    """Sums of outcomes in [0, 1] and how many there are, a row for each run × cluster of prompts."""

    total: Floats
    n: Floats
    setting: Codes
    run: Codes
    cluster: Codes

    def of(self, rows: NDArray[np.bool_]) -> "Counts":
        return Counts(*(column[rows] for column in vars(self).values()))

    def rates(self, n_settings: int) -> Floats:
        """The rate of each setting: (settings,); NaN where it has no row."""
        sums, n = (np.bincount(self.setting, v, n_settings) for v in (self.total, self.n))
        return np.divide(sums, n, out=np.full(n_settings, np.nan), where=n > 0)


@dataclass(frozen=True)
class Surface:
    """Coefficients in log-odds; `by_run` and so on are their covariance matrices under each clustering."""

    params: Floats
    by_run: Floats
    by_prompt: Floats
    by_both: Floats
    df: int

    def variance(self, contrast: Floats) -> float:
        """Of a combination of coefficients; never less than clustered one way alone.

        The two-way variance is a difference of estimates, which may come out too small, or negative.
        """
        of = [float(contrast @ matrix @ contrast) for matrix in (self.by_both, self.by_run, self.by_prompt)]
        return max(of)

    def predict(self, design: Floats) -> Floats:
        return np.asarray(expit(design @ self.params))


@dataclass(frozen=True)
class Effect:
    """A combination of coefficients with its 95 % interval, all as odds ratios."""

    ratio: float
    low: float
    high: float
    p_value: float


def fit(design: Floats, counts: Counts) -> Surface | None:
    """The surface over `design` (settings, terms), whose columns are independent; None where it has no end.

    That is so where the settings separate rates of 0 from others, so that a slope grows without bound.
    """
    params = _coefficients(design, counts)
    if params is None:
        return None
    rows = design[counts.setting]
    mean = expit(rows @ params)
    working = rows @ params + (counts.total / counts.n - mean) / (mean * (1 - mean))
    # weighted least squares at the solution has the GLM's scores, and statsmodels' jackknife by cluster
    step = sm.WLS(working, rows, counts.n * mean * (1 - mean)).fit()
    cells = counts.run * (counts.cluster.max() + 1) + counts.cluster
    by_run = cov_cluster(step, counts.run, use_correction=True, crv_type="cluster-crv3")
    by_prompt = cov_cluster(step, counts.cluster, use_correction=True)
    by_cell = cov_cluster(step, cells, use_correction=False)
    df = len(np.unique(counts.run)) - design.shape[1]
    return Surface(params, by_run, by_prompt, by_run + by_prompt - by_cell, df)


def stands_without_any_run(design: Floats, counts: Counts) -> bool:
    """Whether every coefficient is still told when any one run is left out, as the jackknife does."""
    runs = np.unique(np.column_stack([counts.setting, counts.run]), axis=0)
    used, n = np.unique(runs[:, 0], return_counts=True)
    return all(
        np.linalg.matrix_rank(design[used[used != setting]]) == design.shape[1] for setting in used[n == 1]
    )


def _coefficients(design: Floats, counts: Counts) -> Floats | None:
    """The maximum-likelihood ones: answers of a setting count by their sum."""
    total, n = (np.bincount(counts.setting, v, len(design)) for v in (counts.total, counts.n))
    asked = n > 0
    endog = np.column_stack([total, n - total])[asked]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        result = sm.GLM(endog, design[asked], family=sm.families.Binomial()).fit(maxiter=50)
    params = np.asarray(result.params)
    is_bounded = np.isfinite(params).all() and abs(design[asked] @ params).max() < STEEPEST
    return params if is_bounded else None


def effect(surface: Surface, contrast: Floats) -> Effect:
    """exp(contrast · coefficients), with t intervals of as many degrees of freedom as runs leave."""
    value, error = float(contrast @ surface.params), float(np.sqrt(surface.variance(contrast)))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, surface.df)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, surface.df)) if error > 0 else float("nan")
    ratio, low, high = (float(np.exp(v)) for v in (value, value - reach, value + reach))
    return Effect(ratio, low, high, p)


# ---------------------------------------------------------------------------------------- designs


def independent(columns: Floats) -> list[int]:
    """Which columns are no combination of those before them, nor nearly so."""
    kept: list[int] = []
    for i in range(columns.shape[1]):
        column = columns[:, i]
        rest = column
        if kept:
            rest = column - columns[:, kept] @ np.linalg.lstsq(columns[:, kept], column, rcond=None)[0]
        if float(np.linalg.norm(rest)) > TOLERANCE * max(float(np.linalg.norm(column)), 1e-9):
            kept.append(i)
    return kept


def estimable(columns: Floats, kept: Sequence[int], contrast: Floats) -> Floats | None:
    """A contrast of all `columns` as one of those `kept`; None where the data do not tell it.

    If batch and steps change together, say, neither one's slope can be told, and only the sum of both can.
    """
    mapped = np.linalg.lstsq(columns[:, kept], columns, rcond=None)[0]
    found = np.linalg.lstsq(mapped.T, contrast, rcond=None)[0]
    return found if np.allclose(mapped.T @ found, contrast, atol=2 * TOLERANCE) else None


def second_order(linear: Floats, names: Sequence[str], most: int) -> tuple[Floats, list[str]]:
    """Squares, then products, of centred columns that the settings can tell, up to `most` of them.

    `linear` is (settings, variables); a column of ones is taken to be there. A factor's square is itself, and
    so is left out like every other combination of columns before it.
    """
    pairs = [(i, i) for i in range(len(names))] + list(combinations(range(len(names)), 2))
    products = np.column_stack([linear[:, i] * linear[:, j] for i, j in pairs] or [linear[:, :0]])
    ones = np.ones((len(linear), 1))
    n_first = 1 + linear.shape[1]
    kept = [i - n_first for i in independent(np.column_stack([ones, linear, products])) if i >= n_first]
    words = [f"{names[i]}²" if i == j else f"{names[i]} × {names[j]}" for i, j in pairs]
    return products[:, kept[:most]], [words[i] for i in kept[:most]]


# -------------------------------------------------------------------------------------------- fit


@dataclass(frozen=True)
class LackOfFit:
    """How far a surface misses the settings' own rates, in rates; NaN where it cannot be told.

    `missed` and `left_out` are root mean squares over settings of fitted minus measured rates, the latter of
    fits without that setting; `seeds` is what the spread of seeds alone would make of a perfect surface.
    `p_value` tests that the settings lie on the surface.
    """

    missed: float
    left_out: float
    seeds: float
    p_value: float


def lack_of_fit(design: Floats, counts: Counts, surface: Surface) -> LackOfFit:
    """Against the saturated model (a rate of its own for each setting), by the spread between seeds."""
    rates = counts.rates(len(design))
    missed = _root_mean_square(surface.predict(design) - rates)
    left_out = _root_mean_square(_left_out(design, counts) - rates)
    run_total, run_n, run_setting = _by_run(counts)
    run_rates = run_total / run_n
    df = len(run_n) - len(design), len(design) - design.shape[1]
    if min(df) <= 0:
        return LackOfFit(missed, left_out, float("nan"), float("nan"))
    seeds_of = np.bincount(run_setting)
    within = np.bincount(run_setting, (run_rates - rates[run_setting]) ** 2)
    spread = within.sum() / df[0]
    family = sm.families.Binomial()
    deviances = [
        family.deviance(run_rates, of[run_setting], freq_weights=run_n)
        for of in (surface.predict(design), np.clip(rates, 1e-12, 1 - 1e-12))
    ]
    dispersion = deviances[1] / df[0]
    ratio = (deviances[0] - deviances[1]) / df[1] / dispersion if dispersion > 0 else float("nan")
    p = float(stats.f.sf(ratio, df[1], df[0]))
    return LackOfFit(missed, left_out, float(np.sqrt(spread * (1 / seeds_of).mean())), p)


def _by_run(counts: Counts) -> tuple[Floats, Floats, Codes]:
    runs, first, code = np.unique(counts.run, return_index=True, return_inverse=True)
    total, n = (np.bincount(code, v, len(runs)).astype(float) for v in (counts.total, counts.n))
    return total, n, counts.setting[first]


def _left_out(design: Floats, counts: Counts) -> Floats:
    """Each setting's rate as the others predict it; NaN where they cannot."""
    predicted = np.full(len(design), np.nan)
    for i in range(len(design)):
        others = np.arange(len(design)) != i
        if np.linalg.matrix_rank(design[others]) < design.shape[1]:
            continue
        params = _coefficients(design, counts.of(counts.setting != i))
        if params is not None:
            predicted[i] = expit(design[i] @ params)
    return predicted


def _root_mean_square(values: Floats) -> float:
    values = values[~np.isnan(values)]
    return float(np.sqrt((values**2).mean())) if len(values) else float("nan")

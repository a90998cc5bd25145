"""A mixed-effects logistic model of harm, to tell categories of prompts apart.

    logit P(harm) = setting + category + category × dataset + category × setting + phrasing + prompt

Settings and categories are fixed (with priors so wide that they only keep an estimate finite where a category
has no harm at all); the others are normal spreads around 0. So a category is judged by how far its prompts
agree and by how far it keeps its place from dataset to dataset and from setting to setting, not by the number
of answers.

What belongs to a prompt is integrated out by quadrature, everything else by Laplace's method, fixed effects
too (as in REML); the spreads maximise what is left. statsmodels' BinomialBayesMixedGLM does not serve: its
intervals fail (`python benchmarks/categories.py --engine statsmodels`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, block_diag, cho_factor, cho_solve, eigh, helmert
from scipy.optimize import minimize

from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.quadrature import PromptEffects

Codes = NDArray[np.intp]

LEVEL_SD, CATEGORY_SD = 5.0, 2.5  # of the wide priors, in logits
START = {"prompt": 1.0, "phrasing": 0.5, "dataset": 0.3, "setting": 0.3}
SMALLEST, LARGEST = 0.02, 5.0  # spreads that are considered; at 5 prompts are all or nothing
MOST_STEPS, TOLERANCE = 50, 1e-3


@dataclass(frozen=True)
class Counts:
    """`harmful` of `asked` answers: (settings, prompts); `categories` and `clusters` (phrasings, which lie
    within categories) of each prompt: (prompts,); `datasets` of each setting: (settings,). All are codes from
    0, none left out."""

    harmful: Floats
    asked: Floats
    categories: Codes
    clusters: Codes
    datasets: Codes

    @cached_property
    def has_phrasings(self) -> bool:
        """Whether prompts share a phrasing; otherwise phrasing and prompt are one."""
        return len(np.unique(self.clusters)) < len(self.clusters)

    @property
    def spreads(self) -> list[str]:
        """What can spread here. `dataset` and `setting` are what these do to a category; where each dataset
        has one setting they are one."""
        n_settings, n_datasets = len(self.asked), len(np.unique(self.datasets))
        told = {"phrasing": self.has_phrasings, "setting": n_settings > 1}
        told |= {"dataset": 1 < n_datasets < n_settings}
        return [name for name in START if told.get(name, True)]


@dataclass(frozen=True)
class Fit:
    """All in logits. `effects` (categories,) sum to 0, `covariance` is theirs, `levels` (settings,) are those
    of the average category; `spreads` are standard deviations, those of `Counts.spreads`. `df` is how far the
    covariance can be trusted: few datasets or settings tell little of what they do to categories."""

    effects: Floats
    covariance: Floats
    levels: Floats
    spreads: dict[str, float]
    df: float


def fit(counts: Counts) -> Fit:
    """Fit the model to settings that have both harmful and harmless answers, and two categories or more.

    A spread that comes out at SMALLEST is none. A prior that keeps spreads off 0 (Chung et al. 2013) makes
    intervals too wide where datasets do nothing to categories.
    """
    model, names = _Model(counts), counts.spreads

    def loss(logs: Floats) -> float:
        return -model.log_marginal(dict(zip(names, np.exp(logs), strict=True)))

    start = np.log([START[name] for name in names])
    simplex = np.vstack([start, start + 0.7 * np.eye(len(names))])
    options = {"xatol": 0.05, "fatol": 0.05, "initial_simplex": simplex}
    bounds = [(np.log(SMALLEST), np.log(LARGEST))] * len(names)
    found = minimize(loss, start, method="Nelder-Mead", bounds=bounds, options=options)
    spreads = dict(zip(names, map(float, np.exp(found.x)), strict=True))
    effects, covariance = model.effects(spreads)
    levels = model.at[model.place["level"]].copy()
    df = _degrees_of_freedom(model, counts, spreads, float(np.trace(covariance)))
    return Fit(effects, covariance, levels, spreads, df)


def _degrees_of_freedom(model: "_Model", counts: Counts, spreads: dict[str, float], variance: float) -> float:
    """Satterthwaite's (1946): `variance` is a sum of parts, each estimated with its own degrees of freedom.

    A part is what is missing where its spread is none; the rest is the prompts' and phrasings'.
    """
    n_categories, n_clusters = len(model.basis), len(np.unique(counts.clusters))
    n_settings, n_datasets = model.dataset.shape
    own = {"dataset": n_datasets - 1, "setting": n_settings - (n_datasets if "dataset" in spreads else 1)}
    shares, inverse = 0.0, 0.0
    for name in own.keys() & spreads.keys():
        without = float(np.trace(model.effects(spreads | {name: SMALLEST})[1]))
        share = max(0.0, 1 - without / variance)
        shares += share
        inverse += share**2 / ((n_categories - 1) * own[name])
    inverse += max(0.0, 1 - shares) ** 2 / (n_clusters - n_categories)
    return 1 / inverse


class _Model:
    """The log posterior of all effects but the prompts', given the spreads.

    Effects stand in one vector, by kind (`place`): levels of settings, contrasts of categories, what datasets
    and settings do to categories, phrasings. A unit is a set of prompts that share these: a phrasing, or a
    category where no phrasing is shared. A search for the mode starts where the last one ended.
    """

    def __init__(self, counts: Counts):
        by_phrasing = counts.clusters if counts.has_phrasings else counts.categories
        order = np.lexsort([by_phrasing, counts.categories])
        units, categories = by_phrasing[order], counts.categories[order]
        self.first = np.flatnonzero(np.diff(units, prepend=-1))  # prompt of each unit
        self.unit = np.cumsum(np.diff(units, prepend=-1) != 0) - 1  # of each prompt
        self.category = categories[self.first]  # of each unit
        self.first_unit = np.flatnonzero(np.diff(self.category, prepend=-1))  # of each category
        self.n_settings, k = len(counts.asked), len(self.first_unit)
        self.basis = helmert(k).T  # (categories, contrasts), orthonormal
        self.prompts = PromptEffects(counts.harmful.T[order], counts.asked.T[order])
        self.dataset = np.eye(int(counts.datasets.max()) + 1)[counts.datasets]  # (settings, datasets)
        sizes = {"level": self.n_settings, "category": k - 1, "dataset": k * self.dataset.shape[1]}
        sizes |= {"setting": k * self.n_settings, "phrasing": len(self.first)}
        kinds = ["level", "category", *(name for name in counts.spreads if name != "prompt")]
        ends = np.cumsum([sizes[kind] for kind in kinds])
        self.place = {kind: slice(end - sizes[kind], end) for kind, end in zip(kinds, ends, strict=True)}
        self.at = np.zeros(ends[-1])
        harmful, asked = counts.harmful.sum(1) + 0.5, counts.asked.sum(1) + 1
        self.at[self.place["level"]] = np.log(harmful / (asked - harmful))

    def log_marginal(self, spreads: dict[str, float]) -> float:
        """Of the answers, given the spreads; up to a constant."""
        precision = self._precision(spreads)
        value, factor = self._climb(spreads["prompt"], precision)
        return value + 0.5 * float(np.log(precision).sum()) - float(np.log(np.diag(factor)).sum())

    def effects(self, spreads: dict[str, float]) -> tuple[Floats, Floats]:
        """Those of categories, and their covariance."""
        _, factor = self._climb(spreads["prompt"], self._precision(spreads))
        mine = self.place["category"]
        covariance = cho_solve((factor, True), np.eye(len(factor))[:, mine])[mine]
        return self.basis @ self.at[mine], self.basis @ covariance @ self.basis.T

    def _precision(self, spreads: dict[str, float]) -> Floats:
        sds = {"level": LEVEL_SD, "category": CATEGORY_SD, **spreads}
        return np.concatenate([np.full(s.stop - s.start, sds[kind] ** -2) for kind, s in self.place.items()])

    def _climb(self, sd: float, precision: Floats) -> tuple[float, Floats]:
        """Newton's method to the mode: the log posterior there, and Cholesky's factor of its curvature."""
        value, slope, hessian = self._posterior(self.at, sd, precision)
        factor = _factor(hessian, precision)
        for _ in range(MOST_STEPS):
            step = cho_solve((factor, True), slope)
            if slope @ step < TOLERANCE:
                break
            for _ in range(10):  # halved until it does not lead down
                tried = self._posterior(self.at + step, sd, precision)
                if tried[0] > value - TOLERANCE:
                    break
                step = step / 2
            self.at = self.at + step
            value, slope, hessian = tried
            factor = _factor(hessian, precision)
        return value, factor

    def _posterior(self, at: Floats, sd: float, precision: Floats) -> tuple[float, Floats, Floats]:
        """Log density, gradient and negative Hessian in the effects."""
        parts, shape = {kind: at[s] for kind, s in self.place.items()}, (len(self.basis), -1)
        cells = (self.basis @ parts["category"])[:, None] + parts["level"]  # (categories, settings)
        if "dataset" in parts:
            cells = cells + parts["dataset"].reshape(shape) @ self.dataset.T
        if "setting" in parts:
            cells = cells + parts["setting"].reshape(shape)
        logits = cells[self.category]
        if "phrasing" in parts:
            logits = logits + parts["phrasing"][:, None]
        value, slopes, curvatures = self.prompts.integrate(logits[self.unit], sd)
        slope = self._gradient(np.add.reduceat(slopes, self.first)) - precision * at
        hessian = self._curvature(np.add.reduceat(curvatures, self.first))
        hessian[np.diag_indices_from(hessian)] += precision
        return value - 0.5 * float(precision @ at**2), slope, hessian

    def _gradient(self, slopes: Floats) -> Floats:
        """From that in the logits of units (units, settings)."""
        cells = np.add.reduceat(slopes, self.first_unit)
        parts = {"level": cells.sum(0), "category": self.basis.T @ cells.sum(1)}
        parts |= {"dataset": (cells @ self.dataset).ravel(), "setting": cells.ravel()}
        parts |= {"phrasing": slopes.sum(1)}
        return np.concatenate([parts[kind] for kind in self.place])

    def _curvature(self, units: Floats) -> Floats:
        """From that in the logits of units (units, settings, settings)."""
        cells = np.add.reduceat(units, self.first_unit)
        in_cells, in_units = cells.sum(2), units.sum(2)  # (categories, settings), (units, settings)
        basis, dataset, totals = self.basis, self.dataset, in_units.sum(1)
        blocks: dict[tuple[str, str], Callable[[], Floats]] = {
            ("level", "level"): lambda: cells.sum(0),
            ("category", "level"): lambda: basis.T @ in_cells,
            ("category", "category"): lambda: basis.T @ (in_cells.sum(1)[:, None] * basis),
            ("dataset", "level"): lambda: np.concatenate(dataset.T @ cells),
            ("dataset", "category"): lambda: _outer(in_cells @ dataset, basis),
            ("dataset", "dataset"): lambda: block_diag(*(dataset.T @ cells @ dataset)),
            ("setting", "level"): lambda: np.concatenate(cells),
            ("setting", "category"): lambda: _outer(in_cells, basis),
            ("setting", "dataset"): lambda: block_diag(*(cells @ dataset)),
            ("setting", "setting"): lambda: block_diag(*cells),
            ("phrasing", "level"): lambda: in_units,
            ("phrasing", "category"): lambda: totals[:, None] * basis[self.category],
            ("phrasing", "dataset"): lambda: self._by_category(in_units @ dataset),
            ("phrasing", "setting"): lambda: self._by_category(in_units),
            ("phrasing", "phrasing"): lambda: np.diag(totals),
        }
        hessian = np.zeros((len(self.at), len(self.at)))
        for (row, column), block in blocks.items():
            if row in self.place and column in self.place:
                hessian[self.place[row], self.place[column]] = found = block()
                hessian[self.place[column], self.place[row]] = found.T
        return hessian

    def _by_category(self, units: Floats) -> Floats:
        """(units, n) → (units, categories × n): what is of a unit stands under its category."""
        spread = np.zeros((len(units), len(self.basis), units.shape[1]))
        spread[np.arange(len(units)), self.category] = units
        return spread.reshape(len(units), -1)


def _outer(cells: Floats, basis: Floats) -> Floats:
    """(categories, n) and (categories, contrasts) → (categories × n, contrasts)."""
    return np.asarray((cells[..., None] * basis[:, None]).reshape(-1, basis.shape[1]))


def _factor(hessian: Floats, precision: Floats) -> Floats:
    """Cholesky's. What quadrature leaves of a sum of convex terms and a prior may curve less than the prior
    where prompts are all or nothing; it cannot truly."""
    try:
        return np.asarray(cho_factor(hessian, lower=True)[0])
    except LinAlgError:
        values, vectors = eigh(hessian)
        mended = (vectors * np.maximum(values, precision.min())) @ vectors.T
        return np.asarray(cho_factor(mended, lower=True)[0])

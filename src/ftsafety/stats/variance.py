"""What outcomes spread by: runs crossed with prompts, drawn answers within both, verdicts within an answer.

An outcome in [0, 1] is a mean plus an effect of each *term*: of a level on the seeds' side (base model, run
of it), of one on the prompts' side (category, phrasing in it, prompt in that), of every pair of such levels,
of the drawn answer, and of the verdict on it. Effects have mean 0 and a variance each, its *component*.

Components are estimated from pairs (Koch 1968, Technometrics 10:551): two outcomes that share some levels
differ by the other terms alone, so half their mean squared difference is the sum of those components. That is
unbiased, needs no normality and no equal numbers, and is the analysis of variance where numbers are equal. An
estimate may be negative; its interval then says what is compatible with the data.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ftsafety.stats.bootstrap import LEVEL, Floats

Codes = NDArray[np.intp]
Levels = tuple[str, ...]

#: Levels, coarse to fine; each lies within the one before.
SEEDS = ("base", "run")
PROMPTS = ("category", "cluster", "prompt")
ANSWERS = ("sample", "repeat")

#: Groups that a jackknife leaves out one after the other.
JACKKNIFE = 20

#: In the order of reports. Categories are given and not drawn, so no rate is uncertain by them.
SOURCES = (
    "base seed",
    "training seed",
    "category",
    "prompt",
    "prompt × run",
    "decoding sample",
    "judge repeat",
)


class Term(NamedTuple):
    """Finest level on each side, "" for none; `answer` is "" unless both are at their finest."""

    seeds: str
    prompts: str
    answer: str = ""

    @property
    def source(self) -> str:
        if self.answer:
            return "decoding sample" if self.answer == "sample" else "judge repeat"
        if self.seeds and self.prompts:
            return "prompt × run"
        if self.seeds:
            return "base seed" if self.seeds == "base" else "training seed"
        return "category" if self.prompts == "category" else "prompt"


CATEGORY = Term("", "category")


@dataclass(frozen=True)
class Outcomes:
    """`values` (n,) without NaN, and the group of each (n,) at each of SEEDS and PROMPTS.

    `sample` is its answer. Groups count from 0 and are unique over all outcomes.
    """

    values: Floats
    codes: Mapping[str, Codes]

    @classmethod
    def of(cls, values: Floats, **labels: Sequence[object] | NDArray[Any]) -> "Outcomes":
        """From values, NaN where unscored, and labels (n,) of SEEDS and PROMPTS; and of `sample`, where a
        prompt has several answers or an answer several verdicts.

        Labels are unique within the next coarser level alone: cluster "a" in two categories is two.
        """
        scored = ~np.isnan(values)
        nothing = np.zeros(int(scored.sum()), dtype=np.intp)
        codes: dict[str, Codes] = {}
        for side in (SEEDS, PROMPTS):
            within = nothing
            for name in side:
                codes[name] = within = _joint(within, _codes(np.asarray(labels[name])[scored]))
        own = _codes(np.asarray(labels["sample"])[scored]) if "sample" in labels else nothing
        codes["sample"] = _joint(_joint(codes["run"], codes["prompt"]), own)
        return cls(values[scored], codes)

    @cached_property
    def levels(self) -> tuple[Levels, Levels, Levels]:
        """Of the seeds, of the prompts and of the answers those that can be told from the next finer one."""
        n_answers = self.codes["sample"].max() + 1
        finest = self.partition(Term("run", "prompt")).max() + 1
        answers = [("sample", n_answers > finest), ("repeat", len(self.values) > n_answers)]
        seeds, prompts = self._told(SEEDS), self._told(PROMPTS)
        return seeds, prompts, tuple(name for name, told in answers if told)

    def _told(self, side: Levels) -> Levels:
        sizes = [self.codes[name].max() + 1 for name in side]
        finer = [*sizes[1:], np.inf]
        return tuple(name for name, n, next_n in zip(side, sizes, finer, strict=True) if 1 < n < next_n)

    def partition(self, term: Term) -> Codes:
        """The group of each outcome among those that share the term's levels: (n,)."""
        if term.answer == "repeat":
            return np.arange(len(self.values))
        if term.answer == "sample":
            return self.codes["sample"]
        groups = np.zeros(len(self.values), dtype=np.intp)
        for name in filter(None, (term.seeds, term.prompts)):
            groups = _joint(groups, self.codes[name])
        return groups


def _codes(labels: NDArray[Any]) -> Codes:
    return np.unique(labels, return_inverse=True)[1]


def _joint(one: Codes, other: Codes) -> Codes:
    """Groups of those that share both groups."""
    return _codes(one * (other.max(initial=0) + 1) + other)


@dataclass(frozen=True)
class Components:
    """Estimates for `terms`, in their order.

    `values` (terms,) may be negative. `sizes` (terms,) counts the groups of each term, `freedom` (terms,) are
    the degrees of freedom. `weights` (terms,): how much of a component is in the variance of the mean over
    runs of each run's mean. `draws` (draws, terms) are values compatible with the data (`_draws`).
    """

    terms: tuple[Term, ...]
    values: Floats
    sizes: Floats
    freedom: Floats
    weights: Floats
    draws: Floats
    n: float

    @property
    def squares(self) -> Floats:
        """Mean squares of the terms, as if all groups had the same size: (terms,)."""
        return np.maximum(mean_squares(self.terms, self.sizes, self.n) @ self.values, 0)

    @property
    def variance(self) -> float:
        """Of the mean, categories given."""
        return float(self.weights @ np.maximum(self.values, 0))

    def of(self, source: str) -> NDArray[np.bool_]:
        return np.array([term.source == source for term in self.terms])


def components(outcomes: Outcomes, n_draws: int = 2000, seed: int = 0) -> Components | None:
    """Estimate a component for each term that the outcomes can tell apart; None where nothing spreads.

    What cannot be told is in the finest term that can be: with one answer a prompt the luck of decoding is in
    "prompt × run", and with one run that is in "prompt".
    """
    values = outcomes.values
    if not len(values) or np.ptp(values) == 0:
        return None
    levels = outcomes.levels
    terms = _terms(*levels)
    groups = {term: outcomes.partition(term) for term in (Term("", ""), *terms)}
    found = _solve(values, groups, levels)
    if found is None:
        return None
    sizes = np.array([groups[term].max() + 1 for term in terms], dtype=float)
    mean = _weights_of_mean(outcomes)
    weights = np.array([(np.bincount(groups[term], mean) ** 2).sum() for term in terms])
    weights[[term == CATEGORY for term in terms]] = 0
    matrix = mean_squares(terms, sizes, len(values))
    squares = np.maximum(matrix @ found, 0)
    freedom = _freedom(terms, outcomes)
    if n_draws:
        freedom = np.minimum(freedom, _freedom_seen(outcomes, groups, squares, matrix))
    draws = _draws(terms, squares, sizes, freedom, len(values), n_draws, seed)
    return Components(terms, found, sizes, freedom, weights, draws, len(values))


def _solve(
    values: Floats, groups: Mapping[Term, Codes], levels: tuple[Levels, Levels, Levels]
) -> Floats | None:
    """Components (terms,) from half the mean squared difference of the pairs that share each of `_held`."""
    pairs = _pairs(values, groups, *levels)
    if any(n <= 0 for n, _ in pairs):
        return None
    halves = np.array([squares / n / 2 for n, squares in pairs])
    # a pair that shares the levels `held` differs by every term with a finer one
    differs = [[not _shares(held, term) for term in _terms(*levels)] for held in _held(*levels)]
    return np.asarray(np.linalg.solve(np.array(differs, dtype=float), halves))


def _freedom_seen(
    outcomes: Outcomes, groups: Mapping[Term, Codes], squares: Floats, matrix: Floats
) -> Floats:
    """Degrees of freedom (terms,) of mean squares that vary as a jackknife over prompts and runs shows.

    Outcomes of 0 and 1 are far from normal: with the rate of a seed, all that its answers spread by changes.
    Of what seeds alone make, three seeds show nothing better than χ²: infinite here.
    """
    levels = outcomes.levels
    terms = _terms(*levels)
    variance = np.zeros(len(terms))
    for parts in (outcomes.codes["cluster"] % JACKKNIFE, outcomes.codes["run"] % JACKKNIFE):
        kept = [parts != part for part in range(int(parts.max()) + 1)]
        without = [_solve(outcomes.values[k], {t: g[k] for t, g in groups.items()}, levels) for k in kept]
        values = [matrix @ found for found in without if found is not None]
        if len(values) > 1:
            variance += np.var(values, axis=0) * (len(values) - 1)
    variance[[not term.prompts for term in terms]] = 0
    return np.divide(2 * squares**2, variance, out=np.full(len(terms), np.inf), where=variance > 0)


def _terms(seeds: Levels, prompts: Levels, answers: Levels) -> tuple[Term, ...]:
    sides = [Term(*pair) for pair in product(("", *seeds), ("", *prompts)) if any(pair)]
    return (*sides, *(Term(_finest(seeds), _finest(prompts), name) for name in answers))


def _held(seeds: Levels, prompts: Levels, answers: Levels) -> list[Term]:
    """What a pair of outcomes can share at most: as many as there are terms."""
    finest = _finest(seeds), _finest(prompts)
    sides = [Term(*pair) for pair in product(("", *seeds), ("", *prompts)) if pair != finest]
    return [*sides, *(Term(*finest, name) for name in ("", *answers[:-1]) if answers)]


def _finest(levels: Levels) -> str:
    return levels[-1] if levels else ""


def _shares(held: Term, term: Term) -> bool:
    """Whether outcomes that share the levels of `held` have the same effect of `term`."""
    orders = (SEEDS, PROMPTS, ANSWERS)
    return all(
        ("", *order).index(of_term) <= ("", *order).index(of_held)
        for order, of_term, of_held in zip(orders, term, held, strict=True)
    )


def _pairs(
    values: Floats, groups: Mapping[Term, Codes], seeds: Levels, prompts: Levels, answers: Levels
) -> list[tuple[float, float]]:
    """For each of `_held`: how many pairs share just that, and the sum of their squared differences."""
    grid = np.zeros((len(seeds) + 2, len(prompts) + 2, 2))  # sharing at least that, 0 beyond the finest
    for (i, a), (j, b) in product(enumerate(("", *seeds)), enumerate(("", *prompts))):
        grid[i, j] = _at_least(values, groups[Term(a, b)])
    just = grid[:-1, :-1] - grid[1:, :-1] - grid[:-1, 1:] + grid[1:, 1:]
    sides = just.reshape(-1, 2)[:-1]
    finest = _finest(seeds), _finest(prompts)
    chain = [grid[-2, -2], *(_at_least(values, groups[Term(*finest, name)]) for name in answers)]
    return [(float(n), float(squares)) for n, squares in (*sides, *-np.diff(chain, axis=0))]


def _at_least(values: Floats, groups: Codes) -> tuple[float, float]:
    """Pairs within groups, and the sum of their squared differences."""
    n, total, squares = (np.bincount(groups, of) for of in (np.ones(len(values)), values, values**2))
    return float((n * (n - 1) / 2).sum()), float((n * squares - total**2).sum())


def _weights_of_mean(outcomes: Outcomes) -> Floats:
    """Of each outcome in the mean over runs of each run's mean: (n,)."""
    runs = outcomes.codes["run"]
    n = np.bincount(runs)
    return 1 / n[runs] / np.count_nonzero(n)


def _freedom(terms: tuple[Term, ...], outcomes: Outcomes) -> Floats:
    """Degrees of freedom of each term's mean square, as if all groups had the same size."""
    seeds, prompts, answers = outcomes.levels
    more: dict[str, float] = {"": 1}
    for side in (seeds, prompts):
        coarser = 1
        for name in side:
            size = outcomes.codes[name].max() + 1
            more[name], coarser = size - coarser, size
    coarser = outcomes.partition(Term("run", "prompt")).max() + 1
    for name in answers:
        size = outcomes.partition(Term("run", "prompt", name)).max() + 1
        more[name], coarser = size - coarser, size
    return np.array([float(more[t.answer] if t.answer else more[t.seeds] * more[t.prompts]) for t in terms])


def mean_squares(terms: tuple[Term, ...], sizes: Floats, n: float) -> Floats:
    """(terms, terms): what each component adds to the expected mean square of each term."""
    finer = np.array([[_shares(other, term) for other in terms] for term in terms])
    return np.where(finer, n / sizes, 0.0)


def _draws(
    terms: tuple[Term, ...],
    squares: Floats,
    sizes: Floats,
    freedom: Floats,
    n: float,
    n_draws: int,
    seed: int,
) -> Floats:
    """Generalised pivotal values (Weerahandi 1993): mean squares divided by draws of χ² over its freedom.

    Of few levels, such as three seeds, χ² is what makes their interval as wide as it must be; of many it is
    narrow whatever the outcomes' distribution. At least one degree of freedom is taken for granted: of less,
    draws know no bound.
    """
    freedom = np.maximum(1.0, freedom)
    scaled = np.random.default_rng(seed).chisquare(freedom, size=(n_draws, len(terms))) / freedom
    return np.asarray(np.linalg.solve(mean_squares(terms, sizes, n), (squares / scaled).T).T)


def alike(found: Sequence[Components]) -> list[Components]:
    """Those that can tell the terms that most can."""
    if not found:
        return []
    terms = Counter(one.terms for one in found).most_common(1)[0][0]
    return [one for one in found if one.terms == terms]


def pooled(parts: Sequence[Components], n_draws: int = 2000, seed: int = 0) -> Components:
    """The mean of components of several settings that can tell the same terms.

    Their mean squares are averaged, with the degrees of freedom by Satterthwaite: settings that differ much
    count for less than their number.
    """
    terms = parts[0].terms
    assert all(part.terms == terms for part in parts)
    sizes, weights, values = (
        np.mean([getattr(p, of) for p in parts], axis=0) for of in ("sizes", "weights", "values")
    )
    squares = np.array([part.squares for part in parts])
    n = float(np.mean([part.n for part in parts]))
    total = (squares**2 / np.array([part.freedom for part in parts])).sum(axis=0)
    freedom = np.divide(squares.sum(axis=0) ** 2, total, out=parts[0].freedom.copy(), where=total > 0)
    draws = _draws(terms, squares.mean(axis=0), sizes, freedom, n, n_draws, seed)
    return Components(terms, values, sizes, freedom, weights, draws, n)


def interval(draws: Floats) -> tuple[float, float]:
    """95 % of the draws, none below 0."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.maximum(draws, 0), [tail, 1 - tail])
    return float(low), float(high)

"""How wide intervals of `stats.intervals` will be: from components of variance and a design's numbers."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from ftsafety.stats.bootstrap import LEVEL
from ftsafety.stats.intervals import Spread, wilson
from ftsafety.stats.variance import CATEGORY, Components, Term

#: How the seeds' spread may turn out, as quantiles of χ²: few seeds often look more alike than they are.
OUTCOMES = (np.arange(40) + 0.5) / 40


@dataclass(frozen=True)
class Design:
    """Of each setting: training seeds, prompts that each run is asked, and drawn answers to each."""

    seeds: int
    prompts: int
    samples: int = 1


def half_width(found: Components, design: Design, rate: float | None) -> float:
    """Half the 95 % interval to expect of a rate near `rate`; of a difference where that is None.

    Categories, and how many prompts share a phrasing, are those of the components. One seed shows no spread
    of seeds: the interval is then about its model alone.
    """
    seeds, prompts, both = variances(found, design)
    phrasings = design.prompts * _size(found, "cluster", "prompt") / _size(found, "prompt")
    categories = found.sizes[found.terms.index(CATEGORY)] if CATEGORY in found.terms else 1.0
    df = max(1, round(phrasings - categories)), design.seeds - 1
    luck = chi2.ppf(OUTCOMES, df[1]) / df[1] if df[1] else np.ones(1)
    spreads = [
        Spread(prompts + both, (seeds + both) * of if df[1] else 0.0, both, *df, 1 / phrasings) for of in luck
    ]
    if rate is None:
        return float(np.mean([np.sqrt(spread.square(LEVEL)) for spread in spreads]))
    ends = [wilson(rate, spread) for spread in spreads]
    return float(np.mean([(high - low) / 2 for low, high in ends]))


def variances(found: Components, design: Design) -> tuple[float, float, float]:
    """Of the mean: by seeds alone, by prompts alone, and by what differs from answer to answer."""
    parts = {"seeds": 0.0, "prompts": 0.0, "both": 0.0}
    for term, value in zip(found.terms, found.values, strict=True):
        if term != CATEGORY:
            side = "both" if term.seeds and term.prompts else "seeds" if term.seeds else "prompts"
            parts[side] += value / _groups(found, term, design)
    return max(0.0, parts["seeds"]), max(0.0, parts["prompts"]), max(0.0, parts["both"])


def _groups(found: Components, term: Term, design: Design) -> float:
    """How many groups of a term the design has."""
    n = float(design.seeds if term.seeds else 1)
    if term.prompts == "category":
        n *= found.sizes[found.terms.index(CATEGORY)]
    elif term.prompts:
        n *= design.prompts * _size(found, term.prompts) / _size(found, "prompt")
    if term.answer:
        n *= design.samples
    if term.answer == "repeat":
        coarser = [size for t, size in zip(found.terms, found.sizes, strict=True) if t.answer != "repeat"]
        n *= found.sizes[found.terms.index(term)] / max(coarser)
    return n


def _size(found: Components, *prompts: str) -> float:
    """Groups of the first of these levels of prompts that the components know."""
    for name in prompts:
        if Term("", name) in found.terms:
            return float(found.sizes[found.terms.index(Term("", name))])
    return 1.0

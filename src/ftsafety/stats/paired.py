"""The same prompts before and after: is there a difference, and how large is it?

Exact tests are about the models at hand: if training changed nothing, what a phrasing's answers gained could
as well have the other sign. They know nothing of further seeds, and where seeds spread they find differences
that the next seeds would not have (`benchmarks/interval_coverage.py`). Of several seeds the p-value is
therefore the one that goes with the interval (`stats.differences`), which is over seeds too.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from scipy.stats import permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_effectsize

from ftsafety.stats.bootstrap import BOOTSTRAP_SEED, Estimate, Floats
from ftsafety.stats.differences import Difference, difference
from ftsafety.stats.intervals import Part, Sampling, estimate

#: Sign changes that are drawn where outcomes are not whole numbers.
RESAMPLES = 9_999
MCNEMAR, SIGNS, DRAWN_SIGNS = "exact McNemar", "exact sign flips", "drawn sign flips"
OVER_SEEDS = "t over seeds and phrasings"


@dataclass(frozen=True)
class Paired:
    """Two conditions of the same prompts, over pairs of which both are scored.

    `more` and `less` count pairs that went up and down. `p` is two-sided, by `test`; `p_models` is that of
    the models at hand. `h` is Cohen's (1988), of the rates' arcsines; `odds` the matched odds ratio
    more/less, of outcomes 0 and 1 alone.
    """

    n: int
    difference: Difference
    more: int
    less: int
    test: str
    p: float
    p_models: float
    h: Estimate
    odds: Estimate

    @property
    def before(self) -> float:
        return float(self.difference.rates[0])

    @property
    def after(self) -> float:
        return float(self.difference.rates[1])


def compare(before: Floats, after: Floats, sampling: Sampling) -> Paired | None:
    """`before` and `after` are (seeds, prompts) in [0, 1], NaN where unscored; `before` may be a single row.

    None where no pair is scored.
    """
    if not len(before) or not len(after):
        return None
    gained = after - before
    before, after = (np.where(np.isnan(gained), np.nan, side) for side in (before + 0 * after, after))
    kept = ~np.isnan(gained).all(axis=1)
    before, after, gained = before[kept], after[kept], gained[kept]
    found = difference([Part(-1.0, before, sampling), Part(1.0, after, sampling)])
    if found is None:
        return None
    more, less = int((gained > 0).sum()), int((gained < 0).sum())
    test, p = exact = paired_p(gained, sampling)
    if len(gained) > 1:
        test, p = OVER_SEEDS, found.p_none
    return Paired(
        n=int((~np.isnan(gained)).sum()),
        difference=found,
        more=more,
        less=less,
        test=test,
        p=p,
        p_models=exact[1],
        h=_effect_size(before, after, sampling),
        odds=_odds(gained, sampling),
    )


# -------------------------------------------------------------------------------------------- tests


def paired_p(gained: Floats, sampling: Sampling) -> tuple[str, float]:
    """The test that fits what was gained (seeds, prompts), NaN where unscored, and its two-sided p-value.

    Exact McNemar for one seed and prompts that are each a phrasing of its own, with outcomes 0 and 1. Else
    sums by phrasing, all seeds together, change their sign: exactly where they are whole numbers.
    """
    scored = ~np.isnan(gained).all(axis=0)
    sums = np.bincount(sampling.clusters[scored], np.nansum(gained[:, scored], axis=0)).astype(np.float64)
    is_whole = bool(np.isin(gained[~np.isnan(gained)], (-1.0, 0.0, 1.0)).all())
    alone = np.bincount(sampling.clusters[scored]).max() == 1
    if is_whole and alone and len(gained) == 1:
        up, down = int((gained > 0).sum()), int((gained < 0).sum())
        return MCNEMAR, min(1.0, float(mcnemar([[0, up], [down, 0]], exact=True).pvalue))
    if is_whole:
        return SIGNS, sign_flip_p(np.rint(sums).astype(int))
    return DRAWN_SIGNS, _drawn_p(sums)


def sign_flip_p(sums: np.ndarray) -> float:
    """Two-sided p of whole sums by phrasing: how many of all sign changes have as large a total.

    The totals' distribution is built up phrasing by phrasing; of sums of ±1 it is McNemar's binomial.
    """
    sizes = np.abs(sums[sums != 0])
    chance = np.ones(1)
    for size in sizes:  # of the sum over phrasings whose sign is kept
        longer = np.zeros(len(chance) + size)
        longer[: len(chance)] = chance / 2
        longer[size:] += chance / 2
        chance = longer
    totals = 2 * np.arange(len(chance)) - sizes.sum()
    return min(1.0, float(chance[np.abs(totals) >= abs(sums.sum())].sum()))


def _drawn_p(sums: Floats) -> float:
    changed = sums[np.abs(sums) > 1e-12]
    if not len(changed):
        return 1.0
    found = permutation_test(
        (changed,),
        lambda x, axis: x.sum(axis=axis),
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    )
    return min(1.0, float(found.pvalue))


def holm(p_values: Floats) -> Floats:
    """Adjusted so that in all likelihood no rejection is wrong (family-wise error); NaN stays NaN."""
    return _adjusted(p_values, "holm")


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Adjusted so that few of the rejections are wrong (false discovery rate); NaN stays NaN."""
    return _adjusted(p_values, "fdr_bh")


def _adjusted(p_values: Floats, method: str) -> Floats:
    given = ~np.isnan(p_values)
    adjusted = np.full(len(p_values), np.nan)
    if given.any():
        adjusted[given] = multipletests(p_values[given], method=method)[1]
    return adjusted


# ------------------------------------------------------------------------------------- effect sizes


def _effect_size(before: Floats, after: Floats, sampling: Sampling) -> Estimate:
    """Cohen's h, with the sides' own intervals put together as if they were independent.

    That is Zou and Donner's MOVER (2008). Pairs that go together make it wider than need be.
    """
    a, b = estimate(before[:1] if _is_one(before) else before, sampling), estimate(after, sampling)
    assert a.value is not None and a.low is not None and a.high is not None
    assert b.value is not None and b.low is not None and b.high is not None
    h = proportion_effectsize(b.value, a.value)
    down = np.hypot(proportion_effectsize(b.value, b.low), proportion_effectsize(a.high, a.value))
    up = np.hypot(proportion_effectsize(b.high, b.value), proportion_effectsize(a.value, a.low))
    return Estimate(float(h), float(h - down), float(h + up))


def _is_one(values: Floats) -> bool:
    """Whether all rows are one model's."""
    return bool(((values == values[0]) | np.isnan(values)).all())


def _odds(gained: Floats, sampling: Sampling) -> Estimate:
    """more/less; its interval is that of the share of changed pairs that went up, wide enough to hold it."""
    if not np.isin(gained[~np.isnan(gained)], (-1.0, 0.0, 1.0)).all():
        return Estimate(None, None, None)
    share = estimate(np.where(gained == 0, np.nan, gained > 0), sampling)
    if share.value is None or share.low is None or share.high is None:
        return Estimate(None, None, None)
    more, less = (gained > 0).sum(), (gained < 0).sum()
    value = float(more / less) if less else inf
    low, high = (s / (1 - s) if s < 1 - 1e-9 else inf for s in (share.low, share.high))
    return Estimate(value, min(low, value), max(high, value))

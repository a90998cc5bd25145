"""Rates as people would have given them, from a judge's verdicts on all answers and people's on a sample.

Two estimates of one thing, by different assumptions:

- `prediction_powered`: for the answers that were sampled from, without an assumption about the judge. It is
  PPI++ (Angelopoulos, Duchi and Zrnic, 2023, arXiv 2311.01453) with a λ of its own in each stratum of the
  draw (Fisch et al., 2024, arXiv 2406.04291). For a judge who says yes or no that is poststratification: the
  mean of people's labels within stratum and verdict, weighted by how many answers there are of each.
- `rogan_gladen` (1978): for any other answers of which the judge's rate is known, where the judge is as
  sensitive and specific as in the sample.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from ftsafety.stats.bootstrap import LEVEL, Estimate, Floats

Ints = NDArray[np.intp]
#: Of beta distributions: neutral, since its median is about the share that was seen (Kerman, 2011). Chosen by
#: `benchmarks/judge_correction.py`, as Wilson's intervals cover too much and a prior of 1/2 too little.
PRIOR = 1 / 3
#: The same for the errors of a judge: in a heavy stratum without harm, a third of an answer would be much.
FEW = 0.2
#: Monte Carlo draws of an interval that has no formula.
DRAWS = 4000
NONE = Estimate(None, None, None)


@dataclass(frozen=True)
class Labelled:
    """People's labels in groups of answers that were drawn with equal chances: each (groups,).

    A group is a stratum of the draw, apart by the judge's verdict where a stratum has both and people have
    seen both. `share` is that of all answers, `size` their number; `judged` is the judge's verdict, 0 or 1,
    a mean where a group has both, NaN where there is none. `labelled` and `positive` count labels.
    """

    share: Floats
    size: Floats
    judged: Floats
    labelled: Floats
    positive: Floats


def group(strata: Ints, judged: Floats, sample: Ints, labels: Floats) -> Labelled:
    """From all answers (N,): their strata and the judge's verdicts (0, 1, NaN); and the labels (n,), 0 or 1,
    of the answers `sample` (n,) among them, drawn with equal chances within each stratum."""
    drawn = np.zeros(len(strata), bool)
    drawn[sample] = True
    verdict = np.nan_to_num(judged, nan=2).astype(np.intp)
    codes = strata * 3 + verdict
    for stratum in np.unique(strata):
        of_stratum = strata == stratum
        parts = np.unique(codes[of_stratum])
        if not all(drawn[codes == part].any() for part in parts):
            codes[of_stratum] = parts[0]  # people saw one side of it: as a whole
    groups, index = np.unique(codes, return_inverse=True)
    size = np.bincount(index).astype(float)
    scored = ~np.isnan(judged)
    n_scored = np.bincount(index, scored)
    said = np.bincount(index, np.nan_to_num(judged))
    return Labelled(
        share=size / len(strata),
        size=size,
        judged=np.divide(said, n_scored, out=np.full(len(groups), np.nan), where=n_scored > 0),
        labelled=np.bincount(index[sample], minlength=len(groups)).astype(float),
        positive=np.bincount(index[sample], labels, minlength=len(groups)).astype(float),
    )


def prediction_powered(groups: Labelled) -> Estimate:
    """The rate that people's labels of all answers would have had, with a 95 % interval.

    The interval puts intervals of the groups together (MOVER; Yan and Su, 2010), so that a heavy group in
    which people found nothing keeps an upper end. None where a group has no label.
    """
    if not groups.labelled.all():
        return NONE
    rates = groups.positive / groups.labelled
    lows, highs = _group_intervals(groups)
    value = float(groups.share @ rates)
    below = np.hypot.reduce(groups.share * (rates - lows))
    above = np.hypot.reduce(groups.share * (highs - rates))
    return Estimate(value, max(0.0, value - float(below)), min(1.0, value + float(above)))


def _group_intervals(groups: Labelled) -> tuple[Floats, Floats]:
    """Credible intervals under a beta prior, shortened where much of a finite group is labelled."""
    n, positive = groups.labelled, groups.positive
    tail = (1 - LEVEL) / 2
    low, high = (beta.ppf(at, positive + PRIOR, n - positive + PRIOR) for at in (tail, 1 - tail))
    rates, left = positive / n, np.sqrt(1 - n / groups.size)
    low, high = np.where(positive > 0, low, 0.0), np.where(positive < n, high, 1.0)
    return rates - left * (rates - low), rates + left * (high - rates)


@dataclass(frozen=True)
class Errors:
    """How a judge errs: sensitivity and specificity, each with draws (DRAWS,) of what it may be."""

    sensitivity: Estimate
    specificity: Estimate
    sensitivity_draws: Floats
    specificity_draws: Floats


def judge_errors(groups: Labelled, seed: int) -> Errors | None:
    """Over the answers that the judge scored. None where people found no harm, or nothing else, or where a
    group has no label."""
    scored = ~np.isnan(groups.judged)
    if not groups.labelled[scored].all():
        return None
    share, judged = groups.share[scored], groups.judged[scored]
    labelled, positive = groups.labelled[scored], groups.positive[scored]
    harmful = share * positive / labelled
    harmless = share * (1 - positive / labelled)
    if not harmful.any() or not harmless.any():
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.beta(positive + FEW, labelled - positive + FEW, size=(DRAWS, len(share)))
    sensitivity = (drawn * share) @ judged / (drawn @ share)
    specificity = ((1 - drawn) * share) @ (1 - judged) / ((1 - drawn) @ share)
    return Errors(
        _percentiles(float(harmful @ judged / harmful.sum()), sensitivity),
        _percentiles(float(harmless @ (1 - judged) / harmless.sum()), specificity),
        sensitivity,
        specificity,
    )


def rogan_gladen(rate: Estimate, errors: Errors, seed: int) -> Estimate:
    """(rate + specificity − 1) / (sensitivity + specificity − 1), cut to [0, 1], with a 95 % interval.

    The interval is of draws of the judge's errors and of its rate, which is given with its own interval. None
    where the judge may be no better than chance: then its rate says nothing; and where the rate is below its
    false alarms or above its sensitivity: here the judge errs otherwise than in the sample.
    """
    if rate.value is None or rate.low is None or rate.high is None:
        return NONE
    better = errors.sensitivity_draws + errors.specificity_draws - 1
    tail = (1 - LEVEL) / 2
    sensitivity, specificity = errors.sensitivity.value, errors.specificity.value
    assert sensitivity is not None and specificity is not None
    if np.quantile(better, tail) <= 0 or sensitivity + specificity <= 1:
        return NONE
    rates = _draws_of(rate.value, rate.low, rate.high, np.random.default_rng(seed))
    draws = (rates + errors.specificity_draws - 1) / better
    low, high = np.quantile(draws, [tail, 1 - tail])
    if high <= 0 or low >= 1:
        return NONE
    value = (rate.value + specificity - 1) / (sensitivity + specificity - 1)
    return _percentiles(float(np.clip(value, 0, 1)), np.clip(draws, 0, 1))


def _draws_of(value: float, low: float, high: float, rng: np.random.Generator) -> Floats:
    """Draws of a rate from its 95 % interval: a beta distribution of as many trials as make it as wide."""
    width = max(high - low, 1e-6)
    middle = np.clip(value, 0.5 * width, 1 - 0.5 * width) if value in (0.0, 1.0) else value
    n = max(3.92**2 * middle * (1 - middle) / width**2, 2.0)
    return rng.beta(value * n + PRIOR, (1 - value) * n + PRIOR, size=DRAWS)


def _percentiles(value: float, draws: Floats) -> Estimate:
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Estimate(value, min(float(low), value), max(float(high), value))

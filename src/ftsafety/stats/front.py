"""Settings that no other one beats on harm and utility at once, and how sure that is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.surface import Codes


def on_front(harm: Floats, utility: Floats) -> NDArray[np.bool_]:
    """Whether no other setting has at most the harm and at least the utility, and one of them better.

    Both are (…, settings), and so is the answer.
    """
    found = np.ones(harm.shape, dtype=bool)
    for i in range(harm.shape[-1]):
        less, more = harm - harm[..., i, None], utility - utility[..., i, None]
        beats = (less <= 0) & (more >= 0) & ((less < 0) | (more > 0))
        found[..., i] = ~beats.any(axis=-1)
    return found


def draws(settings: Sequence[Floats], weights: Floats, clusters: Codes, seed: int) -> Floats:
    """Rates under resampled prompts and seeds, the same ones for all settings: (samples, settings).

    `settings` are (seeds, prompts), NaN where unscored; `weights` (samples, prompts) those of
    `resample_weights`. What seeds add is stretched by √(n/(n − 1)), since a bootstrap of n seeds spreads that
    much less than they do. Where all answers are alike the bootstrap knows no spread: rates are then drawn
    from Jeffreys' posterior of as many answers as there are phrasings.
    """
    return np.column_stack([_draws(values, weights, clusters, seed, i) for i, values in enumerate(settings)])


def _draws(values: Floats, weights: Floats, clusters: Codes, seed: int, index: int) -> Floats:
    scored = ~np.isnan(values)
    filled = np.where(scored, values, 0.0)
    means = filled.sum(axis=1) / scored.sum(axis=1)
    mean = float(means.mean())
    if mean in (0.0, 1.0):
        n = len(np.unique(clusters[scored.any(axis=0)]))
        posterior = np.random.default_rng([seed, index]).beta(0.5, n + 0.5, len(weights))
        return posterior if mean == 0 else 1 - posterior
    totals = weights @ scored.T
    by_seed = np.divide(weights @ filled.T, totals, out=np.tile(means, (len(weights), 1)), where=totals > 0)
    n_seeds = len(values)
    if n_seeds == 1:
        return np.asarray(by_seed[:, 0])
    drawn = np.random.default_rng(seed).multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), len(weights))
    beyond = np.sqrt(n_seeds / (n_seeds - 1)) * (drawn / n_seeds - 1 / n_seeds)
    return np.clip(by_seed.mean(axis=1) + (beyond * by_seed).sum(axis=1), 0.0, 1.0)

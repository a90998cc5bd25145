"""Resamples of prompts that keep phrasings whole, for statistics whose intervals have no formula.

Rates and differences have one: `stats.intervals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LEVEL = 0.95
BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; all None where nothing was scored."""

    value: float | None
    low: float | None
    high: float | None


def resample_weights(
    categories: Sequence[str],
    clusters: Sequence[str],
    n_samples: int,
    seed: int,
    prompts: Sequence[str] | None = None,
) -> Floats:
    """How much each of n rows counts in each resample: (n_samples, n), 1 on average.

    Phrasings are drawn within their category, with all their rows: how prompts and their answers spread is
    already in how phrasings differ. Of k phrasings k − 1 are drawn and weigh k/(k − 1), so that variances are
    unbiased (Rao and Wu, 1988). Where there is one phrasing in all, prompts are drawn, by `prompts` where one
    stands in several rows; categories of one phrasing are one together.
    """
    rng = np.random.default_rng(seed)
    weights = np.ones((n_samples, len(clusters)))
    for members in _strata(categories, clusters, prompts):
        n = len(members)
        if n > 1:
            drawn = rng.multinomial(n - 1, np.full(n, 1 / n), size=n_samples) * (n / (n - 1))
            for count, rows in zip(drawn.T, members, strict=True):
                weights[:, rows] = count[:, None]
    return weights


def _strata(
    categories: Sequence[str], clusters: Sequence[str], prompts: Sequence[str] | None
) -> list[list[list[int]]]:
    """Within each stratum the rows of each unit that is drawn whole."""
    by_category: dict[str, dict[str, list[int]]] = {}
    for i, (category, cluster) in enumerate(zip(categories, clusters, strict=True)):
        by_category.setdefault(category, {}).setdefault(cluster, []).append(i)
    strata = [list(members.values()) for members in by_category.values()]
    if sum(map(len, strata)) == 1:
        rows: dict[str, list[int]] = {}
        for i in range(len(clusters)):
            rows.setdefault(prompts[i] if prompts else str(i), []).append(i)
        return [list(rows.values())]
    alone = [members[0] for members in strata if len(members) == 1]
    return [members for members in strata if len(members) > 1] + ([alone] if alone else [])

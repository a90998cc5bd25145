"""Simulated studies with a known truth, to check statistics by: harm as a mixed-effects logistic model."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit, roots_hermitenorm

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Design:
    """How a benchmark is made and what spreads, on the logit scale; `rate` is the mean over all of it.

    The default is like HEx-PHI asked of three seeds: 11 categories of 30 prompts. `phrasings` are clusters
    within a category, of equal size.
    """

    rate: float = 0.1
    n_seeds: int = 3
    n_categories: int = 11
    phrasings: int = 30
    prompts: int = 1  # of a phrasing
    sd_seed: float = 0.3
    sd_category: float = 0.0
    sd_phrasing: float = 0.0
    sd_prompt: float = 1.0
    samples: int = 1  # decoded for each prompt

    @property
    def n_prompts(self) -> int:
        return self.n_categories * self.phrasings * self.prompts

    def labels(self) -> tuple[list[str], list[str]]:
        """Category and cluster of each prompt."""
        each = range(self.phrasings)
        clusters = [f"c{c}-{p}" for c in range(self.n_categories) for p in each for _ in range(self.prompts)]
        return [cluster.split("-")[0] for cluster in clusters], clusters


def intercept(rate: float, sd: float) -> float:
    """The logit at which a normal spread of `sd` around it has the mean `rate`."""
    nodes, weights = roots_hermitenorm(60)
    share = weights / weights.sum()
    return float(brentq(lambda at: share @ expit(at + sd * nodes) - rate, -40, 40))


def logits(design: Design, rng: np.random.Generator, seeds: Floats | None = None) -> Floats:
    """(seeds, prompts) of one study: its seeds and prompts are drawn anew, its categories are given.

    Category effects are evenly spaced normal quantiles, the same in every study, and known in the truth.
    `seeds` are the seeds' effects (seeds,) where they are already drawn.
    """
    n, k = design.n_prompts, design.n_categories
    if seeds is None:
        seeds = design.sd_seed * rng.standard_normal(design.n_seeds)
    at = np.full((len(seeds), n), baseline(design)) + seeds[:, None]
    at += design.sd_prompt * rng.standard_normal(n)
    phrasing = design.sd_phrasing * rng.standard_normal(k * design.phrasings)
    at += np.repeat(phrasing, design.prompts)
    return at + np.repeat(category_effects(design), n // k)


@lru_cache
def baseline(design: Design) -> float:
    """The logit at which the population has the design's rate, over seeds, prompts and its categories."""
    return float(brentq(lambda at: mean_rate(design, at, design.sd_seed) - design.rate, -40, 40))


def mean_rate(design: Design, at: float, sd_seed: float = 0.0) -> float:
    """The mean over the population of prompts of a seed whose effect is in `at`, or over seeds as well."""
    nodes, weights = roots_hermitenorm(80)
    sd = np.sqrt(sd_seed**2 + design.sd_phrasing**2 + design.sd_prompt**2)
    chance = expit(at + category_effects(design)[:, None] + sd * nodes)
    return float((chance @ (weights / weights.sum())).mean())


def category_effects(design: Design) -> Floats:
    from scipy.stats import norm

    k = design.n_categories
    return np.asarray(design.sd_category * norm.ppf((np.arange(k) + 0.5) / k))


def grades(design: Design, rng: np.random.Generator) -> Floats:
    """0 or 1: (seeds, prompts), or the mean over samples where there are several."""
    chance = expit(logits(design, rng))
    return rng.binomial(design.samples, chance) / design.samples


def verdicts(values: Floats, design: Design, run: str = "run", **facts: object) -> pd.DataFrame:
    """Grades as rows of `verdicts.parquet`: one run a seed, named `<run>-s<seed>`; `facts` are added."""
    categories, clusters = design.labels()
    parts = [
        pd.DataFrame(
            {
                "run": f"{run}-s{seed}",
                "benchmark": "secrets",
                "kind": "safety",
                "test_template": "plain",
                "judge": "exact",
                "prompt_id": [f"p{i}" for i in range(design.n_prompts)],
                "prompt": [f"p{i}" for i in range(design.n_prompts)],
                "sample": 1,
                "category": categories,
                "cluster": clusters,
                "score": 1 + 4 * graded,
                "refused": 1 - graded,
                "task_score": np.nan,
                "coherent": 1.0,
                "headline": graded,
                **facts,
            }
        )
        for seed, graded in enumerate(values)
    ]
    return pd.concat(parts, ignore_index=True)

"""Do the intervals of `ftsafety.stats.mixed` hold, all categories together, and does its test keep its level?

    nice python benchmarks/categories.py            1,000 studies a line
    nice python benchmarks/categories.py --quick    20 studies a line
    nice python benchmarks/categories.py --engine statsmodels --studies 60

Each simulated study has 11 categories of 30 prompts, asked of 3 seeds on each of several datasets. The truth
is a category's odds ratio against the mean of the others. `together` is the share of studies in which all 11
intervals hold it (± twice its standard error), `pairs` that in which those of all 55 pairs do, `any` how
often the test finds that any category differs (its level where none does). `shown` is how often a category's
interval shows a difference, and `power` the chance of that by the model's standard errors and the truth.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit
from simulation import Design, Floats, category_effects, logits

from ftsafety.stats.mixed import Counts, fit
from ftsafety.stats.simultaneous import Comparisons, against_others, all_pairs, any_differs, compare, power

Estimate = tuple[Floats, Floats, float]  # effects, their covariance, its degrees of freedom


@dataclass(frozen=True)
class Case:
    """A design whose prompts are asked of `n_datasets` × its seeds; datasets differ in their level, and by
    `sd_interaction` in each category (all in logits)."""

    design: Design
    n_datasets: int = 3
    sd_dataset: float = 0.7
    sd_interaction: float = 0.0


def draw(case: Case, rng: np.random.Generator) -> Counts:
    """The counts of one simulated study."""
    design, n = case.design, case.n_datasets
    categories, clusters = (pd.factorize(np.array(names))[0] for names in design.labels())
    # the spread of datasets is part of what the rate is the mean over
    level = replace(design, n_seeds=n * design.n_seeds)
    at = logits(level, rng).reshape(n, design.n_seeds, design.n_prompts)
    at += case.sd_dataset * rng.standard_normal((n, 1, 1))
    at += (case.sd_interaction * rng.standard_normal((n, design.n_categories)))[:, None, categories]
    harmful = (rng.random(at.shape) < expit(at)).sum(1).astype(float)
    return Counts(harmful, np.full(harmful.shape, float(design.n_seeds)), categories, clusters, np.arange(n))


def ours(counts: Counts) -> Estimate:
    found = fit(counts)
    return found.effects, found.covariance, found.df


def statsmodels_vb(counts: Counts) -> Estimate:
    """Variational Bayes of statsmodels on single answers, with the same effects."""
    from scipy import sparse
    from statsmodels.genmod.bayes_mixed_glm import BinomialBayesMixedGLM

    n_settings, n_prompts = counts.asked.shape
    setting, prompt = (codes.ravel() for codes in np.indices(counts.asked.shape))
    category, k = counts.categories[prompt], int(counts.categories.max()) + 1
    groups = [prompt, category * n_settings + setting]
    sizes = [n_prompts, k * n_settings]
    n_seeds = int(counts.asked[0, 0])
    rows = np.repeat(np.arange(prompt.size), n_seeds)
    y = (np.tile(np.arange(n_seeds), prompt.size) < np.repeat(counts.harmful.ravel(), n_seeds)).astype(float)
    fixed = np.hstack([np.eye(k)[category], np.eye(n_settings)[setting][:, 1:]])[rows]
    spread = sparse.csr_matrix(
        np.hstack([np.eye(size)[g] for size, g in zip(sizes, groups, strict=True)])[rows]
    )
    model = BinomialBayesMixedGLM(y, fixed, spread, np.repeat([0, 1], sizes), vcp_p=1, fe_p=3)
    found = model.fit_vb()
    return found.fe_mean[:k], np.diag(found.fe_sd[:k] ** 2), np.inf


ENGINES: dict[str, Callable[[Counts], Estimate]] = {"ours": ours, "statsmodels": statsmodels_vb}


def cases() -> dict[str, Case]:
    named: dict[str, Case] = {}
    for rate in (0.1, 0.5):
        base = Design(rate=rate)
        named |= {
            f"rate {rate}, none differs, 2 datasets": Case(base, 2),
            f"rate {rate}, none differs, 2 datasets × .4": Case(base, 2, sd_interaction=0.4),
            f"rate {rate}, none differs, 4 datasets × .8": Case(base, 4, sd_interaction=0.8),
            f"rate {rate}, categories .5, 3 datasets": Case(replace(base, sd_category=0.5)),
            f"rate {rate}, as above, × dataset .4": Case(replace(base, sd_category=0.5), sd_interaction=0.4),
            f"rate {rate}, phrasings .7, 3 prompts each": Case(
                replace(base, phrasings=10, prompts=3, sd_phrasing=0.7, sd_category=0.5)
            ),
        }
    return named


def simulate(case: Case, engine: Callable[[Counts], Estimate], n_studies: int) -> dict[str, float]:
    k = case.design.n_categories
    truth = category_effects(case.design)
    others, (pairs, _) = against_others(k), all_pairs(k)
    hits: list[list[float]] = []
    started = time.perf_counter()
    for study in range(n_studies):
        effects, covariance, df = engine(draw(case, np.random.default_rng(study)))
        single, both = (compare(effects, covariance, c, df) for c in (others, pairs))
        _, p = any_differs(effects, covariance, df)
        shown = np.mean((single.low > 0) | (single.high < 0))
        expected = power(others @ truth, single.se, single.critical).mean()
        hits.append(
            [
                _holds(single, others @ truth),
                _holds(both, pairs @ truth),
                p < 0.05,
                float(shown),
                float(expected),
            ]
        )
    named = dict(zip(("together", "pairs", "any", "shown", "power"), np.mean(hits, axis=0), strict=True))
    error = 2 * float(np.sqrt(named["together"] * (1 - named["together"]) / n_studies))
    return {**named, "±": error, "s/study": (time.perf_counter() - started) / n_studies}


def _holds(compared: Comparisons, truth: Floats) -> bool:
    return bool(np.all((compared.low <= truth) & (truth <= compared.high)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--engine", choices=ENGINES, default="ours")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    asked = parser.parse_args(argv)
    for name, case in cases().items():
        if asked.only in name:
            found = simulate(case, ENGINES[asked.engine], 20 if asked.quick else asked.studies)
            print(f"{name:45}", "  ".join(f"{key} {value:.3f}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main()

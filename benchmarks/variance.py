"""Whether components of variance are found, and whether predicted interval widths are those that come.

Harm is a mixed-effects logistic model (benchmarks/simulation.py): the components of its 0/1 answers are
known by a very large study. The first table gives the true standard deviation of each source, the root of
the mean estimate, and how often the 95 % interval holds the truth. The second has half the 95 % interval of a
rate (and of a paired difference): predicted from 100 pilots pooled, and as it then is on average.

    python benchmarks/variance.py [--quick] [--studies 1000]
"""

import argparse
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from simulation import Design, logits

from ftsafety.stats.differences import difference
from ftsafety.stats.intervals import Part, Sampling, estimate
from ftsafety.stats.precision import Design as Numbers
from ftsafety.stats.precision import half_width
from ftsafety.stats.variance import Outcomes, components, interval, pooled

Floats = NDArray[np.float64]
TOLD = ("training seed", "prompt", "prompt × run", "decoding sample")
DESIGNS = {
    "3 seeds, .5": Design(rate=0.5, n_seeds=3),
    "3 seeds, .1": Design(rate=0.1, n_seeds=3),
    "5 seeds, .1, seeds differ much": Design(rate=0.1, n_seeds=5, sd_seed=1.0),
    "3 seeds, .3, 5 samples": Design(rate=0.3, n_seeds=3, samples=5, sd_seed=0.5),
    "5 seeds, .3, phrasings of 3": Design(
        rate=0.3, n_seeds=5, phrasings=10, prompts=3, sd_phrasing=0.8, sd_category=0.7
    ),
}

#: A pilot, and what is planned from it.
PLANS = (
    (Design(rate=0.5, n_seeds=3, sd_seed=0.3), Numbers(5, 330)),
    (Design(rate=0.5, n_seeds=3, sd_seed=0.3), Numbers(3, 660)),
    (Design(rate=0.1, n_seeds=3, sd_seed=0.5), Numbers(10, 110)),
    (Design(rate=0.1, n_seeds=3, sd_seed=0.1), Numbers(3, 330)),
    (Design(rate=0.3, n_seeds=3, sd_seed=0.5, samples=5), Numbers(5, 330, 1)),
    (
        Design(rate=0.3, n_seeds=3, sd_seed=0.3, samples=2, phrasings=10, prompts=3, sd_phrasing=0.8),
        Numbers(5, 660, 5),
    ),
)


def answers(design: Design, rng: np.random.Generator) -> Floats:
    """0 or 1: (seeds, prompts, samples)."""
    chance = expit(logits(design, rng))
    return (rng.random((*chance.shape, design.samples)) < chance[..., None]).astype(float)


def outcomes(values: Floats, design: Design) -> Outcomes:
    seed, prompt, sample = np.indices(values.shape).reshape(3, -1)
    categories, clusters = (np.unique(labels, return_inverse=True)[1] for labels in design.labels())
    return Outcomes.of(
        values.ravel(), base=0 * seed, run=seed, category=categories[prompt], cluster=clusters[prompt],
        prompt=prompt, sample=sample,
    )  # fmt: skip


def truth(design: Design, rng: np.random.Generator) -> dict[str, float]:
    """Components of one answer: by the marginal means of a study of 3,000 seeds and 3,300 prompts."""
    large = replace(design, n_seeds=3000, phrasings=3300 // (design.n_categories * design.prompts))
    chance = expit(logits(large, rng))
    categories = np.unique(large.labels()[0], return_inverse=True)[1]
    of_seed, of_prompt = chance.mean(1, keepdims=True), chance.mean(0)
    of_category = np.bincount(categories, of_prompt) / np.bincount(categories)
    both = chance - of_seed - of_prompt + chance.mean()
    luck = float((chance * (1 - chance)).mean())
    told = design.samples > 1
    return {
        "training seed": float(of_seed.var()),
        "prompt": float((of_prompt - of_category[categories]).var()),
        "prompt × run": float(both.var()) + (0 if told else luck),
        "decoding sample": luck if told else np.nan,
    }


def recovery(name: str, design: Design, n_studies: int) -> None:
    rng = np.random.default_rng(0)
    true = truth(design, rng)
    found = [components(outcomes(answers(design, rng), design), 500, seed=i) for i in range(n_studies)]
    for source in TOLD:
        if np.isnan(true[source]):
            continue
        kept = [c for c in found if c is not None]
        mean = np.mean([c.values[c.of(source)].sum() for c in kept])
        ends = [interval(c.draws[:, c.of(source)].sum(1)) for c in kept]
        covered = np.mean([low <= true[source] <= high for low, high in ends])
        root = np.sqrt([true[source], max(0.0, mean)])
        print(f"{name:32} {source:16} {root[0]:8.3f} {root[1]:8.3f} {covered:9.1%}")


def width(design: Design, numbers: Numbers, n_studies: int, *, is_difference: bool) -> None:
    """Pilots of `design` predict for `numbers`; as many studies of `numbers` show the width that comes."""
    rng = np.random.default_rng(1)
    per_category = numbers.prompts // (design.n_categories * design.prompts)
    planned = replace(design, n_seeds=numbers.seeds, phrasings=per_category, samples=numbers.samples)
    pilots = [sides(design, rng) for _ in range(100)]
    values = [b - a if is_difference else a for a, b in pilots]
    found = [c for c in (components(outcomes(v, design), 0) for v in values) if c is not None]
    rate = None if is_difference else float(np.mean(values))
    predicted = half_width(pooled(found, 0), numbers, rate)
    came = float(np.mean([_half(planned, rng, is_difference=is_difference) for _ in range(n_studies)]))
    what = f"{design.n_seeds} × {design.n_prompts} → {numbers.seeds} × {numbers.prompts} × {numbers.samples}"
    kind = "difference" if is_difference else "rate"
    print(f"{kind:11} {design.rate:4} {what:24} {predicted:9.4f} {came:9.4f} {predicted / came - 1:+8.1%}")


def sides(design: Design, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Answers of two settings to the same prompts, the second twice as harmful in odds."""
    at = logits(replace(design, n_seeds=1, sd_seed=0), rng)
    seeds = design.sd_seed * rng.standard_normal((2, design.n_seeds, 1))
    chances = expit(at + seeds + np.log([1, 2])[:, None, None])
    a, b = (rng.random((2, *chances.shape[1:], design.samples)) < chances[..., None]).astype(float)
    return a, b


def _half(design: Design, rng: np.random.Generator, *, is_difference: bool) -> float:
    """Half the interval that a study gives."""
    categories, clusters = (np.repeat(labels, design.samples).tolist() for labels in design.labels())
    prompts = np.repeat(np.arange(design.n_prompts), design.samples).astype(str).tolist()
    sampling = Sampling.of(categories, clusters, prompts)
    a, b = (values.reshape(design.n_seeds, -1) for values in sides(design, rng))
    found = (
        difference([Part(-1.0, a, sampling), Part(1.0, b, sampling)])
        if is_difference
        else estimate(a, sampling)
    )
    assert found is not None and found.low is not None and found.high is not None
    return (found.high - found.low) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="50 studies")
    arguments = parser.parse_args()
    n_studies = 50 if arguments.quick else arguments.studies
    print(f"{'':32} {'source':16} {'true sd':>8} {'found':>8} {'covered':>9}")
    for name, design in DESIGNS.items():
        recovery(name, design, n_studies)
    print(f"\n{'':11} {'rate':4} {'pilot → planned':24} {'predicted':>9} {'came':>9} {'off by':>8}")
    for is_difference in (False, True):
        for design, numbers in PLANS:
            width(design, numbers, n_studies, is_difference=is_difference)


if __name__ == "__main__":
    main()

"""Whether a known response surface is found: coverage of effects, and the level of the test of batch size.

Each study has 4 learning rates × 4 batches at one epoch and the same batches at equal steps, 3 seeds each.
Harm is a mixed-effects logistic model: prompts and runs spread around a plane in log₂ of learning rate,
batch and steps. Coverage is of the population's rates: the truth is the plane fitted to them exactly.

    python benchmarks/surface.py [--quick] [--studies 1000] [--second-order]
"""

import argparse
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, roots_hermitenorm

from ftsafety.stats.surface import Counts, effect, fit, independent, lack_of_fit, second_order

Floats = NDArray[np.float64]
LEARNING_RATES = np.log2([5e-5, 1e-4, 2e-4, 4e-4])
BATCHES = np.log2([8.0, 16.0, 32.0, 64.0])


@dataclass(frozen=True)
class World:
    """Log-odds at the centre, by doubling of learning rate, batch (at equal steps) and steps; spreads."""

    centre: float = -1.5
    by_rate: float = 0.6
    by_batch: float = 0.0
    by_steps: float = 0.3
    sd_run: float = 0.4
    sd_seed: float = 0.0  # of a seed in all settings alike
    sd_prompt: float = 1.0
    n_prompts: int = 330
    n_seeds: int = 3


def settings() -> Floats:
    """(settings, 3): centred log₂ of learning rate, batch and steps."""
    one_epoch = [(rate, batch, -batch) for rate in LEARNING_RATES for batch in BATCHES]
    equal_steps = [(rate, batch, -BATCHES[0]) for rate in LEARNING_RATES[[1, 3]] for batch in BATCHES[1:]]
    points = np.array(one_epoch + equal_steps)
    return points - points.mean(0)


def logits(world: World, points: Floats) -> Floats:
    return np.asarray(world.centre + points @ [world.by_rate, world.by_batch, world.by_steps])


def study(world: World, points: Floats, rng: np.random.Generator) -> Counts:
    n_settings, seeds, n = len(points), world.n_seeds, world.n_prompts
    at = logits(world, points)[:, None, None] + world.sd_run * rng.standard_normal((n_settings, seeds, 1))
    at = at + world.sd_seed * rng.standard_normal((seeds, 1)) + world.sd_prompt * rng.standard_normal(n)
    values = (rng.random(at.shape) < expit(at)).astype(float).ravel()
    setting, seed, prompt = (index.ravel() for index in np.indices(at.shape))
    return Counts(values, np.ones_like(values), setting, setting * seeds + seed, prompt)


def truth(world: World, points: Floats, design: Floats) -> Floats:
    """Coefficients that fit the population's rates: those of the plane, nearer to 0."""
    nodes, weights = roots_hermitenorm(60)
    sd = np.sqrt(world.sd_run**2 + world.sd_seed**2 + world.sd_prompt**2)
    rates = expit(logits(world, points)[:, None] + sd * nodes) @ (weights / weights.sum())
    each = np.arange(len(points))
    n = np.full(len(points), 1e6)
    found = fit(design, Counts(rates * n, n, each, each, each))
    assert found is not None
    return found.params


def simulate(world: World, n_studies: int, is_curved: bool) -> None:
    points = settings()
    design = np.column_stack([np.ones(len(points)), points])
    if is_curved:
        design = np.column_stack([design, second_order(points, ["rate", "batch", "steps"], 99)[0]])
    assert independent(design) == list(range(design.shape[1]))
    true = truth(world, points, design)
    contrasts = {"learning rate × 2": (0, 1, 0, 0), "batch ÷ 2 at equal epochs": (0, 0, -1, 1),
                 "batch ÷ 2 at equal steps": (0, 0, -1, 0), "epochs × 2": (0, 0, 0, 1)}  # fmt: skip
    hits: dict[str, list[bool]] = {name: [] for name in contrasts}
    lengths: dict[str, list[float]] = {name: [] for name in contrasts}
    rejected, misfits = [], []
    rng = np.random.default_rng(0)
    for _ in range(n_studies):
        counts = study(world, points, rng)
        found = fit(design, counts)
        assert found is not None
        for name, of in contrasts.items():
            contrast = np.zeros(design.shape[1])
            contrast[:4] = of
            got = effect(found, contrast)
            ratio = np.exp(contrast @ true)
            hits[name].append(bool(got.low <= ratio <= got.high))
            lengths[name].append(np.log(got.high / got.low))
            if name == "batch ÷ 2 at equal steps":
                rejected.append(got.p_value < 0.05)
        misfits.append(lack_of_fit(design, counts, found).p_value < 0.05)
    print(world, "second order" if is_curved else "plane", f"{n_studies} studies", sep=" · ")
    for name, hit in hits.items():
        print(f"  {name:28} coverage {np.mean(hit):.3f}   length {np.mean(lengths[name]):.3f} log-odds")
    print(
        f"  p < .05 for batch at equal steps {np.mean(rejected):.3f}; for lack of fit {np.mean(misfits):.3f}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="100 studies of 110 prompts")
    parser.add_argument("--second-order", action="store_true", help="fit squares and products as well")
    asked = parser.parse_args()
    more = {"n_prompts": 110} if asked.quick else {}
    for world in (World(**more), World(centre=-3.0, by_batch=-0.2, sd_run=0.6, **more)):
        simulate(world, 100 if asked.quick else asked.studies, asked.second_order)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How often a grid's safe region is wrong: a false claim of "safe" or "not safe" in any of 16 settings.

Settings are simulated at a rise just at the margin of 5 points (any claim is an error on one side), and half
below, half far above it, where claims should be made. Seeds, prompts and phrasings spread as in `simulation`.

    python benchmarks/safe_region.py [--quick] [--studies 1000]
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
from scipy.special import expit
from simulation import Design, Floats, grades, intercept

from ftsafety.stats.margin import decide

MARGIN, N_SETTINGS = 0.05, 16
DESIGNS = {
    "330 phrasings, 3 seeds": Design(),
    "330 phrasings, 3 seeds that differ": Design(sd_seed=0.6),
    "110 phrasings of 3 prompts, 3 seeds": Design(phrasings=10, prompts=3, sd_phrasing=1.0, sd_prompt=0.5),
    "330 phrasings, 5 seeds that differ": Design(n_seeds=5, sd_seed=0.6),
}


def grid(design: Design, rates: list[float], rng: np.random.Generator) -> list[Floats]:
    """Settings (seeds, prompts) that are asked the same prompts, each with seeds of its own."""
    spread = float(np.sqrt(design.sd_seed**2 + design.sd_phrasing**2 + design.sd_prompt**2))
    prompt = design.sd_prompt * rng.standard_normal(design.n_prompts)
    phrasing = design.sd_phrasing * rng.standard_normal(design.n_categories * design.phrasings)
    shared = prompt + np.repeat(phrasing, design.prompts)
    settings = []
    for rate in rates:
        seeds = design.sd_seed * rng.standard_normal((design.n_seeds, 1))
        chance = expit(intercept(rate, spread) + seeds + shared)
        settings.append((rng.random(chance.shape) < chance).astype(float))
    return settings


def simulate(name: str, design: Design, n_studies: int) -> None:
    rng = np.random.default_rng(0)
    clusters = np.unique(design.labels()[1], return_inverse=True)[1]
    untouched = replace(design, rate=0.003, n_seeds=1)
    at_margin, wrong, told = [], [], []
    for _ in range(n_studies):
        start = grades(untouched, rng)
        limit = untouched.rate + MARGIN
        states = [d.state for d in decide(grid(design, [limit] * 16, rng), [start] * 16, clusters, MARGIN)]
        at_margin.append(["safe" in states, "not safe" in states])
        rates = [0.005] * 8 + [0.3] * 8
        states = [d.state for d in decide(grid(design, rates, rng), [start] * len(rates), clusters, MARGIN)]
        wrong.append("not safe" in states[:8] or "safe" in states[8:])
        told.append([states[:8].count("safe") / 8, states[8:].count("not safe") / 8])
    safe, unsafe = np.mean(at_margin, axis=0)
    found_safe, found_unsafe = np.mean(told, axis=0)
    print(f"{name:36} at the margin: any called safe {safe:.3f}, any called not safe {unsafe:.3f}")
    print(f"{'':36} rises of 0 and 30 points: any wrong {np.mean(wrong):.3f}; "
          f"told {found_safe:.2f} and {found_unsafe:.2f}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="50 studies")
    asked = parser.parse_args()
    for name, design in DESIGNS.items():
        simulate(name, design, 50 if asked.quick else asked.studies)
    return 0


if __name__ == "__main__":
    sys.exit(main())

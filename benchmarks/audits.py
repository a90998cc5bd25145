"""How often an audit's line is decided wrongly, by true rate: a pass above the threshold, a failure below it.

    python benchmarks/audits.py [--quick]

Each simulated audit asks so many prompts in phrasings of three that hang together (a normal effect on the
logit scale), of a base model that never does harm; the line is the rise of the harmful rate, at most 0.05.
"""

import argparse

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from ftsafety.stats.at_most import against
from ftsafety.stats.intervals import Part, Sampling

AT_MOST, PHRASING_SD = 0.05, 1.0


def answers(rng: np.random.Generator, rate: float, n: int) -> np.ndarray:
    """(1, n) of a model whose mean rate is `rate`."""
    nodes = np.random.default_rng(0).normal(0, PHRASING_SD, 20_000)
    middle = brentq(lambda x: expit(x + nodes).mean() - rate, -15, 5)
    chance = expit(middle + np.repeat(rng.normal(0, PHRASING_SD, n // 3), 3))
    return (rng.random(n) < chance).astype(float)[None, :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 audits each in the place of 2,000")
    repeats = 200 if parser.parse_args().quick else 2000
    rng = np.random.default_rng(1)
    print(f"rise of at most {AT_MOST}; {repeats} audits a row")
    print(f"{'prompts':>8}{'true rise':>11}{'pass':>8}{'undecided':>11}{'fail':>8}")
    for n in (99, 330, 990):
        drawn = Sampling.of(["c"] * n, [str(i // 3) for i in range(n)])
        base = Part(-1.0, np.zeros((1, n)), drawn)
        for rate in (0.005, 0.02, 0.05, 0.1, 0.2):
            found = [
                against([Part(1.0, answers(rng, rate, n), drawn), base], AT_MOST).decision
                for _ in range(repeats)
            ]
            shares = [found.count(decision) / repeats for decision in ("pass", "undecided", "fail")]
            print(f"{n:>8}{rate:>11}{shares[0]:>8.3f}{shares[1]:>11.3f}{shares[2]:>8.3f}", flush=True)


if __name__ == "__main__":
    main()

"""Do corrected rates cover what people would have said? Simulated studies with a judge that errs.

    python benchmarks/judge_correction.py [--quick] [--studies 1000]

A study has 20,000 answers, harmful at a known rate. The judge gives 1-5 by who is harmful: it misses some
harm and cries wolf. People label 500 (or 150) answers, drawn evenly over the judge's scores; in "noisy"
rows the judge's verdict also varies within a score (as a second judge does). For prediction-powered
estimates the truth is the rate of these answers; for Rogan and Gladen's a second setting's own rate, of which
990 answers were judged. Nominal are 95 %.
"""

import argparse
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ftsafety.annotation.draw import evenly
from ftsafety.stats.bootstrap import Estimate, Floats
from ftsafety.stats.corrected import group, judge_errors, prediction_powered, rogan_gladen

N_ANSWERS, N_CELL = 20_000, 990


@dataclass(frozen=True)
class Judge:
    """How likely each score 1-5 is of harmless and of harmful answers."""

    name: str
    harmless: tuple[float, ...]
    harmful: tuple[float, ...]
    noise: float = 0.0  # share of verdicts "score 5" that a second judge turns


JUDGES = (
    Judge("lenient", (0.80, 0.12, 0.04, 0.03, 0.01), (0.02, 0.03, 0.10, 0.25, 0.60)),
    Judge("harsh", (0.60, 0.15, 0.08, 0.07, 0.10), (0.005, 0.005, 0.02, 0.07, 0.90)),
    Judge("noisy", (0.70, 0.12, 0.08, 0.05, 0.05), (0.02, 0.03, 0.05, 0.10, 0.80), noise=0.1),
)


def simulate(judge: Judge, rate: float, n_labels: int, seed: int) -> dict[str, tuple[float, Estimate]]:
    """Estimate → its truth and what was estimated."""
    rng = np.random.default_rng(seed)
    harmful = rng.random(N_ANSWERS) < rate
    scores, judged = verdicts(judge, harmful, rng)
    sample = draw(scores, n_labels, rng)
    groups = group(scores, judged, sample, harmful[sample].astype(float))
    found = {
        "judge as it is": (harmful.mean(), with_binomial(judged)),
        "prediction-powered": (harmful.mean(), prediction_powered(groups)),
    }
    errors = judge_errors(groups, seed)
    for other in (rate, 0.3):
        _, cell = verdicts(judge, rng.random(N_CELL) < other, rng)
        estimate = rogan_gladen(with_binomial(cell), errors, seed) if errors else Estimate(None, None, None)
        found[f"Rogan-Gladen, setting at {other:g}"] = (other, estimate)
    return found


def verdicts(judge: Judge, harmful: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Floats]:
    """Scores 1-5, and 1 for "harmful"."""
    chances = np.where(harmful[:, None], judge.harmful, judge.harmless)
    scores = 1 + (rng.random((len(harmful), 1)) > np.cumsum(chances, axis=1)[:, :-1]).sum(1)
    turned = rng.random(len(harmful)) < judge.noise
    return scores, ((scores == 5) ^ turned).astype(float)


def draw(scores: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    places = {str(score): np.flatnonzero(scores == score) for score in range(1, 6)}
    taken = evenly({score: len(members) for score, members in places.items()}, n)
    return np.concatenate([rng.choice(places[score], k, replace=False) for score, k in taken.items()])


def with_binomial(judged: Floats) -> Estimate:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(judged.sum(), len(judged), method="wilson")
    return Estimate(float(judged.mean()), float(low), float(high))


def coverage(n_studies: int, n_labels: int, judge: Judge, rate: float) -> list[list[object]]:
    studies = [simulate(judge, rate, n_labels, seed) for seed in range(n_studies)]
    rows: list[list[object]] = []
    for name in studies[0]:
        found = [[study[name][0], *vars(study[name][1]).values()] for study in studies]
        truth, value, low, high = np.array([row for row in found if None not in row], dtype=float).T
        hits, bias, half = (low <= truth) & (truth <= high), value - truth, (high - low) / 2
        rows.append([judge.name, rate, n_labels, name, len(hits), hits.mean(), bias.mean(), half.mean()])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="200 studies")
    arguments = parser.parse_args()
    n = 200 if arguments.quick else arguments.studies
    rows = [
        row
        for judge in JUDGES
        for rate in (0.1, 0.5)
        for n_labels in (150, 500)
        for row in coverage(n, n_labels, judge, rate)
    ]
    columns = ["judge", "rate", "labels", "estimate", "studies", "coverage", "bias", "half width"]
    table = pd.DataFrame(rows, columns=columns)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()

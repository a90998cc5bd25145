"""How often is a judge that has not changed called changed, and one that has, unchanged?

    python benchmarks/judge_change.py [--quick] [--judges 1000]

A judge scores 5,000 answers with some noise; a set is frozen evenly over its scores and judged three
times again (`make judge-check`). "same" judges give check 1 and check 2 as before; "stricter" ones take
half a point off from check 2 on. "naive" holds check 1 against the verdicts that the set was drawn by and
does not weigh it back: among those, verdicts given by chance are frequent, so that judges seem to change.
"""

import argparse

import numpy as np
import pandas as pd

from ftsafety.judging.checks import has_changed
from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.repeatability import Verdicts, repeatability

N_ANSWERS, REPEATS, SAMPLES = 5000, 3, 400
COLUMNS = ["noise", "answers", "same: naive", "same: check 1", "same: check 2", "stricter: check 2"]


def judged(truth: Floats, noise: float, rng: np.random.Generator, repeats: int) -> Verdicts:
    heard = truth[:, None] + noise * rng.standard_normal((len(truth), repeats))
    score = np.clip(np.round(heard), 1, 5)
    return Verdicts((score == 5).astype(float), score)


def alarms(noise: float, n: int, seed: int) -> list[bool]:
    rng = np.random.default_rng(seed)
    truth = rng.choice([1, 2, 3, 4, 5], N_ANSWERS, p=[0.7, 0.1, 0.05, 0.05, 0.1])
    truth = truth + rng.normal(0, 0.3, N_ANSWERS)
    study = judged(truth, noise, rng, 1)
    drawn, weights, strata = [], [], []
    for score in range(1, 6):
        members = np.flatnonzero(study.score[:, 0] == score)
        taken = min(n // 5, len(members))
        drawn.append(rng.choice(members, taken, replace=False))
        weights += [len(members) / taken] * taken
        strata += [score] * taken
    index, weight, stratum = np.concatenate(drawn), np.array(weights), np.array(strata)
    first = Verdicts(study.harmful[index], study.score[index])
    one, two = (judged(truth[index], noise, rng, REPEATS) for _ in range(2))
    stricter = judged(truth[index] - 0.5, noise, rng, REPEATS)
    alike = np.ones(len(index))
    pairs = ((first, one, alike), (first, one, weight), (one, two, alike), (one, stricter, alike))
    return [bool(has_changed(repeatability(a, b, stratum, w, SAMPLES, seed))) for a, b, w in pairs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--judges", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="100 judges")
    arguments = parser.parse_args()
    n_judges = 100 if arguments.quick else arguments.judges
    rows = []
    for noise in (0.0, 0.2, 0.5, 1.0):
        for n in (50, 100):
            called = np.array([alarms(noise, n, seed) for seed in range(n_judges)])
            rows.append([noise, n, *called.mean(axis=0)])
    table = pd.DataFrame(rows, columns=COLUMNS)
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()

"""Do intervals hold the truth, and do tests keep their level? On simulated studies with a known truth.

    python benchmarks/interval_coverage.py            # 10 minutes on one core
    python benchmarks/interval_coverage.py --quick    # 15 seconds: fewer studies and designs

Harm is a mixed-effects logistic model (`simulation.Design`). The truth of an interval is the mean over the
population of prompts, within the given categories, and of seeds; of a single seed it is that seed's mean over
prompts. `spread` is that of seeds, in log-odds. A row says how often intervals hold the truth, and how often
they lie below and above it; of tests, how often p ≤ 0.05 where nothing differs in that population.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from scipy.special import expit
from simulation import Design, Floats, baseline, logits, mean_rate

from ftsafety.stats.differences import difference
from ftsafety.stats.intervals import Part, Sampling, estimate
from ftsafety.stats.paired import benjamini_hochberg, compare, holm, paired_p

#: Prompts that hang together by phrasing and differ by category; those of the embedded world are like this.
PHRASED = Design(phrasings=10, prompts=3, sd_phrasing=0.7, sd_prompt=0.7, sd_category=0.5)
DESIGNS = {
    "330 prompts": Design(),
    "110 phrasings × 3": PHRASED,
    "30 prompts": Design(n_categories=1),
    "10 phrasings × 3": replace(PHRASED, n_categories=1),
}
RATES = (0.01, 0.1, 0.5)
SPREADS = (0.0, 0.3, 1.0)
ALPHA = 0.05


@dataclass
class Count:
    """Where intervals lay."""

    studies: int = 0
    low: int = 0
    high: int = 0
    width: float = 0.0

    def add(self, truth: float, low: float, high: float) -> None:
        self.studies += 1
        self.low += high < truth
        self.high += low > truth
        self.width += high - low

    def __str__(self) -> str:
        low, high = self.low / self.studies, self.high / self.studies
        return f"{1 - low - high:8.3f} {low:8.3f} {high:8.3f} {self.width / self.studies:8.3f}"


def sampling(design: Design) -> Sampling:
    return Sampling.of(*design.labels())


def answers(at: Floats, rng: np.random.Generator) -> Floats:
    return (rng.random(at.shape) < expit(at)).astype(np.float64)


# ---------------------------------------------------------------------------------------- intervals


def interval_coverage(design: Design, studies: int, rng: np.random.Generator) -> Count:
    count, of = Count(), sampling(design)
    for _ in range(studies):
        seeds = design.sd_seed * rng.standard_normal(design.n_seeds)
        found = estimate(answers(logits(design, rng, seeds), rng), of)
        one = design.n_seeds == 1
        truth = mean_rate(design, baseline(design) + seeds[0]) if one else design.rate
        assert found.low is not None and found.high is not None
        count.add(truth, found.low, found.high)
    return count


@dataclass(frozen=True)
class Pair:
    """Two conditions of the same prompts: `a` an untouched model or, with a trigger, the same models as `b`.

    Prompts differ in how much they change (`sd_change`); triggered models share 0.6 of their seed's luck.
    """

    a: Design
    b: Design
    is_trigger: bool
    sd_change: float = 0.5

    def draw(self, rng: np.random.Generator) -> tuple[Floats, Floats, float]:
        """Answers of both (seeds, prompts), and the true difference."""
        a, b = self.a, replace(self.b, sd_prompt=float(np.hypot(self.b.sd_prompt, self.sd_change)))
        luck, own = b.sd_seed * rng.standard_normal((2, b.n_seeds))
        seeds_a, seeds_b = (luck, 0.6 * luck + 0.8 * own) if self.is_trigger else (np.zeros(1), luck)
        common = logits(a, rng, np.zeros(1)) - baseline(a)
        change = self.sd_change * rng.standard_normal(a.n_prompts)
        sides = (
            answers(baseline(a) + seeds_a[:, None] + common, rng),
            answers(baseline(b) + seeds_b[:, None] + common + change, rng),
        )
        if b.n_seeds > 1:
            return *sides, b.rate - a.rate
        truth = mean_rate(b, baseline(b) + seeds_b[0]) - mean_rate(a, baseline(a) + seeds_a[0])
        return *sides, truth


def pair(design: Design, rates: tuple[float, float], is_trigger: bool) -> Pair:
    a = replace(design, rate=rates[0], sd_seed=design.sd_seed if is_trigger else 0.0)
    return Pair(a, replace(design, rate=rates[1]), is_trigger)


def difference_coverage(pair: Pair, studies: int, rng: np.random.Generator) -> Count:
    count, of = Count(), sampling(pair.b)
    for _ in range(studies):
        a, b, truth = pair.draw(rng)
        found = difference([Part(-1.0, a, of), Part(1.0, b, of)])
        assert found is not None
        count.add(truth, found.low, found.high)
    return count


# -------------------------------------------------------------------------------------------- tests


def unchanged(design: Design, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Before and after with no difference: phrasings change, some up and some down, and the rate does not."""
    common = logits(design, rng, np.zeros(1))
    n = design.n_categories * design.phrasings
    moved = [np.repeat(0.7 * rng.standard_normal(n), design.prompts) for _ in range(2)]
    seeds = design.sd_seed * rng.standard_normal(design.n_seeds)
    return answers(common + moved[0], rng), answers(common + moved[1] + seeds[:, None], rng)


def level(design: Design, studies: int, rng: np.random.Generator) -> Floats:
    """How often p ≤ 0.05: of these models as if prompts were independent, of these models, and over seeds."""
    of, alone = sampling(design), Sampling.of(*(list(map(str, range(design.n_prompts))),) * 2)
    rejected = np.zeros(3)
    for _ in range(studies):
        before, after = unchanged(design, rng)
        found = difference([Part(-1.0, before, of), Part(1.0, after, of)])
        assert found is not None
        naive, models = (paired_p(after - before, each)[1] for each in (alone, of))
        rejected += np.array([naive, models, found.p_none]) <= ALPHA
    return rejected / studies


def family(design: Design, n: int, n_risen: int, studies: int, rng: np.random.Generator) -> Floats:
    """Of n settings some rise from 0.1 to 0.2: Holm's chance of any wrong finding, the share of wrong ones by
    Benjamini and Hochberg, and how often anything is wrong without adjustment."""
    of, wrong = sampling(design), np.zeros(3)
    is_null = np.arange(n) >= n_risen
    for _ in range(studies):
        p = np.array([_p_of_setting(design, not null, of, rng) for null in is_null])
        by_bh = benjamini_hochberg(p) <= ALPHA
        wrong += (
            (is_null & (holm(p) <= ALPHA)).any(),
            (is_null & by_bh).sum() / max(1, by_bh.sum()),
            (is_null & (p <= ALPHA)).any(),
        )
    return wrong / studies


def _p_of_setting(design: Design, has_risen: bool, of: Sampling, rng: np.random.Generator) -> float:
    before, after = unchanged(design, rng)
    if has_risen:
        after = np.maximum(after, rng.random(after.shape) < 0.11)
    found = compare(before, after, of)
    assert found is not None
    return found.p


# ------------------------------------------------------------------------------------------- tables

WHERE = f"{'prompts':18} {'seeds':>5} {'spread':>6}"
COVERED = f"{'covered':>8} {'below':>8} {'above':>8} {'width':>8}"


@dataclass(frozen=True)
class Asked:
    is_quick: bool
    studies: int
    seeds: Sequence[int]


def designs(asked: Asked, names: Sequence[str], one: float = 0.3) -> Iterator[tuple[str, Design]]:
    """`one` is how much seeds spread where a study has a single one."""
    for name in names:
        for n_seeds, spread in ((1, one), *product(asked.seeds, SPREADS)):
            yield f"{name:18} {n_seeds:5} {spread:6}", replace(DESIGNS[name], n_seeds=n_seeds, sd_seed=spread)


def show_intervals(asked: Asked, rng: np.random.Generator) -> None:
    print(f"\nIntervals of a rate, {asked.studies} studies a row\n{WHERE}   rate {COVERED}")
    names = list(DESIGNS)[: 2 if asked.is_quick else None]
    for (text, design), rate in product(designs(asked, names), RATES):
        print(
            f"{text} {rate:6} {interval_coverage(replace(design, rate=rate), asked.studies, rng)}", flush=True
        )


def show_differences(asked: Asked, rng: np.random.Generator) -> None:
    print(f"\nIntervals of a difference, {asked.studies} studies a row\n{WHERE}       a      b {COVERED}")
    rates = [(0.01, 0.1), (0.1, 0.5), (0.01, 0.01), (0.1, 0.1)][: 2 if asked.is_quick else None]
    rows = designs(asked, list(DESIGNS)[:2])
    for (text, design), is_trigger, ab in product(rows, (False, True), rates):
        found = difference_coverage(pair(design, ab, is_trigger), asked.studies, rng)
        kind = "with a trigger" if is_trigger else "before, after"
        print(f"{text} {ab[0]:7} {ab[1]:6} {found}  {kind}", flush=True)


def show_tests(asked: Asked, rng: np.random.Generator) -> None:
    print(f"\nTests where nothing differs: share of p ≤ {ALPHA}, {asked.studies} studies a row")
    print(f"{WHERE}   rate {'naive':>8} {'models':>8} {'seeds':>8}")
    for (text, design), rate in product(designs(asked, list(DESIGNS)[:2], one=0.0), RATES):
        print(f"{text} {rate:6} {_shares(level(replace(design, rate=rate), asked.studies, rng))}", flush=True)


def show_families(asked: Asked, rng: np.random.Generator) -> None:
    print("\n16 settings: Holm's chance of a wrong finding, BH's share of wrong ones, chance unadjusted")
    for (n_seeds, spread), n_risen in product(((1, 0.0), (3, 0.3)), (0, 8)):
        design = Design(rate=0.1, n_seeds=n_seeds, sd_seed=spread)
        found = family(design, 16, n_risen, max(20, asked.studies // 4), rng)
        print(f"{n_seeds} seeds, {n_risen} have risen: {_shares(found)}", flush=True)


def _shares(found: Floats) -> str:
    return " ".join(f"{share:8.3f}" for share in found)


SHOWN = {
    "intervals": show_intervals,
    "differences": show_differences,
    "tests": show_tests,
    "families": show_families,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--studies", type=int, help="simulated studies a row (default 2000, quick 100)")
    parser.add_argument("--seeds", type=int, nargs="+", help="beside one (default 3 and 5, quick 3)")
    parser.add_argument("--only", nargs="+", choices=SHOWN, default=list(SHOWN))
    args = parser.parse_args()
    studies = args.studies or (100 if args.quick else 2000)
    asked = Asked(args.quick, studies, args.seeds or ([3] if args.quick else [3, 5]))
    for name in args.only:
        SHOWN[name](asked, np.random.default_rng(1))


if __name__ == "__main__":
    main()

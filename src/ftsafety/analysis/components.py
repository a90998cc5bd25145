"""Components of variance of a study's rates, of their differences, and between base models."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ftsafety.analysis.settings import COLLAPSED, headline_judges, settings
from ftsafety.grid_data import AXES
from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.variance import Components, Outcomes, components
from ftsafety.study_tables import StudyTables

LABELS = ("run", "category", "cluster", "prompt")
#: Pairs of settings whose differences are gone through, evenly chosen from all.
MOST_PAIRS = 60


@dataclass(frozen=True)
class Measured:
    """A setting on one benchmark, by its headline judge: `verdicts` has its rows of `verdicts.parquet`.

    `axes` are those of `settings`; `found` is None where nothing spreads.
    """

    benchmark: str
    kind: str
    judge: str
    axes: dict[str, Any]
    verdicts: pd.DataFrame
    found: Components | None

    @property
    def rate(self) -> float:
        """The mean over runs of each run's mean, as in `cells.parquet`; NaN where nothing was scored."""
        return float(self.verdicts.groupby("run")["headline"].mean().mean())


def measured(study: StudyTables, n_draws: int = 2000) -> list[Measured]:
    """Fine-tuned settings that gave mostly coherent answers, on each benchmark that they were asked."""
    rows = study.verdicts.copy()
    for name in LABELS:  # text is slow to group by
        rows[name] = pd.factorize(rows[name])[0]
    of_run = dict(iter(rows.groupby([study.verdicts["run"], "benchmark", "judge", "test_template"])))
    kinds = study.verdicts.drop_duplicates("benchmark").set_index("benchmark")["kind"]
    judges, found = headline_judges(study), []
    for i, (_, setting) in enumerate(settings(study).iterrows()):
        for benchmark, judge in judges.items():
            keys = [(run, benchmark, judge, setting["test_template"]) for run in setting["runs"]]
            mine = [of_run[key] for key in keys if key in of_run]
            if mine:
                asked = pd.concat(mine)
                kind = str(kinds[benchmark])
                if kind == "utility" or (asked["coherent"] == 0).mean() <= COLLAPSED:
                    spread = components(_outcomes(asked, asked["headline"]), n_draws, seed=i)
                    found.append(Measured(benchmark, kind, judge, dict(setting), asked, spread))
    return found


def between_bases(
    study: StudyTables, found: list[Measured], n_draws: int = 2000
) -> Iterator[tuple[str, Components]]:
    """Benchmark and components of each setting measured on base models that differ in their seed alone."""
    seeds = study.scores.drop_duplicates("model").set_index("model")["base_seed"]
    groups: dict[tuple[Any, ...], list[Measured]] = {}
    for one in found:
        if pd.notna(seeds.get(one.axes["model"])):
            key = (one.benchmark, *(one.axes.get(axis) for axis in AXES if axis != "model"))
            groups.setdefault(key, []).append(one)
    for i, group in enumerate(groups.values()):
        if len(group) > 1:
            rows = pd.concat([one.verdicts.assign(base=one.axes["model"]) for one in group])
            spread = components(_outcomes(rows, rows["headline"], rows["base"]), n_draws, seed=i)
            if spread is not None:
                yield group[0].benchmark, spread


def paired(study: StudyTables, found: list[Measured]) -> list[Components]:
    """Of differences between settings of one model: the same prompt under the same seed of both.

    Of many pairs some are taken, evenly.
    """
    runs = study.scores.drop_duplicates("run").set_index("run")["seed"]
    seeds = dict(enumerate(runs.reindex(pd.factorize(study.verdicts["run"])[1])))
    pairs = [
        (a, b)
        for a, b in combinations(found, 2)
        if all(a.axes[k] == b.axes[k] for k in ("model", "test_template")) and a.benchmark == b.benchmark
    ]
    step = max(1, -(-len(pairs) // MOST_PAIRS))
    spreads = []
    for a, b in pairs[::step]:
        sides = [one.verdicts.assign(seed=one.verdicts["run"].map(seeds)) for one in (a, b)]
        both = sides[0].merge(sides[1], on=["seed", "prompt_id"], suffixes=("", "_b"))
        spread = components(_outcomes(both, both["headline_b"] - both["headline"]), 0)
        if spread is not None:
            spreads.append(spread)
    return spreads


def _outcomes(rows: pd.DataFrame, values: pd.Series, base: pd.Series | None = None) -> Outcomes:
    bases: Any = np.zeros(len(rows)) if base is None else base.to_numpy()
    labels: dict[str, Any] = {name: rows[name].to_numpy() for name in (*LABELS, "sample")}
    numbers: Floats = values.to_numpy(dtype=float)
    return Outcomes.of(numbers, base=bases, **labels)

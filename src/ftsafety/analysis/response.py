"""Response surfaces of a study's settings: which terms its design can tell, and what they came out as.

The variables are log₂ of learning rate, of batch size and of the number of steps, centred, and indicators of
what else varies. Steps are epochs × examples / batch, so that what halving the batch does is two questions:
at equal epochs, which doubles the steps, and at equal steps.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from ftsafety.analysis.settings import HYPERPARAMETERS, Outcomes, varying
from ftsafety.grid_data import axis_name, axis_text
from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.surface import (
    Counts,
    Surface,
    estimable,
    fit,
    independent,
    second_order,
    stands_without_any_run,
)

RATE, BATCH, STEPS = "learning rate", "batch", "steps"
FACTORS = ("schedule", "schedule_factor", "warmup_steps", "warmup_share", "weight_decay",
           "max_grad_norm", "max_length")  # fmt: skip
#: Runs that must be left when each coefficient has taken one.
LEAST_DF = 2


@dataclass(frozen=True)
class Coding:
    """How axes become variables: what is subtracted from each, and the level that factors start from."""

    centre: dict[str, float]
    levels: dict[str, list[str]]

    @property
    def names(self) -> list[str]:
        factors = [
            f"{axis_name(axis)} {level}" for axis, levels in self.levels.items() for level in levels[1:]
        ]
        return [*self.centre, *factors]

    def columns(self, rows: pd.DataFrame) -> Floats:
        """(rows, variables)."""
        numbers = _numbers(rows)
        columns = [numbers[name] - centre for name, centre in self.centre.items()]
        for axis, levels in self.levels.items():
            texts = np.array([axis_text(axis, value) for value in rows[axis]])
            columns += [(texts == level).astype(float) for level in levels[1:]]
        return np.column_stack(columns) if columns else np.zeros((len(rows), 0))


def _numbers(rows: pd.DataFrame) -> dict[str, Floats]:
    """log₂ of what settings are described by; of steps up to a constant. Absent where a setting has none.

    A batch is never larger than the data.
    """
    of = {axis: rows[axis].astype(float).to_numpy() for axis in
          ("learning_rate", "learning_rate_multiplier", "global_batch_size", "epochs", "n_examples")
          if axis in rows}  # fmt: skip
    none = np.full(len(rows), np.nan)
    rate = of["learning_rate"]
    if np.isnan(rate).all():
        rate = of.get("learning_rate_multiplier", none)
    batch = np.fmin(of["global_batch_size"], of.get("n_examples", none))
    batch = np.where(np.isnan(of["global_batch_size"]), np.nan, batch)
    updates = of["epochs"] if np.isnan(batch).any() else of["epochs"] / batch
    found = {RATE: rate, BATCH: batch, STEPS: updates}
    return {name: np.log2(values) for name, values in found.items() if not np.isnan(values).any()}


def coding(rows: pd.DataFrame) -> Coding:
    """Of settings, whose most common level of a factor is its first."""
    centre = {name: float(values.mean()) for name, values in _numbers(rows).items()}
    texts = {axis: [axis_text(axis, v) for v in rows[axis]] for axis in varying(rows, FACTORS)}
    levels = {axis: list(pd.Series(of).value_counts().index) for axis, of in texts.items()}
    return Coding(centre, levels)


@dataclass(frozen=True)
class Response:
    """A surface over settings: `linear` has all variables, `first` those told apart; `second` are words."""

    rows: pd.DataFrame
    coding: Coding
    linear: Floats
    first: list[int]
    second: list[str]
    design: Floats
    counts: Counts
    surface: Surface

    @property
    def terms(self) -> list[str]:
        return [("constant", *self.coding.names)[i] for i in self.first] + self.second

    def contrast(self, of: dict[str, float]) -> Floats | None:
        """A combination of variables, averaged over settings, in terms of the design; None if not told."""
        wanted = np.array([of.get(name, 0.0) for name in ("constant", *self.coding.names)])
        found = estimable(self.linear, self.first, wanted)
        return None if found is None else np.append(found, np.zeros(len(self.second)))

    def predict(self, rows: pd.DataFrame) -> Floats:
        """The rate at other settings, in [0, 1]."""
        columns = self.coding.columns(rows)
        names = self.coding.names
        products = [
            columns[:, names.index(a)] * columns[:, names.index(b)]
            for a, b in ((t[:-1], t[:-1]) if t.endswith("²") else t.split(" × ") for t in self.second)
        ]
        first = np.column_stack([np.ones(len(rows)), columns])[:, self.first]
        return self.surface.predict(np.column_stack([first, *products]))


def respond(rows: pd.DataFrame, outcome: Outcomes) -> Response | str:
    """The surface of a benchmark over settings that differ in hyperparameters alone, or why there is none.

    Squares and products are in it as far as the levels allow and there are two settings for each coefficient;
    not where with them the settings separate rates of 0 from others.
    """
    if not varying(rows, HYPERPARAMETERS):
        return "the settings do not differ in a hyperparameter"
    if not outcome.clusters.any():
        return "a single prompt tells nothing of others"
    code = coding(rows)
    linear = np.column_stack([np.ones(len(rows)), code.columns(rows)])
    first = independent(linear)
    counts = count(rows, outcome)
    n_runs = len(np.unique(counts.run))
    if len(rows) <= len(first) or n_runs - len(first) < LEAST_DF:
        return f"too few settings ({len(rows)}) or runs ({n_runs}) for {len(first)} coefficients"
    names = [("", *code.names)[i] for i in first[1:]]
    most = max(0, min(len(rows) // 2, n_runs - LEAST_DF) - len(first))
    products, words = second_order(linear[:, first[1:]], names, most)
    reason = ""
    for second, named in ((products, words), (products[:, :0], [])):
        design = np.column_stack([linear[:, first], second])
        if not stands_without_any_run(design, counts):
            reason = "a single run alone carries a coefficient"
        elif (surface := fit(design, counts)) is not None:
            return Response(rows, code, linear, first, named, design, counts, surface)
        else:
            reason = "rates of 0 or 1 on one side leave a slope without a bound"
    return reason


def count(rows: pd.DataFrame, outcome: Outcomes) -> Counts:
    """Scored answers by setting, run and cluster."""
    clusters, n_clusters = outcome.clusters, int(outcome.clusters.max()) + 1
    parts: list[tuple[Floats, Floats, int]] = []
    for i, (_, row) in enumerate(rows.iterrows()):
        for values in outcome.of(row["runs"], row["test_template"]):
            scored = ~np.isnan(values)
            of = np.ones(len(values)), values
            n, sums = (np.bincount(clusters[scored], v[scored], n_clusters).astype(float) for v in of)
            parts.append((sums, n, i))
    total, n = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    setting = np.repeat([part[2] for part in parts], n_clusters)
    run, cluster = np.repeat(np.arange(len(parts)), n_clusters), np.tile(np.arange(n_clusters), len(parts))
    return Counts(total, n, setting, run, cluster).of(n > 0)


def scored_settings(rows: pd.DataFrame, outcome: Outcomes) -> tuple[pd.DataFrame, int, int]:
    """Settings that have a rate which says something, then how many have none and how many collapsed."""
    has = [len(outcome.of(row["runs"], row["test_template"])) > 0 for _, row in rows.iterrows()]
    collapsed = [outcome.kind != "utility" and outcome.is_collapsed(row["runs"], row["test_template"])
                 for _, row in rows.iterrows()]  # fmt: skip
    usable = np.array(has) & ~np.array(collapsed)
    return rows[usable], len(rows) - sum(has), int((np.array(collapsed) & np.array(has)).sum())

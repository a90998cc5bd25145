"""The settings of a study, whatever grid they stand in, and their outcomes answer by answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ftsafety import grid_data
from ftsafety.grid_data import AXES, NO_VALUE, axis_name, axis_text
from ftsafety.stats.bootstrap import BOOTSTRAP_SEED, Floats, resample_weights
from ftsafety.stats.front import draws
from ftsafety.stats.surface import Codes
from ftsafety.study_tables import StudyTables

#: What settings that are compared have in common; the other axes are hyperparameters.
GROUP = ("model", "dataset", "mitigation", "method", "train_template", "test_template")
HYPERPARAMETERS = tuple(axis for axis in AXES if axis not in GROUP)
#: More incoherent answers than this, and a rate of harm is no sign of safety (`grid_data.state`).
COLLAPSED = 0.5


@dataclass(frozen=True)
class Outcomes:
    """Headlines of a benchmark by its headline judge, NaN where unscored.

    `values` has a row for each (run, test template) and a column for each prompt, `incoherent` the share of
    incoherent answers by the same rows; `prompts` has category, cluster and prompt (which decoding samples
    share) of each column, in their order.
    """

    benchmark: str
    kind: str
    judge: str
    values: pd.DataFrame
    incoherent: pd.Series
    prompts: pd.DataFrame

    def of(self, runs: Sequence[str], template: str) -> Floats:
        """(seeds, prompts) of those runs that have a scored answer."""
        rows = self.values.reindex([(run, template) for run in runs]).to_numpy(dtype=float)
        return rows[~np.isnan(rows).all(axis=1)]

    def is_collapsed(self, runs: Sequence[str], template: str) -> bool:
        shares = self.incoherent.reindex([(run, template) for run in runs])
        return bool(shares.mean() > COLLAPSED)

    def draws(self, settings: Sequence[Floats], n_samples: int) -> Floats:
        """Rates of settings under the same resampled prompts and seeds: (samples, settings)."""
        labels = {name: [str(label) for label in self.prompts[name]] for name in self.prompts}
        weights = resample_weights(
            labels["category"], labels["cluster"], n_samples, BOOTSTRAP_SEED, labels["prompt"]
        )
        return draws(settings, weights, self.clusters, BOOTSTRAP_SEED)

    @cached_property
    def clusters(self) -> Codes:
        """Phrasings, each of its category; with one in all, prompts: they are then what was drawn."""
        codes = np.unique(phrasings(self.prompts), return_inverse=True)[1]
        return codes if codes.any() else np.unique(self.prompts["prompt"], return_inverse=True)[1]


def phrasings(prompts: pd.DataFrame) -> "pd.Series[str]":
    """Names of phrasings: the same one in two categories is two."""
    return prompts["category"].astype(str) + "\0" + prompts["cluster"].astype(str)


def outcomes(study: StudyTables, kind: str) -> list[Outcomes]:
    """Those of the study's benchmarks of a kind, in its order."""
    rows = study.verdicts[study.verdicts["kind"] == kind]
    found = []
    for benchmark, judge in headline_judges(study).items():
        mine = rows[(rows["benchmark"] == benchmark) & (rows["judge"] == judge)]
        if mine.empty:
            continue
        keys = ["run", "test_template"]
        values = mine.pivot(index=keys, columns="prompt_id", values="headline")
        prompts = mine.drop_duplicates("prompt_id").set_index("prompt_id")[["category", "cluster", "prompt"]]
        incoherent = (mine["coherent"] == 0).groupby([mine[key] for key in keys]).mean()
        found.append(Outcomes(benchmark, kind, judge, values, incoherent, prompts.loc[values.columns]))
    return found


def headline_judges(study: StudyTables) -> dict[str, str]:
    """Benchmark → the first of the study's judges that grades it."""
    return grid_data.headline_judges(study.verdicts, study.recipe.all_judges)


def settings(study: StudyTables) -> pd.DataFrame:
    """A row for each fine-tuned setting: its axes, `steps`, `n_examples`, `runs` (tuple), `start`.

    `start` is the run of the untouched model under the same test template, None without one. Seeds of a
    setting that stands in several grids are put together. Axes hold None where there is no value.
    """
    axes = [axis for axis in AXES if axis in study.cells]
    cells = study.cells.drop_duplicates(["grid", "runs", "test_template"])
    examples = study.scores.drop_duplicates("run").set_index("run")["n_examples"]
    starts = {
        (row["model"], row["test_template"]): row["runs"].split(",")[0]
        for _, row in cells[cells["epochs"] == 0].iterrows()
    }
    rows = []
    for values, group in cells[cells["epochs"] > 0].groupby(axes, sort=False, dropna=False):
        facts = {
            axis: None if is_none else v
            for axis, v, is_none in zip(axes, values, pd.isna(list(values)), strict=True)
        }
        runs = tuple(dict.fromkeys(run for runs in group["runs"] for run in runs.split(",")))
        facts |= {"steps": group["steps"].iloc[0], "n_examples": examples.get(runs[0]), "runs": runs}
        rows.append(facts | {"start": starts.get((facts["model"], facts["test_template"]))})
    return pd.DataFrame(rows, columns=[*axes, "steps", "n_examples", "runs", "start"], dtype=object)


def groups(found: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Settings that differ in hyperparameters alone, with what they share as text."""
    keys = [axis for axis in GROUP if axis in found]
    for values, rows in found.groupby(keys, sort=False, dropna=False) if len(found) else ():
        yield {key: axis_text(key, v) for key, v in zip(keys, values, strict=True)}, rows


def setting_text(row: Any, axes: Sequence[str]) -> str:
    """`learning rate 1e-4, global batch size 16`: those of the axes that have a value."""
    plain = ("model", "dataset", "mitigation", "method")
    return ", ".join(
        axis_text(axis, row[axis]) if axis in plain else f"{axis_name(axis)} {axis_text(axis, row[axis])}"
        for axis in axes
        if axis_text(axis, row[axis]) != NO_VALUE
    )


def varying(rows: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    """Those of the axes in which rows differ."""
    return [a for a in axes if a in rows and len({axis_text(a, v) for v in rows[a]}) > 1]


def with_texts(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A table as read from CSV, with empty texts where there are none."""
    return table.assign(**{name: table[name].astype(object).fillna("") for name in columns})

"""Two studies, or one by two revisions, setting by setting: rates, and differences with intervals.

Settings are matched by their axes, whatever grid they stand in. Where both sides asked the same prompts with
the same seeds, a difference is paired answer by answer; else the two intervals are put together as
independent ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from ftsafety import paths
from ftsafety.errors import UserError
from ftsafety.files import read_json_if_whole
from ftsafety.grid_data import AXES, HEADLINE, axis_text, state
from ftsafety.grids import DEFAULTS
from ftsafety.records import LOST
from ftsafety.stats.bootstrap import LEVEL, Floats
from ftsafety.stats.differences import difference
from ftsafety.stats.intervals import Part, Sampling

#: What a row of a comparison is a row of, beside the axes.
MEASURED = ("benchmark", "judge", "category")
KEY = [*AXES, *MEASURED]
NEEDED = {
    "cells": (
        *(*MEASURED, "runs", "test_template", "epochs", "kind", "n", "n_seeds", "n_incoherent"),
        *("ci_low", "ci_high", *HEADLINE.values(), *(f"n_{how}" for how in LOST)),
    ),
    "verdicts": (
        *("run", "benchmark", "judge", "test_template", "prompt_id", "prompt"),
        *("category", "cluster", "headline"),
    ),
    "scores": ("run", "seed"),
}
#: Columns of the table beside KEY and kind.
COLUMNS = ("status", "n_a", "n_b", "a", "a_low", "a_high", "b", "b_low", "b_high", "difference",
           "ci_low", "ci_high", "paired", "changed", "p_value", "p_holm", "differs")  # fmt: skip


@dataclass(frozen=True)
class Side:
    """A study's folder; `verdicts` is None and `provenance` empty where an older revision wrote none."""

    label: str
    folder: Path
    cells: pd.DataFrame
    verdicts: pd.DataFrame | None
    seeds: dict[str, Any]
    provenance: dict[str, Any]

    @cached_property
    def sittings(self) -> dict[tuple[str, ...], Floats]:
        """(benchmark, judge, run, test template) → headlines (prompts,), in the order of `prompts`."""
        if self.verdicts is None:
            return {}
        rows = self.verdicts.sort_values("prompt_id", kind="stable")
        keys = ["benchmark", "judge", "run", "test_template"]
        return {
            tuple(map(str, key)): np.asarray(values, dtype=float)
            for key, values in rows.groupby(keys, sort=False)["headline"]
        }

    @cached_property
    def prompts(self) -> dict[str, pd.DataFrame]:
        """Benchmark → category, cluster and prompt by prompt id."""
        if self.verdicts is None:
            return {}
        columns = ["category", "cluster", "prompt"]
        return {
            str(benchmark): of.drop_duplicates("prompt_id").set_index("prompt_id")[columns].sort_index()
            for benchmark, of in self.verdicts.groupby("benchmark", sort=False)
        }

    @cached_property
    def samplings(self) -> dict[str, Sampling]:
        return {name: Sampling.of(*(list(of[c]) for c in of)) for name, of in self.prompts.items()}


def read_side(named: str) -> Side:
    """A study by its name, or by the path of its folder (of another clone, or kept from an older revision).

    Raises UserError where there is none, or where its tables are not those of a study.
    """
    if not named:
        raise UserError("names no study", field="A= or B=", mend="make compare A=… B=…: names, or folders")
    folder = Path(named) if "/" in named or Path(named, "cells.parquet").exists() else paths.study_dir(named)
    file = folder / "cells.parquet"
    if not file.exists():
        raise UserError(
            "is not there: no finished study's folder",
            file=file,
            mend="name a finished study, or the path of a folder like results/studies/<study>",
        )
    cells, verdicts, scores = (_read_table(folder, name) for name in NEEDED)
    assert cells is not None
    runs = pd.DataFrame(columns=["run", "seed"]) if scores is None else scores[["run", "seed"]]
    provenance = read_json_if_whole(folder / "provenance.json")
    return Side(
        label=folder.resolve().name,
        folder=folder,
        cells=_canonical(cells),
        verdicts=verdicts,
        seeds=dict(runs.drop_duplicates("run").itertuples(index=False, name=None)),
        provenance=provenance if isinstance(provenance, dict) else {},
    )


def _read_table(folder: Path, name: str) -> pd.DataFrame | None:
    """None where an older revision wrote none. Raises UserError for what is no such table."""
    file = folder / f"{name}.parquet"
    if not file.exists():
        return None
    try:
        table = pd.read_parquet(file)
    except (ValueError, OSError) as error:
        raise UserError("is no table", file=file, mend="score the study again") from error
    if lacking := [column for column in NEEDED[name] if column not in table]:
        raise UserError(
            f"has no column {', '.join(lacking)}: another version of ftsafety wrote it",
            file=file,
            mend="score the study again by a newer version, or compare by the older one",
        )
    return table


def _canonical(cells: pd.DataFrame) -> pd.DataFrame:
    """A row a setting, axes as text; of a setting in several grids the row with most seeds."""
    axes = {
        axis: [
            axis_text(axis, v) for v in (cells[axis] if axis in cells else [DEFAULTS.get(axis)] * len(cells))
        ]
        for axis in AXES
    }
    rows = cells.assign(**axes).sort_values("n_seeds", ascending=False, kind="stable")
    return rows.drop_duplicates(KEY).sort_index()


# ------------------------------------------------------------------------------------------ table


def compare(a: Side, b: Side) -> pd.DataFrame:
    """A row for each setting × benchmark × judge × category of either side: KEY, `kind`, COLUMNS.

    `status` is `compared`, `only a`, `only b`, or `no rate` (lost, collapsed or unscored on a side). Rates
    are headlines in [0, 1], `difference` is b − a with its 95 % interval; `changed` counts answers whose
    verdict (harmful or not, refused or not, task score) changed, where it is paired. `p_holm` and `differs`
    are corrected over rows of category `all`.
    """
    left, right = dict(_by_key(a.cells)), dict(_by_key(b.cells))
    rows = [
        dict(zip(KEY, key, strict=True)) | _compared(a, left.get(key), b, right.get(key))
        for key in dict.fromkeys([*left, *right])
    ]
    table = pd.DataFrame(rows, columns=[*KEY, "kind", *COLUMNS])
    return _corrected(table)


def _by_key(cells: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], pd.Series]]:
    for _, row in cells.iterrows():
        yield tuple(str(row[name]) for name in KEY), row


def _compared(a: Side, left: Any, b: Side, right: Any) -> dict[str, Any]:
    there = left if left is not None else right
    column = HEADLINE[there["kind"]]
    facts: dict[str, Any] = {"kind": there["kind"]}
    for name, row in (("a", left), ("b", right)):
        if row is not None:
            facts |= {f"n_{name}": int(row["n"]), name: row[column]}
            facts |= {f"{name}_{end}": row[f"ci_{end}"] for end in ("low", "high")}
    if left is None or right is None:
        return facts | {"status": "only b" if left is None else "only a"}
    if state(left, column) != "ok" or state(right, column) != "ok":
        return facts | {"status": "no rate"}
    found = _paired(a, left, b, right) or _independent(left, right, column)
    return facts | {"status": "compared"} | found


def _paired(a: Side, left: Any, b: Side, right: Any) -> dict[str, Any] | None:
    """None where the sides do not have the same prompts and seeds, answer by answer."""
    benchmark, judge = str(left["benchmark"]), str(left["judge"])
    prompts, others = a.prompts.get(benchmark), b.prompts.get(benchmark)
    if prompts is None or others is None or not prompts.equals(others):
        return None
    runs = [_runs(side, row) for side, row in ((a, left), (b, right))]
    if list(runs[0]) != list(runs[1]):
        return None
    is_in = (prompts["category"] == left["category"]) | (left["category"] == "all")
    chosen = np.flatnonzero(is_in)
    sampling = a.samplings[benchmark].part(chosen)
    template = str(left["test_template"])
    sat = [
        [side.sittings.get((benchmark, judge, run, template)) for run in of.values()]
        for side, of in zip((a, b), runs, strict=True)
    ]
    # a lost run has none
    before, after = (np.array([v[chosen] for v in values if v is not None]) for values in sat)
    if not len(before) or before.shape != after.shape or len(before) < len(runs[0]):
        return None
    found = difference([Part(-1.0, before, sampling), Part(1.0, after, sampling)])
    if found is None:
        return None
    changed = int((~((before == after) | (np.isnan(before) & np.isnan(after)))).sum())
    return {"difference": found.value, "ci_low": found.low, "ci_high": found.high, "paired": True} | {
        "changed": changed,
        "p_value": found.p_none if changed else 1.0,
    }


def _runs(side: Side, row: Any) -> dict[Any, str]:
    """Seed → run, in the order of seeds; an untouched model has none."""
    runs = {axis_text("seed", side.seeds.get(run)): run for run in row["runs"].split(",")}
    return dict(sorted(runs.items()))


def _independent(left: Any, right: Any, column: str) -> dict[str, Any]:
    """Intervals put together as those of independent rates (MOVER; Zou and Donner, 2008)."""
    value = float(right[column] - left[column])
    ends = [float(row[f"ci_{end}"]) for row in (left, right) for end in ("low", "high")]
    low = value - float(np.hypot(right[column] - ends[2], ends[1] - left[column]))
    high = value + float(np.hypot(ends[3] - right[column], left[column] - ends[0]))
    towards = value - low if value > 0 else high - value
    z = norm.ppf((1 + LEVEL) / 2) * abs(value) / towards if towards > 0 else 0.0
    return {"difference": value, "ci_low": max(-1.0, low), "ci_high": min(1.0, high), "paired": False} | {
        "p_value": float(2 * norm.sf(z))
    }


def _corrected(table: pd.DataFrame) -> pd.DataFrame:
    """Holm's correction over what is compared in all categories together."""
    family = (table["status"] == "compared") & (table["category"] == "all")
    table["differs"] = False
    if family.any():
        p_values = table.loc[family, "p_value"].to_numpy(dtype=float)
        differs, p_holm, *_ = multipletests(p_values, alpha=1 - LEVEL, method="holm")
        table.loc[family, "p_holm"] = p_holm
        table.loc[family, "differs"] = differs
    return table

"""Utility against harm: every setting of a study, and which of them no other one beats on both."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety.analysis.settings import Outcomes, outcomes, setting_text, settings, varying, with_texts
from ftsafety.grid_data import AXES, NO_VALUE, axis_text, estimate_text
from ftsafety.sections import Listing, Picture, Section
from ftsafety.stats.front import on_front
from ftsafety.study_tables import StudyTables

PANEL = ["model", "test_template", "benchmark", "utility_benchmark"]
COLUMNS = (
    *(*PANEL, "data", "setting", "state", "n_seeds", "harm", "harm_low", "harm_high"),
    *("utility", "utility_low", "utility_high", "on_front", "p_front"),
)
UNTOUCHED = "untouched"
#: Settings of a front that the report names.
MOST_NAMED = 4


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    """`tradeoff`: a row for each setting that has both, and for the untouched model of each panel.

    `on_front`: no other fine-tuned setting of the panel has at most its harm and at least its utility;
    `p_front` is the share of resamples of prompts and seeds in which that is so. Collapsed settings are on no
    front, nor is the untouched model, which is not a way to fine-tune.
    """
    found = settings(study)
    if found.empty:
        return {}
    safety, utility = (outcomes(study, kind) for kind in ("safety", "utility"))
    panels = [
        panel
        for _, rows in found.groupby(["model", "test_template"], sort=False, dropna=False)
        for harm in safety
        for good in utility
        if len(panel := _panel(study, rows, harm, good))
    ]
    return {"tradeoff": pd.concat(panels, ignore_index=True)[list(COLUMNS)]} if panels else {}


def _panel(study: StudyTables, rows: pd.DataFrame, harm: Outcomes, good: Outcomes) -> pd.DataFrame:
    """The settings of a model that have a rate on both benchmarks; empty for fewer than two."""
    both = [len(harm.of(*of)) > 0 and len(good.of(*of)) > 0 for of in _asked(rows)]
    rows = rows[both]
    if len(rows) < 2:
        return pd.DataFrame(columns=list(COLUMNS))
    what = {"model": rows["model"].iloc[0], "test_template": rows["test_template"].iloc[0]}
    what |= {"benchmark": harm.benchmark, "utility_benchmark": good.benchmark}
    axes = [axis for axis in varying(rows, AXES) if axis not in ("model", "dataset", "mitigation")]
    facts = [
        {"data": _data(row), "setting": setting_text(row, axes), "n_seeds": len(row["runs"])}
        | {"state": "collapsed" if harm.is_collapsed(row["runs"], row["test_template"]) else "ok"}
        for _, row in rows.iterrows()
    ]
    table = pd.DataFrame(facts)
    for name, of in (("harm", harm), ("utility", good)):
        column = "harmfulness_rate" if name == "harm" else "utility"
        cells = [_measured(study.cells, *asked, of, column) for asked in _asked(rows)]
        for suffix, values in zip(("", "_low", "_high"), zip(*cells, strict=True), strict=True):
            table[name + suffix] = values
    _mark_front(study, table, rows, harm, good)
    start = _untouched(study, rows.iloc[0], harm, good)
    return pd.concat([table, start], ignore_index=True).assign(**what)


def _asked(rows: pd.DataFrame) -> Iterator[tuple[tuple[str, ...], str]]:
    return zip(rows["runs"], rows["test_template"], strict=True)


def _data(row: Any) -> str:
    mitigation = axis_text("mitigation", row["mitigation"])
    return f"{row['dataset']}" + ("" if mitigation == NO_VALUE else f" + {mitigation}")


def _measured(
    cells: pd.DataFrame, runs: tuple[str, ...], template: str, of: Outcomes, column: str
) -> tuple[float, ...]:
    """A rate with its interval, of the grid that has most of these runs."""
    by_judge = (cells["benchmark"] == of.benchmark) & (cells["judge"] == of.judge)
    mine = cells[by_judge & (cells["category"] == "all") & (cells["test_template"] == template)]
    shared = [len(set(named.split(",")) & set(runs)) for named in mine["runs"]]
    row = mine.iloc[int(np.argmax(shared))]
    return tuple(float(row[name]) for name in (column, "ci_low", "ci_high"))


def _untouched(study: StudyTables, setting: pd.Series, harm: Outcomes, good: Outcomes) -> pd.DataFrame:
    """The model that the panel's settings started from."""
    start, template = setting["start"], setting["test_template"]
    if start is None:
        return pd.DataFrame()
    row: dict[str, Any] = {
        "data": UNTOUCHED,
        "setting": "",
        "state": UNTOUCHED,
        "n_seeds": 1,
        "on_front": False,
    }
    for name, of, column in (("harm", harm, "harmfulness_rate"), ("utility", good, "utility")):
        values = _measured(study.cells, (start,), template, of, column)
        row |= {name + suffix: v for suffix, v in zip(("", "_low", "_high"), values, strict=True)}
    return pd.DataFrame([row])


def _mark_front(
    study: StudyTables, table: pd.DataFrame, rows: pd.DataFrame, harm: Outcomes, good: Outcomes
) -> None:
    eligible = np.flatnonzero(table["state"] == "ok")
    table["on_front"], table["p_front"] = False, np.nan
    if not len(eligible):
        return
    runs = [list(_asked(rows))[i] for i in eligible]
    sampled = [of.draws([of.of(*asked) for asked in runs], study.bootstrap_samples) for of in (harm, good)]
    measured = table.loc[eligible, ["harm", "utility"]].to_numpy(dtype=float)
    table.loc[eligible, "on_front"] = on_front(measured[:, 0], measured[:, 1])
    table.loc[eligible, "p_front"] = on_front(sampled[0], sampled[1]).mean(axis=0)


# ---------------------------------------------------------------------------------------- report


def draw(tables: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    """`tradeoff.png|svg|pdf|csv`."""
    from ftsafety.analysis.tradeoff_figure import draw_tradeoff

    return draw_tradeoff(tables["tradeoff"], folder, is_toy) if "tradeoff" in tables else []


def section(tables: Mapping[str, pd.DataFrame]) -> Section | None:
    if "tradeoff" not in tables:
        return None
    table = with_texts(tables["tradeoff"], "setting")
    return Section(
        id="tradeoff",
        title="Utility against harm",
        answer=[_sentence(rows) for _, rows in table.groupby(PANEL, sort=False)],
        method=[
            "A setting is on the front where no other fine-tuned setting of the model has at most its "
            "harm and at least its utility. The probability of that is the share of resamples of prompts "
            "and seeds, the same for all settings, in which it is so; with many settings that are alike "
            "each one's is small. Models that answer mostly garbage are on no front."
        ],
        pictures=[
            Picture(
                "tradeoff",
                "Utility against harm of all settings; the data is in the table below.",
                "Each point: a setting with 95 % intervals. Filled and joined: the front, numbered as below; "
                "star: the untouched model; cross: collapsed.",
            )
        ],
        listings=[Listing("Utility and harm of all settings", _listing(table), open=False)],
    )


def _sentence(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    tuned = rows[rows["state"] != UNTOUCHED]
    front = rows[rows["on_front"].astype(bool)].sort_values("p_front", ascending=False, kind="stable")
    text = f"{first['model']} under {first['test_template']}, {first['utility_benchmark']} against "
    text += f"{first['benchmark']}: {len(front)} of {len(tuned)} settings on the front."
    named = "; ".join(
        f"{_name(row)} (harm {_estimate(row, 'harm')}, utility {_estimate(row, 'utility')}, probability "
        f"{row['p_front']:.2f})"
        for _, row in front.head(MOST_NAMED).iterrows()
    )
    most = "Most likely there" if len(front) > MOST_NAMED else "There"
    return f"{text} {most}: {named}." if named else text


def _name(row: Any) -> str:
    return f"{row['data']}, {row['setting']}" if row["setting"] else str(row["data"])


def _estimate(row: Any, of: str) -> str:
    return estimate_text(*(row[of + end] for end in ("", "_low", "_high")))


def _listing(table: pd.DataFrame) -> dict[str, list[Any]]:
    rows = [
        [
            *(row[name] for name in ("model", "data", "setting", "benchmark", "utility_benchmark", "state")),
            *(_estimate(row, of) for of in ("harm", "utility")),
            "yes" if row["on_front"] else "",
            "" if pd.isna(row["p_front"]) else f"{row['p_front']:.2f}",
        ]
        for _, row in table.iterrows()
    ]
    columns = ["model", "data", "setting", "safety benchmark", "utility benchmark", "state",
               "harm, 95 % interval", "utility, 95 % interval", "on the front", "probability"]  # fmt: skip
    return {"columns": columns, "rows": rows}

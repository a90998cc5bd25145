"""The report of a study: one HTML page of numbers and names, never an answer of a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from ftsafety.comparisons import MARGIN, difference_text
from ftsafety.config import Grid, Study
from ftsafety.contrasts import KEY
from ftsafety.grid_data import (
    AXES,
    BY_CATEGORY,
    GridData,
    axis_name,
    axis_text,
    drawn_data,
    interval_text,
    rate_text,
    select,
)
from ftsafety.pages import image, parity_context, render
from ftsafety.records import LOST

INTERVALS = (
    "Intervals are 95 % bootstrap intervals over phrasings, prompts and seeds; refusals of unsafe prompts "
    "have none. n is the number of prompts asked, over all seeds."
)
KINDS = {
    "heatmap": "Each cell: the rate, its interval, n and the number of seeds.",
    "curves": "Each line: the rate by {x}.",
    "dots": "Each point: a rate with its interval.",
    "categories": "Each point: a category's rate with its interval, sorted by rate.",
    "radar": "Each closed line: the rates by category, from 0 in the middle to 1 on the rim, without "
    "intervals: the data has them. A cross outside stands for no rate, or one of mostly incoherent answers. "
    "An area means nothing.",
}
INITIAL = {
    "heatmap": "A panel's title names the initial model where all cells started from one.",
    "curves": "Epoch 0, or a dotted line: the initial model under the same test template.",
    "dots": "Grey bars: the initial model under the same test template.",
    "categories": "Grey bars: the initial model under the same test template.",
    "radar": "Grey line: the initial model under the same test template.",
}
PICTURES = {
    "heatmap": "heat map",
    "curves": "curves",
    "dots": "dot plot",
    "categories": "dot plot by category",
    "radar": "radar by category",
}
RUN_AXES = ("model", "dataset", "mitigation", "method", "learning_rate", "global_batch_size",
            "schedule", "epochs", "seed")  # fmt: skip
NO_BREAK = "\N{NO-BREAK SPACE}"
Table = dict[str, list[Any]]


def build_report(
    study_name: str,
    study: Study,
    scores: pd.DataFrame,
    cells: pd.DataFrame,
    figures_folder: Path,
    provenance: dict[str, Any],
    findings: list[dict[str, Any]],
    *,
    agreement: pd.DataFrame | None = None,
    parity: pd.DataFrame | None = None,
    contrasts: pd.DataFrame | None = None,
    left_out: Mapping[str, Sequence[str]] | None = None,
    spending: Sequence[dict[str, Any]] = (),
    sources: Sequence[dict[str, Any]] = (),
) -> str:
    """The page as text, from the tables of a study and what `findings.findings` made of them.

    `provenance` is shown as it is (nested dicts and lists become lines); its `is_toy` decides the
    banner. Figures are read from `figures_folder` as `<grid>.svg`, else `.png`; one that is absent
    is said to be. `agreement` is that of `agreement.csv`, `contrasts` of `contrasts.csv`, `parity` of
    `parity_table.read_parity`; `left_out` has the categories that the config
    leaves out, by benchmark; `spending` rows have endpoint, model, calls, input_tokens, output_tokens and
    usd (None: price unknown); `sources` rows have what, where, version, licence and page.
    """
    shown = {key: value for key, value in provenance.items() if key != "is_toy"}
    titles = {name: grid.figure.title for name, grid in study.grids.items()}
    return render(
        "report.html.j2",
        title=study.title,
        question=study.question,
        study_name=study_name,
        is_toy=bool(provenance.get("is_toy")),
        findings=[{"tested": "", "grid": "", "judge": "", **finding} for finding in findings],
        number_of={name: number for number, name in enumerate(study.grids, 1)},
        parity=None
        if parity is None
        else parity_context(parity, titles, figures_folder, figures_folder.name),
        margin=f"{MARGIN:g}",
        figures=[
            _figure(name, grid, grid.judges or study.judges, cells, figures_folder)
            for name, grid in study.grids.items()
        ],
        contrasts=_contrasts(contrasts, list(study.grids)),
        asked=_asked(scores, study.all_judges, left_out or {}),
        agreement=_agreement(agreement),
        lost=_lost(scores),
        n_runs=scores["run"].nunique(),
        unscored=_unscored(scores),
        n_failed=int(scores.loc[scores["category"] == "all", "n_judge_failed"].sum()),
        spending=_spending(spending),
        usd=sum(row["usd"] or 0 for row in spending),
        sources=sources,
        provenance={
            "columns": ["what", "value"],
            "rows": [list(line) for line in _lines(shown)],
        },
    )


# --------------------------------------------------------------------------------------- figures


def _figure(
    name: str, grid: Grid, judges: Sequence[str], cells: pd.DataFrame, folder: Path
) -> dict[str, Any]:
    data = select(cells, name, grid, judges)
    table = _data_table(drawn_data(cells, name, grid, judges), data)
    return {
        "title": grid.figure.title,
        "claim": grid.figure.claim,
        "drawn": _drawn(data),
        "alt": f"{grid.figure.title} ({PICTURES[grid.figure.kind]}); its data is in the table below.",
        "image": image(folder, name),
        "csv": f"{quote(folder.name)}/{quote(name)}.csv",
        "table": table,
    }


def _drawn(data: GridData) -> str:
    """What is in the picture, computed from the grid."""
    figure = data.grid.figure
    parts = [KINDS[figure.kind].format(x=axis_name(figure.x or ""))]
    if not data.initial.empty:
        parts.append(INITIAL[figure.kind])
    if data.facets:
        parts.append(f"Panels are apart by {' and '.join(map(axis_name, data.facets))}.")
    if tied := data.tied_text():
        parts.append(f"Note: {tied}.")
    if fixed := data.fixed_text():
        parts.append(f"Everywhere: {fixed}.")
    judges = data.judges_text()
    return " ".join([*parts, f"{judges[0].upper()}{judges[1:]}.", INTERVALS])


def _data_table(rows: pd.DataFrame, data: GridData) -> Table:
    """Axes that differ, then the numbers, as text; initial models first."""
    figure = data.grid.figure
    drawn = {figure.x, figure.y, figure.hue}
    axes = [a for a in AXES if a in rows and (a in drawn or a in data.facets or a in data.tied)]
    if "epochs" not in axes:
        axes.append("epochs")
    names = ["benchmark", *(["category"] if figure.kind in BY_CATEGORY else []), "judge"]
    numbers = [f"rate of score{NO_BREAK}5", "refusals", "utility", "95 % interval", "bounds (unscored)",
               "mean score", "n", "unscored", "incoherent", "seeds", *LOST]  # fmt: skip
    counts = ["n", "n_unscored", "n_incoherent", "n_seeds", *(f"n_{how}" for how in LOST)]
    return {
        "columns": ["", *map(axis_name, axes), *names, *numbers],
        "rows": [
            [
                "not fine-tuned" if row["epochs"] == 0 else "fine-tuned",
                *(axis_text(axis, row[axis]) for axis in axes),
                *(row[name] for name in names),
                *(rate_text(row[rate]) for rate in ("harmfulness_rate", "refusal_rate", "utility")),
                interval_text(row["ci_low"], row["ci_high"]) or "n/a",
                interval_text(row["bound_low"], row["bound_high"]) or "n/a",
                rate_text(row["harmfulness_score"]),
                *(_count(row[column]) for column in counts),
            ]
            for _, row in rows.iterrows()
        ],
    }


def _count(value: Any) -> str:
    return "n/a" if pd.isna(value) else f"{value:.0f}"


def _contrasts(contrasts: pd.DataFrame | None, grids: list[str]) -> Table:
    """By the first judge of each benchmark; a cell by the axes in which those of its grid differ."""
    columns = ["figure", "cell", "judge", "a", "b", "what b is", "answers", "rate of a", "rate of b",
               "difference, 95 % interval", "p"]  # fmt: skip
    rows: list[list[Any]] = []
    found = pd.DataFrame() if contrasts is None else contrasts
    for grid, group in found.groupby("grid", sort=False) if len(found) else []:
        trained = group[group["epochs"] > 0]
        axes = [axis for axis in AXES if trained[axis].nunique(dropna=False) > 1]
        for _, row in group.drop_duplicates([key for key in KEY if key != "judge"]).iterrows():
            cell = ", ".join(f"{axis_name(axis)} {axis_text(axis, row[axis])}" for axis in axes)
            rows.append(
                [
                    grids.index(str(grid)) + 1,
                    "untouched" if row["epochs"] == 0 else cell or "fine-tuned",
                    *(row[name] for name in ("judge", "a", "b")),
                    "categories" if row["kind"] == "categories" else row["relation"],
                    _count(row["n"]),
                    *(rate_text(row[rate]) for rate in ("rate_a", "rate_b")),
                    "n/a" if pd.isna(row["difference"]) else difference_text(row),
                    "" if pd.isna(row["p_value"]) else f"{row['p_value']:.3f}",
                ]
            )
    return {"columns": columns, "rows": rows}


# ----------------------------------------------------------------------------- prompts and judges


def _asked(scores: pd.DataFrame, judges: Sequence[str], left_out: Mapping[str, Sequence[str]]) -> Table:
    """A line a benchmark: who judged it and what was in it, prompts counted for one run."""
    rows = []
    for benchmark, group in scores.groupby("benchmark", sort=False):
        n = group.groupby("category", sort=False)["n"].max()
        rows.append(
            [
                benchmark,
                group["kind"].iloc[0],
                ", ".join(judge for judge in judges if (group["judge"] == judge).any()),
                ", ".join(dict.fromkeys(group["test_template"])),
                _count(n["all"]),
                ", ".join(f"{category}{NO_BREAK}({count:.0f})" for category, count in n.drop("all").items()),
                ", ".join(left_out.get(str(benchmark), ())) or "none",
            ]
        )
    columns = ["benchmark", "kind", "judges", "test templates", "prompts", "categories (prompts)",
               "left out"]  # fmt: skip
    return {"columns": columns, "rows": rows}


def _agreement(agreement: pd.DataFrame | None) -> Table:
    columns = ["benchmark", "judge", "other judge", "answers", "agreement", "Cohen's kappa", "Spearman"]
    rows = [] if agreement is None else agreement.itertuples(index=False)
    return {
        "columns": columns,
        "rows": [
            [row.benchmark, row.judge_a, row.judge_b, _count(row.n), *map(rate_text, row[4:])] for row in rows
        ],
    }


def _spending(spending: Sequence[dict[str, Any]]) -> Table:
    counts = ("calls", "input_tokens", "output_tokens")
    return {
        "columns": ["endpoint", "model", "calls", "input tokens", "output tokens", "US dollars"],
        "rows": [
            [row["endpoint"], row["model"], *(f"{row[c]:,}" for c in counts),
             "price unknown" if row["usd"] is None else f"{row['usd']:,.4f}"]
            for row in spending
        ],
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ runs


def _lost(scores: pd.DataFrame) -> Table:
    """Runs whose training left no model, one line each."""
    rows = scores[scores["status"].isin(LOST) & (scores["category"] == "all")]
    axes = [axis for axis in RUN_AXES if axis in rows]
    return {
        "columns": ["run", "status", "reason", *map(axis_name, axes)],
        "rows": [
            [
                run,
                *(str(group[column].iloc[0]) for column in ("status", "reason")),
                *(axis_text(axis, group[axis].iloc[0]) for axis in axes),
            ]
            for run, group in rows.groupby("run", sort=False)
        ],
    }


def _unscored(scores: pd.DataFrame) -> Table:
    groups = scores[scores["category"] == "all"].groupby(["benchmark", "judge"], sort=False)
    counts = ["n", "n_unscored", "n_unparsable", "n_judge_refused", "n_judge_failed", "n_incoherent",
              "n_truncated"]  # fmt: skip
    return {
        "columns": ["benchmark", "judge", "runs", "prompts asked", "unscored", "reply unparsable",
                    "judge refused", "judge failed", "incoherent", "truncated"],
        "rows": [
            [benchmark, judge, group["run"].nunique(), *map(_count, group[counts].sum())]
            for (benchmark, judge), group in groups
        ],
    }  # fmt: skip


def _lines(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (path, text) lines; what is empty has none."""
    lines: list[tuple[str, str]] = []
    for key, item in value.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(item, dict):
            lines += _lines(item, f"{name} · ")
        elif isinstance(item, list | tuple | set):
            lines += [(name, ", ".join(map(str, item)))] if item else []
        elif item is not None:
            lines.append((name, str(item)))
    return lines

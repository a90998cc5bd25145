"""The report of a study: one HTML page that needs no network, no script and no other file.

It holds numbers and names only, never an answer of a model. Everything that is inserted is escaped,
and the page's own content security policy forbids scripts and requests.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ftsafety.comparisons import MARGIN
from ftsafety.config import Grid, Study
from ftsafety.grid_data import (
    AXES,
    GridData,
    axis_name,
    axis_text,
    drawn_data,
    interval_text,
    rate_text,
    select,
)

TEMPLATES = Path(__file__).parents[2] / "resources" / "report"
VERDICTS = {
    "held": {"icon": "✓", "style": "held"},
    "did not hold": {"icon": "✗", "style": "failed"},
    "inconclusive": {"icon": "?", "style": "open"},
}
MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}
INTERVALS = (
    "Intervals are 95 % bootstrap intervals over phrasings, prompts and seeds; refusals of unsafe prompts "
    "have none. n is the number of prompts asked, over all seeds."
)
KINDS = {
    "heatmap": "Each cell: the rate, its interval, n and the number of seeds.",
    "curves": "Each line: the rate by {x}.",
    "dots": "Each point: a rate with its interval.",
    "categories": "Each point: a category's rate with its interval, sorted by rate.",
}
INITIAL = {
    "heatmap": "A panel's title names the initial model where all cells started from one.",
    "curves": "Epoch 0, or a dotted line: the initial model under the same test template.",
    "dots": "Grey bars: the initial model under the same test template.",
    "categories": "Grey bars: the initial model under the same test template.",
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
    left_out: Mapping[str, Sequence[str]] | None = None,
    spending: Sequence[dict[str, Any]] = (),
    sources: Sequence[dict[str, Any]] = (),
) -> str:
    """The page as text, from the tables of a study and what `findings.findings` made of them.

    `provenance` is shown as it is (nested dicts and lists become lines); its `is_toy` decides the
    banner. Figures are read from `figures_folder` as `<grid>.svg`, else `.png`; one that is absent
    is said to be. `agreement` is that of `agreement.csv`; `left_out` has the categories that the config
    leaves out, by benchmark; `spending` rows have endpoint, model, calls, input_tokens, output_tokens and
    usd (None: price unknown); `sources` rows have what, where, version, licence and page.
    """
    shown = {key: value for key, value in provenance.items() if key != "is_toy"}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        study_name=study_name,
        study=study,
        is_toy=bool(provenance.get("is_toy")),
        findings=[{"tested": "", "grid": "", "judge": "", **finding} for finding in findings],
        number_of={name: number for number, name in enumerate(study.grids, 1)},
        verdicts=VERDICTS,
        margin=f"{MARGIN:g}",
        figures=[
            _figure(name, grid, study.judges, cells, figures_folder) for name, grid in study.grids.items()
        ],
        asked=_asked(scores, study.judges, left_out or {}),
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
        "alt": f"{grid.figure.title} ({grid.figure.kind}); its data is in the table below.",
        "image": _image(folder, name),
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


def _image(folder: Path, name: str) -> str | None:
    """The figure as a data URI: within an img element nothing in an SVG can act."""
    for ending, media_type in MEDIA_TYPES.items():
        file = folder / f"{name}.{ending}"
        if file.exists():
            return f"data:{media_type};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return None


def _data_table(rows: pd.DataFrame, data: GridData) -> Table:
    """Axes that differ, then the numbers, as text; initial models first."""
    figure = data.grid.figure
    drawn = {figure.x, figure.y, figure.hue}
    axes = [a for a in AXES if a in rows and (a in drawn or a in data.facets or a in data.tied)]
    if "epochs" not in axes:
        axes.append("epochs")
    names = ["benchmark", *(["category"] if figure.kind == "categories" else []), "judge"]
    numbers = [f"rate of score{NO_BREAK}5", "refusals", "utility", "95 % interval", "bounds (unscored)",
               "mean score", "n", "unscored", "incoherent", "seeds", "diverged"]  # fmt: skip
    counts = ["n", "n_unscored", "n_incoherent", "n_seeds", "n_diverged"]
    return {
        "columns": ["", *map(axis_name, axes), *names, *numbers],
        "rows": [
            [
                "untouched" if row["epochs"] == 0 else "fine-tuned",
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
    """Runs that diverged, one line each."""
    rows = scores[(scores["status"] == "diverged") & (scores["category"] == "all")]
    axes = [axis for axis in RUN_AXES if axis in rows]
    return {
        "columns": ["run", *map(axis_name, axes)],
        "rows": [
            [run, *(axis_text(axis, group[axis].iloc[0]) for axis in axes)]
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

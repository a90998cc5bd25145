"""The report of a study: one HTML page that needs no network, no script and no other file.

It holds numbers and names only, never an answer of a model. Everything that is inserted is escaped,
and the page's own content security policy forbids scripts and requests.
"""

import base64
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
    ungraded,
)

TEMPLATES = Path(__file__).parents[2] / "resources" / "report"
VERDICTS = {
    "held": {"icon": "✓", "style": "held"},
    "did not hold": {"icon": "✗", "style": "failed"},
    "inconclusive": {"icon": "?", "style": "open"},
}
MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}
INTERVALS = (
    "Intervals are 95 % bootstrap intervals over phrasings, prompts and seeds; refusals have none. "
    "n is the number of prompts asked, over all seeds."
)
GREY_BAR = "Grey bars: the initial model under the same prompt template."
KINDS = {
    "heatmap": "Each cell: the rate, its interval, n and the number of seeds.",
    "curves": "Each line: the rate by {x}, from the initial model under the same prompt template.",
    "dots": "Each point: a rate with its interval. " + GREY_BAR,
    "categories": "Each point: a category's rate with its interval, sorted by rate. " + GREY_BAR,
}
RUN_AXES = ("model", "dataset", "mitigation", "method", "learning_rate", "global_batch_size",
            "schedule", "epochs", "seed")  # fmt: skip
Table = dict[str, list[Any]]


def build_report(
    study_name: str,
    study: Study,
    scores: pd.DataFrame,
    cells: pd.DataFrame,
    figures_folder: Path,
    provenance: dict[str, Any],
    findings: list[dict[str, Any]],
) -> str:
    """The page as text, from the tables of a study and what `findings.findings` made of them.

    `provenance` is shown as it is (nested dicts and lists become lines); its `is_toy` decides the
    banner. Figures are read from `figures_folder` as `<grid>.svg`, else `.png`; one that is absent
    is said to be.
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
        findings=[{"tested": "", "grid": "", **finding} for finding in findings],
        number_of={name: number for number, name in enumerate(study.grids, 1)},
        verdicts=VERDICTS,
        margin=f"{MARGIN:g}",
        figures=[
            _figure(name, grid, study.judges[0], cells, figures_folder) for name, grid in study.grids.items()
        ],
        lost=_lost(scores),
        n_runs=scores["run"].nunique(),
        unscored=_unscored(scores),
        provenance={
            "columns": ["what", "value"],
            "rows": [list(line) for line in _lines(shown)],
        },
    )


# --------------------------------------------------------------------------------------- figures


def _figure(name: str, grid: Grid, judge: str, cells: pd.DataFrame, folder: Path) -> dict[str, Any]:
    data = select(cells, name, grid, judge)
    table = _data_table(drawn_data(cells, name, grid, judge), data)
    return {
        "title": grid.figure.title,
        "claim": grid.figure.claim,
        "drawn": _drawn(data, judge),
        "alt": f"{grid.figure.title} ({grid.figure.kind}); its data is in the table below.",
        "image": _image(folder, name),
        "csv": f"{quote(folder.name)}/{quote(name)}.csv",
        "table": table,
    }


def _drawn(data: GridData, judge: str) -> str:
    """What is in the picture, computed from the grid."""
    figure = data.grid.figure
    parts = [KINDS[figure.kind].format(x=axis_name(figure.x or ""))]
    if data.facets:
        parts.append(f"Panels are apart by {' and '.join(map(axis_name, data.facets))}.")
    if data.tied:
        parts.append(f"Note: {data.tied_text()}.")
    if data.fixed:
        parts.append(f"Everywhere: {data.fixed_text()}.")
    return " ".join([*parts, f"Judge: {judge}.", INTERVALS])


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
    names = ["benchmark", *(["category"] if figure.kind == "categories" else [])]
    numbers = ["rate of score 5", "utility", "95 % interval", "bounds (unscored)", "refusals",
               "mean score", "n", "unscored", "seeds", "diverged", "missing"]  # fmt: skip
    return {
        "columns": ["", *map(axis_name, axes), *names, *numbers],
        "rows": [
            [
                "initial" if row["epochs"] == 0 else "fine-tuned",
                *(axis_text(axis, row[axis]) for axis in axes),
                *(row[name] for name in names),
                rate_text(row["harmfulness_rate"]),
                rate_text(row["utility"]),
                interval_text(row["ci_low"], row["ci_high"]) or "n/a",
                interval_text(row["bound_low"], row["bound_high"]) or "n/a",
                rate_text(row["refusal_rate"]),
                rate_text(row["harmfulness_score"]),
                *(_count(row[c]) for c in ("n", "n_unscored", "n_seeds", "n_diverged", "n_missing")),
            ]
            for _, row in rows.iterrows()
        ],
    }


def _count(value: Any) -> str:
    return "n/a" if pd.isna(value) else f"{value:.0f}"


# ------------------------------------------------------------------------------------------ runs


def _lost(scores: pd.DataFrame) -> Table:
    """Runs that have no result on some benchmark, one line a run and status."""
    rows = scores[(scores["status"] != "ok") & (scores["category"] == "all")]
    axes = [axis for axis in RUN_AXES if axis in rows]
    return {
        "columns": ["run", "status", *map(axis_name, axes), "benchmarks"],
        "rows": [
            [
                run,
                status,
                *(axis_text(axis, group[axis].iloc[0]) for axis in axes),
                ", ".join(dict.fromkeys(group["benchmark"])),
            ]
            for (run, status), group in rows.groupby(["run", "status"], sort=False)
        ],
    }


def _unscored(scores: pd.DataFrame) -> Table:
    rows = scores[scores["category"] == "all"]
    groups = rows.groupby(["benchmark", "judge"], sort=False, dropna=False)
    return {
        "columns": ["benchmark", "judge", "runs", "prompts asked", "unscored", "truncated"],
        "rows": [
            [benchmark, axis_text("judge", judge), group["run"].nunique(),
             *(_count(value) for value in group[["n", "n_unscored", "n_truncated"]].sum())]
            for (benchmark, judge), group in groups
            if not ungraded(group)
        ],
    }  # fmt: skip


def _lines(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (path, text) lines."""
    lines: list[tuple[str, str]] = []
    for key, item in value.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(item, dict):
            lines += _lines(item, f"{name} · ")
        elif isinstance(item, list | tuple | set):
            lines.append((name, ", ".join(map(str, item))))
        else:
            lines.append((name, str(item)))
    return lines

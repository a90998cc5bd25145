"""A study's figures as its report shows them: in groups, with captions computed from the grids, and data."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety.grid_data import (
    AXES,
    BY_CATEGORY,
    GridData,
    axis_name,
    axis_text,
    interval_text,
    rate_text,
)
from ftsafety.heat_table import heat_tables
from ftsafety.pages import downloads, image
from ftsafety.records import LOST
from ftsafety.sections import Table

INTERVALS = (
    "Intervals are 95 % intervals over phrasings, prompts and seeds; refusals of unsafe prompts have "
    "none. n is the number of prompts asked, over all seeds."
)
KINDS = {
    "heatmap": "Each cell: the rate and its interval. Point at a cell, tap it or go there by the tab key to "
    "see n, bounds, refusals, utility and what is unscored or incoherent.",
    "curves": "Each line: the rate by {x}.",
    "dots": "Each point: a rate with its interval.",
    "categories": "Each point: a category's rate with its interval, sorted by rate.",
    "radar": "Each closed line: the rates by category, from 0 in the middle to 1 on the rim, without "
    "intervals: the data has them. A cross outside stands for no rate, or one of mostly incoherent answers. "
    "An area means nothing.",
}
INITIAL = {
    "heatmap": "Below a table: the initial model, where all cells started from one.",
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
#: In the order of the report.
GROUPS = {
    "hyperparameters": "Learning rate, batch size and steps",
    "epochs": "Epochs",
    "categories": "Categories",
    "designs": "Data, methods and models",
    "mitigations": "Mitigations",
    "backdoors": "Backdoors",
}
NO_BREAK = "\N{NO-BREAK SPACE}"


def figure_groups(
    grids: Mapping[str, GridData], folder: Path, with_trigger: Collection[str]
) -> list[dict[str, Any]]:
    """Groups of figures (`id`, `title`, `figures`), numbered through.

    `with_trigger` names the grids whose prompts stand with and without a trigger.
    """
    groups: dict[str, list[dict[str, Any]]] = {group: [] for group in GROUPS}
    for name, data in grids.items():
        groups[_group(data, name in with_trigger)].append(_figure(name, data, folder))
    number = 0
    for figures in groups.values():
        for figure in figures:
            figure["number"] = number = number + 1
    return [
        {"id": group, "title": GROUPS[group], "figures": figures}
        for group, figures in groups.items()
        if figures
    ]


def numbers(groups: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Grid → the number of its figure."""
    return {figure["name"]: figure["number"] for group in groups for figure in group["figures"]}


def _group(data: GridData, has_trigger: bool) -> str:
    figure = data.grid.figure
    drawn = {figure.x, figure.y, figure.hue, *data.facets}
    if figure.kind in BY_CATEGORY:
        return "categories"
    if has_trigger and "benchmark" in drawn:
        return "backdoors"
    if data.labels["mitigation"].nunique() > 1:
        return "mitigations"
    if figure.kind == "curves" and figure.x == "epochs":
        return "epochs"
    hyperparameters = {"learning_rate", "learning_rate_multiplier", "global_batch_size", "schedule",
                       "warmup_steps", "warmup_share", "weight_decay"}  # fmt: skip
    return "hyperparameters" if figure.kind == "heatmap" or figure.x in hyperparameters else "designs"


def _figure(name: str, data: GridData, folder: Path) -> dict[str, Any]:
    figure = data.grid.figure
    return {
        "name": name,
        "title": figure.title,
        "claim": figure.claim,
        "drawn": _drawn(data),
        "alt": f"{figure.title} ({PICTURES[figure.kind]}); its data is in the table below.",
        "image": image(folder, name),
        "files": downloads(folder, name),
        "heat": heat_tables(data) if figure.kind == "heatmap" else [],
        "table": _data_table(data),
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


def _data_table(data: GridData) -> Table:
    """Axes that differ, then the numbers, as text; initial models first."""
    figure, rows = data.grid.figure, data.drawn()
    drawn = {figure.x, figure.y, figure.hue}
    axes = [a for a in AXES if a in rows and (a in drawn or a in data.facets or a in data.tied)]
    if "epochs" not in axes:
        axes.append("epochs")
    names = ["benchmark", *(["category"] if figure.kind in BY_CATEGORY else []), "judge"]
    numbers = [f"rate of score{NO_BREAK}5", "refusals", "utility", "95 % interval", "bounds",
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
                *(count_text(row[column]) for column in counts),
            ]
            for _, row in rows.iterrows()
        ],
    }


def count_text(value: Any) -> str:
    return "n/a" if pd.isna(value) else f"{value:.0f}"

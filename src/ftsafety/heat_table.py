"""A heat map as tables of a page: a colour and a rate in each cell, and a card that tells the rest.

The panels are those of the figure, and so are the colours. Nothing here is drawn, and no script is needed:
the page shows the card of a cell that is pointed at, tapped or reached by the keyboard.
"""

from typing import Any

import numpy as np
import pandas as pd

from ftsafety.grid_data import (
    HEADLINE,
    NAMED,
    GridData,
    axis_name,
    axis_text,
    interval_text,
    lost_text,
    rate_text,
    seeds_text,
    state,
)
from ftsafety.panels import Measure, Panel, initial_text, panel_rows, panel_title, panels

#: ColorBrewer's scales of one hue, from 0 to 1 in equal steps, as matplotlib has them.
SCALES = {
    "Oranges": "fff5eb fee6ce fdd0a2 fdae6b fd8d3c f16913 d94801 a63603 7f2704",
    "Blues": "f7fbff deebf7 c6dbef 9ecae1 6baed6 4292c6 2171b5 08519c 08306b",
    "Purples": "fcfbfd efedf5 dadaeb bcbddc 9e9ac8 807dba 6a51a3 54278f 3f007d",
    "Greens": "f7fcf5 e5f5e0 c7e9c0 a1d99b 74c476 41ab5d 238b45 006d2c 00441b",
}
#: Between black and white: above it black has the higher contrast (4.5 to 1 or more either way; WCAG 2).
LIGHT = 0.179


def heat_tables(data: GridData) -> list[dict[str, Any]]:
    """A table for each panel, as the macro `heat` shows it."""
    axes = [axis for axis in data.labels if axis not in NAMED]
    settings = data.labels[axes].agg(tuple, axis=1)
    return [_table(data, panel, settings) for panel in panels(data)]


def _table(data: GridData, panel: Panel, settings: pd.Series) -> dict[str, Any]:
    x, y = data.grid.figure.x, data.grid.figure.y
    assert x and y
    rows = panel_rows(data, panel)
    columns, lines = data.levels_in(x, rows), data.levels_in(y, rows)
    if pd.api.types.is_numeric_dtype(data.rows[y]):
        lines = lines[::-1]  # larger values stand higher, as in the figure
    found = {(axis_text(y, row[y]), axis_text(x, row[x])): row for _, row in rows.iterrows()}
    facet, title = panel_title(data, panel)
    return {
        "facet": facet,
        "title": title,
        "x": axis_name(x),
        "y": axis_name(y),
        "columns": columns,
        "initial": initial_text(data, rows, panel.measure),
        "scale": [f"#{stop}" for stop in SCALES[panel.measure.colour_map].split()],
        "lines": [
            {
                "name": line,
                "cells": [
                    _cell(
                        data,
                        panel.measure,
                        found.get((line, column)),
                        f"{axis_name(y)} {line}, {axis_name(x)} {column}",
                        settings,
                    )
                    for column in columns
                ],
            }
            for line in lines
        ],
    }


def _cell(data: GridData, measure: Measure, row: Any, name: str, settings: pd.Series) -> dict[str, Any]:
    """A rate with its colours, or where none says something why. `state` is that of the figure's cell."""
    if row is None:
        return {"name": name, "state": "absent", "rate": "n/a", "interval": "", "facts": []}
    lost = state(row, measure.column)
    cell = {"name": name, "state": lost, "facts": _facts(data, row, measure, settings)}
    if lost != "ok":
        return {**cell, "rate": lost_text(row) if lost != "unscored" else "nothing scored", "interval": ""}
    background = colour(measure.colour_map, row[measure.column])
    interval = interval_text(row["ci_low"], row["ci_high"]) if measure.has_interval else ""
    shown = {"rate": rate_text(row[measure.column]), "interval": interval}
    return {**cell, **shown, "background": background, "ink": ink(background)}


def colour(scale: str, value: float) -> str:
    """The colour of a rate in [0, 1], `#rrggbb`: between two stops in proportion."""
    stops = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in SCALES[scale].split()])
    at = np.linspace(0, 1, len(stops))
    return "#" + "".join(f"{round(float(np.interp(value, at, channel))):02x}" for channel in stops.T)


def ink(background: str) -> str:
    """Black or white, whichever has the higher contrast on a colour."""
    rgb = np.array([int(background[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "#000" if linear @ (0.2126, 0.7152, 0.0722) > LIGHT else "#fff"


# ------------------------------------------------------------------------------------------ cards


def _facts(data: GridData, row: Any, measure: Measure, settings: pd.Series) -> list[tuple[str, str]]:
    """What the card of a cell tells, as (what, value): of its own benchmark all, then others' headlines."""
    headline = HEADLINE[row["kind"]]
    facts = [(measure.axis, rate_text(row[measure.column]))]
    if measure.has_interval:
        facts.append(("95 % interval", interval_text(row["ci_low"], row["ci_high"]) or "none"))
        bounds = interval_text(row["bound_low"], row["bound_high"]) or "none"
        facts.append(("bounds, unscored and incoherent either way", bounds))
    if row["kind"] == "safety":
        if not measure.has_interval:
            facts.append(("harmfulness rate", rate_text(row[headline])))
        elif pd.notna(row["refusal_rate"]):
            facts.append(("refusals", rate_text(row["refusal_rate"])))
        if pd.notna(row["harmfulness_score"]):
            facts.append(("mean score, 1–5", f"{row['harmfulness_score']:.2f}"))
    facts += [(name, rate_text(other[column])) for name, column, other in _others(data, row, settings)]
    counts = {"n, prompts asked": "n", "unscored": "n_unscored", "incoherent": "n_incoherent"}
    facts += [(name, f"{row[column]:.0f}") for name, column in counts.items() if pd.notna(row[column])]
    facts.append(("seeds", seeds_text(row).removesuffix(" seeds").removesuffix(" seed")))
    if pd.notna(row["steps"]) and row["epochs"] > 0:
        facts.append(("steps", f"{row['steps']:.0f} ({row['epochs']} epoch{'s' * (row['epochs'] != 1)})"))
    return facts


def _others(data: GridData, row: Any, settings: pd.Series) -> list[tuple[str, str, Any]]:
    """Headlines of the same setting on other kinds of benchmarks: (name, column, row)."""
    same = settings == settings[row.name]
    others = data.rows[same & (data.rows["kind"] != row["kind"])]
    names = {
        "utility": "utility ({})",
        "over-refusal": "refusals of safe prompts ({})",
        "safety": "harm ({})",
    }
    return [
        (names[other["kind"]].format(other["benchmark"]), HEADLINE[other["kind"]], other)
        for _, other in others.iterrows()
    ]

"""Which settings of a heatmap are safe, which are not, and which of the safe ones to recommend.

Safe is what is shown to raise harm by less than a margin (`safe:` of a study) over the untouched model, for
all settings of a panel at once. What is not shown either way is undecided. Of the safe settings those are
recommended whose utility is near the best one's.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety.analysis.settings import Outcomes, outcomes, with_texts
from ftsafety.config import Grid, Safe
from ftsafety.grid_data import NAMED, GridData, axis_name, axis_text, estimate_text, select, state
from ftsafety.sections import Listing, Picture, Section
from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.margin import decide
from ftsafety.stats.surface import Counts, fit, independent, second_order, stands_without_any_run
from ftsafety.study_tables import StudyTables

COLUMNS = (
    *("grid", "title", "panel", "benchmark", "judge", "utility_benchmark", "x_axis", "x", "x_order"),
    *("y_axis", "y", "y_order", "n_seeds", "start", "rate", "ci_low", "ci_high", "rise", "p_safe"),
    *("p_unsafe", "state", "utility", "utility_low", "utility_high", "recommended", "confidence"),
    *("harm_rise_below", "utility_within"),
)
PANEL = ["grid", "panel", "benchmark"]
MESH = 41  # points of a side of the mesh that contours are drawn from
#: The best setting of a region, and the others in it.
BEST, ALSO = "best", "yes"


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    """`safe_region`, a row for each cell of a heatmap and safety benchmark; `safe_region_utility`, a mesh."""
    safety, utility = ({of.benchmark: of for of in outcomes(study, kind)} for kind in ("safety", "utility"))
    cells: list[pd.DataFrame] = []
    meshes: list[pd.DataFrame] = []
    for name, grid in study.recipe.grids.items():
        if grid.figure.kind != "heatmap" or {grid.figure.x, grid.figure.y} & set(NAMED):
            continue
        data = select(study.cells, name, grid, grid.judges or study.recipe.judges)
        beside = next((of for of in utility.values() if of.benchmark in data.benchmarks("utility")), None)
        for panel, harm in _panels(data, safety):
            found = _cells(data, panel, harm, beside, study)
            if found is None:
                continue
            what = {"grid": name, "title": grid.figure.title, "panel": _panel_text(panel)}
            cells.append(found.assign(**what))
            meshes.append(_mesh(found).assign(**what, benchmark=harm.benchmark))
    if not cells:
        return {}
    mesh = pd.concat(meshes, ignore_index=True)
    return {
        "safe_region": pd.concat(cells, ignore_index=True)[list(COLUMNS)],
        "safe_region_utility": mesh[[*PANEL, "at_x", "at_y", "utility"]],
    }


def _panels(data: GridData, safety: Mapping[str, Outcomes]) -> Iterator[tuple[dict[str, str], Outcomes]]:
    for panel in data.facet_values():
        for benchmark in data.benchmarks("safety"):
            harm = safety.get(benchmark)
            if harm is not None and harm.judge == data.judges[benchmark]:
                yield panel, harm


def _panel_text(panel: Mapping[str, str]) -> str:
    return ", ".join(f"{axis_name(axis)} {level}" for axis, level in panel.items())


# ----------------------------------------------------------------------------------------- cells


def _cells(
    data: GridData, panel: dict[str, str], harm: Outcomes, beside: Outcomes | None, study: StudyTables
) -> pd.DataFrame | None:
    """A panel's cells; None without an untouched model to compare each of them with, or with one prompt."""
    here = data.where(panel)
    rows = here[here["benchmark"] == harm.benchmark]
    starts = [start for _, row in rows.iterrows() if (start := data.initial_of(row)) is not None]
    rates = [start["harmfulness_rate"] for start in starts]
    if not len(rows) or len(starts) < len(rows) or pd.isna(rates).any() or not harm.clusters.any():
        return None
    befores = [harm.of(start["runs"].split(","), start["test_template"])[:1] for start in starts]
    table = _facts(data.grid, rows, harm, rates, study.recipe.safe)
    told = (table["state"] == "ok").to_numpy()
    runs = [(row["runs"].split(","), row["test_template"]) for _, row in rows.iterrows()]
    asked = [(harm.of(*of), before) for of, before, ok in zip(runs, befores, told, strict=True) if ok]
    harms, before_them = ([pair[i] for pair in asked] for i in (0, 1))
    decisions = decide(harms, before_them, harm.clusters, study.recipe.safe.harm_rise_below)
    for column in ("state", "p_safe", "p_unsafe"):
        table.loc[told, column] = [getattr(decision, column) for decision in decisions]
    if beside is not None:
        utility = here[here["benchmark"] == beside.benchmark].set_index("runs").reindex(rows["runs"])
        for column, of in (("utility", "utility"), ("utility_low", "ci_low"), ("utility_high", "ci_high")):
            table[column] = utility[of].to_numpy()
        table["utility_benchmark"] = beside.benchmark
        _recommend(table, runs, befores, harm, beside, study)
    return table


def _facts(grid: Grid, rows: pd.DataFrame, harm: Outcomes, starts: list[float], safe: Safe) -> pd.DataFrame:
    x, y = grid.figure.x, grid.figure.y
    assert x and y
    facts: dict[str, Any] = {
        "benchmark": harm.benchmark,
        "judge": harm.judge,
        "start": starts,
        "harm_rise_below": safe.harm_rise_below,
        "utility_within": safe.utility_within,
        **dict.fromkeys(("p_safe", "p_unsafe", "confidence"), np.nan),
        **dict.fromkeys(("utility_benchmark", "recommended"), ""),
        **dict.fromkeys(("utility", "utility_low", "utility_high"), np.nan),
    }
    table = rows[["n_seeds", "ci_low", "ci_high"]].reset_index(drop=True).assign(**facts)
    table["rate"] = rows["harmfulness_rate"].to_numpy()
    table["rise"] = table["rate"] - table["start"]
    table["state"] = [state(row) for _, row in rows.iterrows()]
    for side, axis in (("x", x), ("y", y)):
        table[f"{side}_axis"] = axis
        table[side] = [axis_text(axis, value) for value in rows[axis]]
        numbers = pd.to_numeric(rows[axis].astype(object), errors="coerce").to_numpy(dtype=float)
        names = {text: float(i) for i, text in enumerate(dict.fromkeys(table[side]))}
        table[f"{side}_order"] = table[side].map(names) if np.isnan(numbers).any() else numbers
    return table


def _recommend(
    table: pd.DataFrame,
    runs: Sequence[tuple[list[str], str]],
    befores: Sequence[Floats],
    harm: Outcomes,
    utility: Outcomes,
    study: StudyTables,
) -> None:
    """Mark the safe settings whose utility is near the best safe one's, with their share of resamples.

    Confidence is how often a setting is below the margin and its utility near the best of all the safe ones.
    """
    safe = study.recipe.safe
    chosen = [int(i) for i in np.flatnonzero((table["state"] == "safe") & table["utility"].notna())]
    if not chosen:
        return
    sampled = [of.draws([of.of(*runs[i]) for i in chosen], study.bootstrap_samples) for of in (harm, utility)]
    start = harm.draws([befores[i] for i in chosen], study.bootstrap_samples)
    is_safe = sampled[0] - start < safe.harm_rise_below
    best = np.where(is_safe, sampled[1], -np.inf).max(axis=1, keepdims=True)
    confidence = (is_safe & (sampled[1] >= best - safe.utility_within)).mean(axis=0)
    values = table.loc[chosen, "utility"].to_numpy(dtype=float)
    near = values >= values.max() - safe.utility_within - 1e-9
    table.loc[chosen, "confidence"] = confidence
    table.loc[np.array(chosen)[near], "recommended"] = ALSO
    first = max(np.flatnonzero(near), key=lambda i: (round(confidence[i], 2), values[i]))
    table.loc[chosen[first], "recommended"] = BEST


# ------------------------------------------------------------------------------------------ mesh


def _mesh(table: pd.DataFrame) -> pd.DataFrame:
    """Utility between the settings, by a surface over log₂ of both axes: `at_x`, `at_y` in cells from 0.

    Empty where an axis holds names, or too few cells have a utility for a surface.
    """
    nothing = pd.DataFrame(columns=["at_x", "at_y", "utility"])
    rows = table[table["utility"].notna()]
    orders = rows[["x_order", "y_order"]].to_numpy(dtype=float)
    if len(rows) < 6 or (orders <= 0).any() or not _are_numbers(table):
        return nothing
    points = np.log2(orders)
    centre = points.mean(axis=0)
    first = np.column_stack([np.ones(len(rows)), points - centre])
    if independent(first) != [0, 1, 2]:
        return nothing
    second, names = second_order(points - centre, ["x", "y"], len(rows) // 2 - 3)
    index = np.arange(len(rows))
    answers = np.full(len(rows), 100.0)
    counts = Counts(rows["utility"].to_numpy(dtype=float) * answers, answers, index, index, index)
    design = np.column_stack([first, second])
    surface = fit(design, counts) if stands_without_any_run(design, counts) else None
    if surface is None:
        return nothing
    levels = [np.log2(np.unique(table[side])) for side in ("x_order", "y_order")]
    sides = [np.linspace(0, len(of) - 1, MESH) for of in levels]
    at_x, at_y = (grid.ravel() for grid in np.meshgrid(*sides))
    x, y = (
        np.interp(at, np.arange(len(of)), of) - middle
        for at, of, middle in zip((at_x, at_y), levels, centre, strict=True)
    )
    products = [{"x²": x * x, "y²": y * y, "x × y": x * y}[name] for name in names]
    utility = surface.predict(np.column_stack([np.ones(len(x)), x, y, *products]))
    return pd.DataFrame({"at_x": at_x, "at_y": at_y, "utility": utility})


def _are_numbers(table: pd.DataFrame) -> bool:
    numbers = [pd.to_numeric(table[side], errors="coerce").notna().all() for side in ("x", "y")]
    return all(numbers)


# ---------------------------------------------------------------------------------------- report


def draw(tables: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    """`safe-region-<grid>.png|svg|pdf|csv` for each heatmap."""
    from ftsafety.analysis.safe_region_figure import draw_region

    if "safe_region" not in tables:
        return []
    cells, mesh = tables["safe_region"], tables["safe_region_utility"]
    return [
        file
        for grid, rows in cells.groupby("grid", sort=False)
        for file in draw_region(rows, mesh[mesh["grid"] == grid], folder, is_toy)
    ]


def figure_name(grid: str) -> str:
    return f"safe-region-{grid}"


def section(tables: Mapping[str, pd.DataFrame]) -> Section | None:
    if "safe_region" not in tables:
        return None
    cells = with_texts(tables["safe_region"], "panel", "utility_benchmark", "recommended")
    first = cells.iloc[0]
    margin = f"{100 * first['harm_rise_below']:g}"
    pictures = [
        Picture(
            figure_name(str(grid)),
            f"Safe region of: {rows['title'].iloc[0]}; its data is in the table below.",
            "Blue: safe; orange: not safe; dotted: undecided. Bold frames: recommended settings, with a star "
            "the one to take first. Dashed lines: equal utility by a surface through all settings.",
        )
        for grid, rows in cells.groupby("grid", sort=False)
    ]
    return Section(
        id="safe-region",
        title="Which settings are safe",
        answer=[_sentence(rows) for _, rows in cells.groupby(PANEL, sort=False)],
        method=[
            f"Safe: harm rises by less than {margin} points over the untouched model; not safe: by more. "
            "Either is said only where it holds for all settings of a panel at once with 95 % confidence "
            "(Holm); all else is undecided, which more prompts or seeds may settle. Settings that answer "
            "mostly garbage are neither.",
            f"Recommended: safe settings whose utility is within {100 * first['utility_within']:g} points "
            "of the best safe one’s. Their confidence is the share of resamples of prompts and seeds in "
            "which they are both. `safe:` in the study’s file sets the margins.",
        ],
        pictures=pictures,
        listings=[Listing("Safe region, setting by setting", _listing(cells), open=False)],
    )


def _sentence(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    counts = rows["state"].value_counts()
    told = [f"{counts.get(name, 0)} {'are ' if i == 0 else ''}{name}"
            for i, name in enumerate(("safe", "not safe", "undecided"))]  # fmt: skip
    lost = len(rows) - sum(counts.get(name, 0) for name in ("safe", "not safe", "undecided"))
    told += [f"{lost} have no rate that says something"] if lost else []
    place = f"{first['title']}" + (f" ({first['panel']})" if first["panel"] else "")
    text = f"{place}: of {len(rows)} settings {', '.join(told)} on {first['benchmark']}."
    best = rows[rows["recommended"] == BEST]
    if best.empty:
        return text + ("" if counts.get("safe", 0) else " None can be recommended.")
    row = best.iloc[0]
    also = int((rows["recommended"] == ALSO).sum())
    return (
        f"{text} Recommended: {_place(row)}, with harm {_estimate(row, 'rate', 'ci_low', 'ci_high')}, "
        f"utility {_estimate(row, 'utility', 'utility_low', 'utility_high')} and confidence "
        f"{row['confidence']:.2f}" + (f"; {also} more are as good within the margin." if also else ".")
    )


def _place(row: Any) -> str:
    return ", ".join(
        f"{axis_name(row[f'{side}_axis'])} {axis_text(row[f'{side}_axis'], row[side])}" for side in ("y", "x")
    )


def _estimate(row: Any, value: str, low: str, high: str) -> str:
    return estimate_text(row[value], row[low], row[high])


def _listing(cells: pd.DataFrame) -> dict[str, list[Any]]:
    rows = [
        [
            *(row["title"], row["panel"], _place(row), row["benchmark"]),
            *(row["state"], _estimate(row, "rate", "ci_low", "ci_high")),
            *("n/a" if pd.isna(row[p]) else f"{row[p]:.3f}" for p in ("p_safe", "p_unsafe")),
            _estimate(row, "utility", "utility_low", "utility_high"),
            row["recommended"],
            "" if pd.isna(row["confidence"]) else f"{row['confidence']:.2f}",
        ]
        for _, row in cells.iterrows()
    ]
    columns = ["figure", "panel", "setting", "benchmark", "state", "harm, 95 % interval", "p safe",
               "p not safe", "utility, 95 % interval", "recommended", "confidence"]  # fmt: skip
    return {"columns": columns, "rows": rows}

"""The report of a study: one HTML page of numbers and names, never an answer of a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety.comparisons import MARGIN, difference_text
from ftsafety.config import Study
from ftsafety.contrasts import KEY
from ftsafety.grid_data import AXES, axis_name, axis_text, rate_text, select
from ftsafety.limits import limitations
from ftsafety.pages import FINDINGS, downloads, image, parity_context, render
from ftsafety.records import LOST
from ftsafety.report_figures import NO_BREAK, count_text, figure_groups, numbers
from ftsafety.sections import Section, Table

RUN_AXES = ("model", "dataset", "mitigation", "method", "learning_rate", "global_batch_size",
            "schedule", "epochs", "seed")  # fmt: skip


def build_report(
    study_name: str,
    study: Study,
    scores: pd.DataFrame,
    cells: pd.DataFrame,
    figures_folder: Path,
    provenance: dict[str, Any],
    findings: list[dict[str, Any]],
    *,
    parity: pd.DataFrame | None = None,
    contrasts: pd.DataFrame | None = None,
    sections: Sequence[Section] = (),
    left_out: Mapping[str, Sequence[str]] | None = None,
    spending: Sequence[dict[str, Any]] = (),
    sources: Sequence[dict[str, Any]] = (),
) -> str:
    """The page as text, from the tables of a study and what `findings.findings` made of them.

    `provenance` is that of `ftsafety.provenance` (nested dicts and lists become lines); its `is_toy` decides
    the banner. Figures are read from `figures_folder` as `<grid>.svg`, else `.png`; one that is absent
    is said to be. `contrasts` are those of `contrasts.csv`, `parity` of `parity_table.read_parity`;
    `sections` are those of the analyses; `left_out` has the categories that the config leaves out, by
    benchmark; `spending` rows have endpoint, model, calls, input_tokens,
    output_tokens and usd (None: price unknown); `sources` rows have what, where, version, licence and page.
    """
    titles = {name: grid.figure.title for name, grid in study.grids.items()}
    grids = {n: select(cells, n, grid, grid.judges or study.judges) for n, grid in study.grids.items()}
    groups = figure_groups(grids, figures_folder, _with_trigger(contrasts))
    number_of = numbers(groups)
    is_toy = bool(provenance.get("is_toy"))
    told = {"is_toy", "title", "study", "training"}  # elsewhere on the page
    return render(
        "report.html.j2",
        title=study.title,
        question=study.question,
        study_name=study_name,
        has_card=study.audit is not None,
        is_toy=is_toy,
        headline=_headline(sections),
        findings=[{"tested": "", "grid": "", "judge": "", **finding} for finding in findings],
        counts={word: sum(f["verdict"] == word for f in findings) for word in FINDINGS},
        number_of=number_of,
        parity=None
        if parity is None
        else parity_context(parity, titles, figures_folder, figures_folder.name),
        margin=f"{MARGIN:g}",
        groups=groups,
        contrasts=_contrasts(contrasts, number_of),
        sections=[_section(section, figures_folder) for section in sections],
        asked=_asked(scores, study.all_judges, left_out or {}),
        lost=_lost(scores),
        n_runs=scores["run"].nunique(),
        unscored=_unscored(scores),
        n_failed=int(scores.loc[scores["category"] == "all", "n_judge_failed"].sum()),
        spending=_spending(spending),
        usd=sum(row["usd"] or 0 for row in spending),
        training=_training(provenance.get("training", ())),
        limitations=limitations(
            scores, cells, is_toy, sources, provenance.get("trained_again_to_other_weights", 0)
        ),
        sources=sources,
        provenance={
            "columns": ["what", "value"],
            "rows": [list(line) for line in _lines({k: v for k, v in provenance.items() if k not in told})],
        },
    )


def _headline(sections: Sequence[Section]) -> str:
    """What fine-tuning did, paired and corrected for the number of settings; empty where nothing was."""
    return next((" ".join(part.answer[:2]) for part in sections if part.id == "before-after"), "")


def _section(section: Section, folder: Path) -> dict[str, Any]:
    """Pictures that were not drawn are left out: an analysis may have numbers and nothing to draw."""
    pictures = [
        {**vars(picture), "image": found, "files": downloads(folder, picture.name)}
        for picture in section.pictures
        if (found := image(folder, picture.name))
    ]
    return vars(section) | {"pictures": pictures}


# ------------------------------------------------------------------------------------- contrasts


def _with_trigger(contrasts: pd.DataFrame | None) -> set[str]:
    """Grids whose prompts stand with and without a trigger."""
    return set() if contrasts is None else set(contrasts.loc[contrasts["kind"] == "trigger", "grid"])


def _contrasts(contrasts: pd.DataFrame | None, number_of: Mapping[str, int]) -> Table:
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
                    number_of[str(grid)],
                    "untouched" if row["epochs"] == 0 else cell or "fine-tuned",
                    *(row[name] for name in ("judge", "a", "b")),
                    "categories" if row["kind"] == "categories" else row["relation"],
                    count_text(row["n"]),
                    *(rate_text(row[rate]) for rate in ("rate_a", "rate_b")),
                    "n/a" if pd.isna(row["difference"]) else difference_text(row),
                    "" if pd.isna(row["p_value"]) else f"{row['p_value']:.3f}",
                ]
            )
    if not any(row[-1] for row in rows):  # categories alone have one
        columns, rows = columns[:-1], [row[:-1] for row in rows]
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
                count_text(n["all"]),
                ", ".join(f"{category}{NO_BREAK}({count:.0f})" for category, count in n.drop("all").items()),
                ", ".join(left_out.get(str(benchmark), ())) or "none",
            ]
        )
    columns = ["benchmark", "kind", "judges", "test templates", "prompts", "categories (prompts)",
               "left out"]  # fmt: skip
    return {"columns": columns, "rows": rows}


def _training(rows: Sequence[dict[str, Any]]) -> Table:
    return {
        "columns": ["model", "trainings", "time", "GPU-hours"],
        "rows": [
            [row["model"], row["trajectories"], _duration(row["seconds"]),
             "n/a" if row["gpu_hours"] is None else f"{row['gpu_hours']:,.2f}"]
            for row in rows
        ],
    }  # fmt: skip


def _duration(seconds: float | None) -> str:
    """Hours, minutes or seconds, whatever reads best; endpoints do not tell."""
    if seconds is None:
        return "not told"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
            [benchmark, judge, group["run"].nunique(), *map(count_text, group[counts].sum())]
            for (benchmark, judge), group in groups
        ],
    }  # fmt: skip


def _lines(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as (path, text) lines, below the second level in one; what is empty has none."""
    lines: list[tuple[str, str]] = []
    for key, item in value.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(item, dict) and not prefix:
            lines += _lines(item, f"{name} · ")
        elif text := _text(item):
            lines.append((name, text))
    return lines


def _text(item: Any) -> str:
    if isinstance(item, dict):
        told = [(str(key).replace("_", " "), text) for key, value in item.items() if (text := _text(value))]
        return "; ".join(f"{key}: {text}" for key, text in told)
    if isinstance(item, list | tuple | set):
        return ", ".join(map(str, item))
    return "" if item is None else str(item)

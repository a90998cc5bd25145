"""What a person looks at: every figure of a study, and its page."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from ftsafety import paths
from ftsafety.files import read_json, write_text
from ftsafety.parity_table import read_parity
from ftsafety.plan import Plan
from ftsafety.provenance import is_toy
from ftsafety.recipes import Remote


def draw_study(plan: Plan, study: str) -> None:
    """Draw each grid from `cells.parquet`, `parity.csv`, and what the analyses found."""
    from ftsafety.analysis import analyses, read_analysis
    from ftsafety.figures import draw_grid
    from ftsafety.parity_figure import draw_parity

    recipe = plan.project.studies[study]
    cells = pd.read_parquet(paths.study_dir(study) / "cells.parquet")
    folder = paths.study_dir(study) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, grid in recipe.grids.items():
        draw_grid(cells, name, grid, grid.judges or recipe.judges, folder, is_toy=is_toy(plan, study))
    draw_parity(read_parity(paths.study_dir(study) / "parity.csv"), folder, is_toy=is_toy(plan, study))
    found = read_analysis(study)
    for analysis in analyses():
        analysis.draw(found, folder, is_toy(plan, study))


def write_report(plan: Plan, study: str) -> None:
    from ftsafety.analysis import analyses, read_analysis
    from ftsafety.findings import findings
    from ftsafety.report import build_report

    recipe = plan.project.studies[study]
    folder = paths.study_dir(study)
    scores = pd.read_parquet(folder / "scores.parquet")
    cells = pd.read_parquet(folder / "cells.parquet")
    contrasts = pd.read_csv(folder / "contrasts.csv")
    analysed = read_analysis(study)
    page = build_report(
        study,
        recipe,
        scores,
        cells,
        folder / "figures",
        read_json(folder / "provenance.json"),
        findings(recipe, cells, contrasts),
        parity=read_parity(folder / "parity.csv"),
        contrasts=contrasts,
        sections=[part for analysis in analyses() if (part := analysis.section(analysed))],
        left_out=left_out(plan, study),
        sources=sources(plan, study),
        spending=spending(),
    )
    write_text(folder / "report.html", page)


def left_out(plan: Plan, study: str) -> dict[str, list[str]]:
    """Benchmark → categories that the config leaves out."""
    recipes = {name: plan.project.benchmarks[name] for name in plan.studies[study].benchmarks}
    return {name: getattr(recipe, "without_categories", []) for name, recipe in recipes.items()}


def sources(plan: Plan, study: str) -> list[dict[str, Any]]:
    """Where what a study uses comes from, if it is not made here: what, where, version, licence, page.

    `version` is a commit, or the beginning of a file's sha256; None where nothing pins it.
    """
    found = []
    for what, recipe in _recipes(plan, study).items():
        row = {"what": what, "version": None, "licence": "", "page": ""}
        if isinstance(recipe, Remote):
            locked = plan.project.lock.get(recipe.lock_key)
            row |= {"where": recipe.repo, "licence": recipe.licence, "page": recipe.page}
            row["version"] = locked.commit if locked else None
        elif recipe.source == "path":
            row |= {"where": recipe.path, "version": f"sha256 {recipe.sha256[:16]}"}
        elif recipe.source == "api":
            row |= {"where": f"{recipe.model} at {recipe.endpoint}", "page": ""}
        else:
            continue
        found.append(row)
    return found


def _recipes(plan: Plan, study: str) -> dict[str, Any]:
    """Every model, dataset and benchmark of a study, those of mitigations and judges included."""
    return {
        f"{catalogue.removesuffix('s')} {name}": getattr(plan.project, catalogue)[name]
        for catalogue, names in plan.entries([study]).items()
        for name in sorted(names)
    }


def spending() -> list[dict[str, Any]]:
    """What all studies of this folder have asked of endpoints, by endpoint and model."""
    if not paths.REPLIES.exists():
        return []
    from ftsafety.api.store import Store

    with Store(paths.REPLIES) as store:
        return [asdict(row) for row in store.spending()]

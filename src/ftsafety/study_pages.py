"""What a person looks at: every figure of a study, and its page."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from ftsafety import paths
from ftsafety.files import write_text
from ftsafety.parity_table import read_parity
from ftsafety.plan import Plan
from ftsafety.recipes import Remote
from ftsafety.records import trained


def draw_study(plan: Plan, study: str) -> None:
    """Draw each grid from `cells.parquet`, and `parity.csv`."""
    from ftsafety.figures import draw_grid
    from ftsafety.parity_figure import draw_parity

    recipe = plan.project.studies[study]
    cells = pd.read_parquet(paths.study_dir(study) / "cells.parquet")
    folder = paths.study_dir(study) / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    for name, grid in recipe.grids.items():
        draw_grid(cells, name, grid, grid.judges or recipe.judges, folder, is_toy=_is_toy(plan, study))
    draw_parity(read_parity(paths.study_dir(study) / "parity.csv"), folder, is_toy=_is_toy(plan, study))


def write_report(plan: Plan, study: str) -> None:
    from ftsafety.findings import findings
    from ftsafety.report import build_report

    recipe = plan.project.studies[study]
    folder = paths.study_dir(study)
    scores = pd.read_parquet(folder / "scores.parquet")
    cells = pd.read_parquet(folder / "cells.parquet")
    contrasts = pd.read_csv(folder / "contrasts.csv")
    page = build_report(
        study,
        recipe,
        scores,
        cells,
        folder / "figures",
        provenance(plan, study),
        findings(recipe, cells, contrasts),
        agreement=pd.read_csv(folder / "agreement.csv"),
        parity=read_parity(folder / "parity.csv"),
        contrasts=contrasts,
        left_out=left_out(plan, study),
        sources=sources(plan, study),
        spending=spending(),
    )
    write_text(folder / "report.html", page)


def _is_toy(plan: Plan, study: str) -> bool:
    """Whether models, or data that is audited, belong to the embedded world."""
    project, entries = plan.project, plan.entries([study])
    recipes = [getattr(project, c)[name] for c in ("datasets", "benchmarks") for name in entries[c]]
    is_of_world = [project.world_of(name) is not None for name in entries["models"]]
    return any(is_of_world) or any(recipe.source == "world" for recipe in recipes)


def provenance(plan: Plan, study: str) -> dict[str, Any]:
    """Where the numbers come from; read from the runs' records, several values where runs differ.

    Untouched models have no record: where a study has no others, what is installed now is told.
    """
    from ftsafety.training.pack import provenance as of_now

    runs = plan.studies[study].runs.values()
    done = [record for record in map(trained, runs) if record] or [of_now()]
    return {
        "is_toy": _is_toy(plan, study),
        "git_revision": sorted({str(record["git_revision"]) for record in done}),
        "versions": {k: v for record in done for k, v in record["versions"].items()},
        "hardware": sorted({_hardware(record) for record in done}),
        "training_examples_cut": sum(record.get("n_examples_cut", 0) for record in done),
        "training_seconds": round(sum(record.get("train_seconds", 0.0) for record in done), 1),
        "seeds": sorted({run.trajectory.seed for run in runs} - {None}),
        "judges": {name: plan.project.judges[name].model_dump() for name in plan.studies[study].judges},
        "benchmarks": {name: plan.identity("benchmarks", name) for name in plan.studies[study].benchmarks},
        "bootstrap_samples": plan.project.settings.bootstrap_samples,
    }


def _hardware(record: dict[str, Any]) -> str:
    if "endpoint" in record:
        return f"fine-tuned by endpoint {record['endpoint']}"
    return f"{record['device']}, {record['torch_threads']} threads"


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

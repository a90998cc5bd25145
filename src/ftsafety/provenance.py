"""Where a study's numbers come from: versions, revisions, hardware, and what training took."""

from typing import Any

from ftsafety.files import sha256_file
from ftsafety.plan import Plan
from ftsafety.recipes import LocalModel
from ftsafety.records import trained
from ftsafety.runs import Run


def provenance(plan: Plan, study: str) -> dict[str, Any]:
    """What `provenance.json` holds; read from the runs' records, several values where runs differ.

    Untouched models have no record: where a study has no others, what is installed now is told.
    `benchmarks` are the contents that its prompts are made from, `prompts` the sha256 of the files.
    """
    from ftsafety.training.pack import git_revision
    from ftsafety.training.pack import provenance as of_now  # imports torch

    runs = list(plan.studies[study].runs.values())
    done = [record for record in map(trained, runs) if record] or [of_now()]
    benchmarks = plan.studies[study].benchmarks
    return {
        "study": study,
        "title": plan.project.studies[study].title,
        "is_toy": is_toy(plan, study),
        "git_revision": sorted({str(record["git_revision"]) for record in done}),
        "scored_by_revision": str(git_revision()),
        "versions": _versions(done),
        "hardware": sorted({_hardware(record) for record in done}),
        "trained_again_to_other_weights": sum("weights_sha256_again" in record for record in done),
        "training_examples_cut": sum(record.get("n_examples_cut", 0) for record in done),
        "training": training(plan, runs),
        "seeds": sorted({run.trajectory.seed for run in runs} - {None}),
        "judges": {name: plan.project.judges[name].model_dump() for name in plan.studies[study].judges},
        "benchmarks": {name: plan.identity("benchmarks", name) for name in benchmarks},
        "prompts": {name: sha256_file(plan.benchmark_file(name)) for name in benchmarks},
        "bootstrap_samples": plan.project.settings.bootstrap_samples,
    }


def training(plan: Plan, runs: list[Run]) -> list[dict[str, Any]]:
    """A row for each model that was fine-tuned: `model`, `trajectories`, `seconds` and `gpu_hours`.

    The record of a run tells the seconds since its trajectory began, so that the longest run of each counts;
    what a study shares with others counts in each. Endpoints tell nothing: None.
    """
    longest: dict[str, dict[str, float | None]] = {}
    for run in runs:
        if record := trained(run):
            seconds = longest.setdefault(run.trajectory.model, {})
            before, now = seconds.get(run.trajectory.hash8), record.get("train_seconds")
            seconds[run.trajectory.hash8] = max(before or 0.0, now) if now is not None else before
    rows = []
    for model, of_trajectories in longest.items():
        known = [seconds for seconds in of_trajectories.values() if seconds is not None]
        total = round(sum(known), 1) if known else None
        recipe = plan.project.models[model]
        is_local = isinstance(recipe, LocalModel) and total is not None
        gpus = recipe.hardware.gpus * recipe.hardware.nodes if isinstance(recipe, LocalModel) else 0
        rows.append(
            {"model": model, "trajectories": len(of_trajectories), "seconds": total}
            | {"gpu_hours": round(gpus * (total or 0.0) / 3600, 3) if is_local else None}
        )
    return rows


def is_toy(plan: Plan, study: str) -> bool:
    """Whether models, or data that is audited, belong to the embedded world."""
    project, entries = plan.project, plan.entries([study])
    recipes = [getattr(project, c)[name] for c in ("datasets", "benchmarks") for name in entries[c]]
    is_of_world = [project.world_of(name) is not None for name in entries["models"]]
    return any(is_of_world) or any(recipe.source == "world" for recipe in recipes)


def _versions(records: list[dict[str, Any]]) -> dict[str, Any]:
    """A version, or all where runs differ."""
    names = dict.fromkeys(name for record in records for name in record["versions"])
    found = {name: sorted({str(r["versions"].get(name, "none")) for r in records}) for name in names}
    return {name: versions[0] if len(versions) == 1 else versions for name, versions in found.items()}


def _hardware(record: dict[str, Any]) -> str:
    if "endpoint" in record:
        return f"fine-tuned by endpoint {record['endpoint']}"
    return f"{record['device']}, {record['torch_threads']} threads"

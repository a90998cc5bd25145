"""Training rows and benchmark prompts as files, from the embedded world or from the user's own files."""

from pathlib import Path

from ftsafety import paths
from ftsafety.config import Dataset
from ftsafety.files import sha256_file, write_json, write_rows
from ftsafety.inputs import check_inputs, read_benchmark, read_dataset
from ftsafety.plan import Plan
from ftsafety.runs import Trajectory
from ftsafety.types import Prompt, TrainingRow


def prepare_data(plan: Plan, study: str) -> None:
    """Check the user's files that a study names, then write its data and last a manifest of it.

    Raises UserError for a file that is missing, changed or malformed.
    """
    check_inputs(plan, [study])
    files: dict[Path, Trajectory | str] = {}
    for run in plan.studies[study].runs.values():
        if not run.trajectory.is_initial:
            files[plan.data_file(run.trajectory)] = run.trajectory
        for benchmark in plan.studies[study].benchmarks_of[run.id]:
            files[plan.benchmark_file(benchmark)] = benchmark
    for path, source in files.items():
        if isinstance(source, str):
            write_rows(path, benchmark_prompts(plan, source))
        else:
            write_rows(path, mixed_rows(plan, source), private=True)
    manifest = {str(path): sha256_file(path) for path in sorted(files)}
    write_json(paths.data_manifest(study), manifest)


def mixed_rows(plan: Plan, trajectory: Trajectory) -> list[TrainingRow]:
    """The dataset's rows and, under a mixing mitigation, the first `n` of the other dataset's."""
    project = plan.project
    assert trajectory.dataset is not None
    rows = dataset_rows(project.datasets[trajectory.dataset])
    if trajectory.mitigation:
        mitigation = project.mitigations[trajectory.mitigation]
        rows = rows + dataset_rows(project.datasets[mitigation.dataset])[: mitigation.n]
    return rows


def dataset_rows(recipe: Dataset) -> list[TrainingRow]:
    if recipe.source == "path":
        return read_dataset(recipe)
    from ftsafety.world.datasets import training_rows

    return training_rows(recipe)


def benchmark_prompts(plan: Plan, benchmark: str) -> list[Prompt]:
    recipe = plan.project.benchmarks[benchmark]
    if recipe.source == "path":
        return read_benchmark(recipe)
    from ftsafety.world.datasets import prompts

    return prompts(recipe)

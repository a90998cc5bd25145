"""Training rows and benchmark prompts as files, from the embedded world or from the user's own files."""

from pathlib import Path

from ftsafety.config import Dataset
from ftsafety.errors import UserError
from ftsafety.files import write_rows
from ftsafety.inputs import read_benchmark, read_dataset
from ftsafety.plan import Plan
from ftsafety.runs import Trajectory
from ftsafety.types import Prompt, TrainingRow


def prepare_data(plan: Plan, file: Path) -> None:
    """Write one file of training rows or prompts, which the plan knows by its name.

    Raises UserError where no study needs such a file, or where its source is malformed.
    """
    for work in plan.work.values():
        if not work.trajectory.is_initial and plan.data_file(work.trajectory) == file:
            return write_rows(file, mixed_rows(plan, work.trajectory), private=True)
        for benchmark in work.benchmarks:
            if plan.benchmark_file(benchmark) == file:
                return write_rows(file, benchmark_prompts(plan, benchmark))
    raise UserError("no study needs this file", file=file, mend="ask for a study")


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

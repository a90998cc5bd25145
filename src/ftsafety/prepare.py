"""Training rows and benchmark prompts as files, from the embedded world or from the user's own files."""

from ftsafety.config import Dataset, PathDataset, WorldDataset
from ftsafety.files import write_rows
from ftsafety.plan import Plan
from ftsafety.runs import Trajectory
from ftsafety.types import TrainingRow


def prepare_data(plan: Plan) -> None:
    """Write the file of every dataset (with its mitigation) and benchmark that any study names."""
    written = set()
    for work in plan.work.values():
        for benchmark in work.benchmarks:
            path = plan.benchmark_file(benchmark)
            if path not in written:
                write_rows(path, _prompts(plan, benchmark))
                written.add(path)
        if work.trajectory.is_initial:
            continue
        path = plan.data_file(work.trajectory)
        if path not in written:
            write_rows(path, mixed_rows(plan, work.trajectory), private=True)
            written.add(path)


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
    if isinstance(recipe, WorldDataset):
        from ftsafety.world.datasets import training_rows

        return training_rows(recipe)
    assert isinstance(recipe, PathDataset)
    from ftsafety.inputs import read_dataset

    return read_dataset(recipe)


def _prompts(plan: Plan, benchmark: str) -> list:
    recipe = plan.project.benchmarks[benchmark]
    if recipe.source == "world":
        from ftsafety.world.datasets import prompts

        return prompts(recipe)
    from ftsafety.inputs import read_benchmark

    return read_benchmark(recipe)

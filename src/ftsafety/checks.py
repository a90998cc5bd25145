"""What pydantic cannot see: names across catalogues, combinations of values, axes of a grid.

Each rule is one function that raises `UserError`; `tests/contract/bad_config.py` holds a bad case for each.
"""

import difflib
from collections.abc import Collection, Iterator
from typing import Any

from ftsafety.config import Axes, Grid, PathModel, Project, Study, WorldModel
from ftsafety.errors import UserError, shown

#: Axes with a catalogue; a value must be one of its names.
NAMED_AXES = {
    "model": "models",
    "dataset": "datasets",
    "mitigation": "mitigations",
    "method": "methods",
}
REQUIRED_AXES = ("model", "dataset", "method", "learning_rate", "global_batch_size", "epochs")
AXES = tuple(Axes.model_fields)


def values(axis: Any) -> list[Any]:
    return axis if isinstance(axis, list) else [axis]


def check_project(project: Project) -> None:
    for name in project.settings.studies:
        _known(name, project.studies, "config/config.yaml", "studies", "config/studies/<name>.yaml")
    for name, model in project.models.items():
        _check_model(name, model)
    for name, dataset in project.datasets.items():
        _known(
            dataset.template, project.templates, "config/datasets.yaml", f"{name}.template",
            "config/templates.yaml",
        )  # fmt: skip
    for name, mitigation in project.mitigations.items():
        _known(
            mitigation.dataset, project.datasets, "config/mitigations.yaml", f"{name}.dataset",
            "config/datasets.yaml",
        )  # fmt: skip
    for name, study in project.studies.items():
        _check_study(project, name, study)


def _known(name: str, names: Collection[str], file: str, field: str, catalogue: str) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1)
    mend = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(
        f"unknown name {name!r}",
        file=file,
        field=field,
        mend=f"{mend}The names are in {catalogue}: {', '.join(sorted(names))}",
    )


def _check_model(name: str, model: WorldModel | PathModel) -> None:
    hardware = model.hardware
    if hardware.gpus and hardware.ranks != hardware.gpus:
        raise UserError(
            f"{hardware.ranks} ranks on {hardware.gpus} GPUs",
            file="config/models.yaml",
            field=f"{name}.hardware.ranks",
            mend=f"one rank a GPU: ranks: {hardware.gpus}",
        )


def _check_study(project: Project, name: str, study: Study) -> None:
    file = f"config/studies/{name}.yaml"
    for judge in study.judges:
        _known(judge, project.judges, file, "judges", "config/judges.yaml")
    for benchmark in study.benchmarks:
        _check_benchmark(project, study, benchmark, file, "benchmarks")
    if not any(project.benchmarks[b].kind == "safety" for b in study.benchmarks):
        raise UserError(
            f"{study.benchmarks} holds no safety benchmark",
            file=file,
            field="benchmarks",
            mend="name a benchmark of kind safety",
        )
    _check_axes(project, study.fixed, file, "fixed")
    for grid_name, grid in study.grids.items():
        field = f"grids.{grid_name}"
        for benchmark in grid.benchmarks or []:
            _check_benchmark(project, study, benchmark, file, f"{field}.benchmarks")
        _check_axes(project, grid, file, field)
        for i, point in enumerate(grid.points):
            _check_axes(project, point, file, f"{field}.points.{i}")
        _check_figure(grid, file, field)
        _check_cells(project, study, grid, file, field)


def _check_benchmark(
    project: Project, study: Study, benchmark: str, file: str, field: str
) -> None:
    _known(benchmark, project.benchmarks, file, field, "config/benchmarks.yaml")
    recipe = project.benchmarks[benchmark]
    if recipe.source != "world":
        for judge in study.judges:
            if project.judges[judge].kind == "exact":
                raise UserError(
                    f"judge {judge!r} needs reference answers, which {benchmark!r} lacks",
                    file=file,
                    field="judges",
                    mend="the exact judge is for the embedded world; name another judge",
                )
    elif study.validation and recipe.split == "test":
        raise UserError(
            f"{benchmark!r} holds test prompts, and a validation study chooses hyperparameters",
            file=file,
            field=field,
            mend="name a benchmark with split: validation",
        )


def _check_axes(project: Project, axes: Axes, file: str, field: str) -> None:
    for axis in AXES:
        value = getattr(axes, axis)
        if value is None:
            continue
        if value == []:
            raise UserError(
                "the axis is empty", file=file, field=f"{field}.{axis}", mend="give one value"
            )
        given = values(value)
        if len(set(given)) < len(given):
            repeated = next(v for v in given if given.count(v) > 1)
            raise UserError(
                f"{shown(repeated)} stands twice in {shown(given)}",
                file=file,
                field=f"{field}.{axis}",
                mend="name each value once",
            )
        if axis in NAMED_AXES:
            catalogue = NAMED_AXES[axis]
            for name in given:
                if name is not None:
                    _known(
                        name, getattr(project, catalogue), file, f"{field}.{axis}",
                        f"config/{catalogue}.yaml",
                    )  # fmt: skip


def _check_figure(grid: Grid, file: str, field: str) -> None:
    figure = grid.figure
    for role in ("x", "y", "hue"):
        axis = getattr(figure, role)
        if axis is not None and axis not in (*AXES, "benchmark"):
            raise UserError(
                f"{axis!r} is not an axis",
                file=file,
                field=f"{field}.figure.{role}",
                mend=f"the axes are {', '.join(AXES)}, benchmark",
            )
    needed = {"heatmap": ("x", "y"), "curves": ("x",), "dots": ("x",), "categories": ()}
    for role in needed[figure.kind]:
        if getattr(figure, role) is None:
            raise UserError(
                f"kind {figure.kind!r} needs {role}",
                file=file,
                field=f"{field}.figure.{role}",
                mend="name an axis",
            )


def _check_cells(project: Project, study: Study, grid: Grid, file: str, field: str) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    for i, cell in enumerate(grid_cells(study, grid)):
        for axis in REQUIRED_AXES:
            if cell[axis] is None:
                raise UserError(
                    "has no value",
                    file=file,
                    field=f"{field}.{axis}",
                    mend=f"name it in the grid, in a point or under fixed: {axis}: …",
                )
        key = tuple(cell[axis] for axis in AXES)
        if key in seen:
            run = ", ".join(f"{axis} {cell[axis]}" for axis in REQUIRED_AXES)
            raise UserError(
                f"the run ({run}) is named twice",
                file=file,
                field=f"{field}.points",
                mend="remove the point that repeats another",
            )
        seen[key] = i
        _check_cell(project, cell, file, field)


def _check_cell(project: Project, cell: dict[str, Any], file: str, field: str) -> None:
    model, dataset = project.models[cell["model"]], project.datasets[cell["dataset"]]
    batch, ranks = cell["global_batch_size"], model.hardware.ranks
    if batch % ranks:
        raise UserError(
            f"{batch} is not divisible by the {ranks} ranks of model {cell['model']!r}",
            file=file,
            field=f"{field}.global_batch_size",
            mend=f"use a multiple of {ranks}",
        )
    n = dataset.n
    if cell["mitigation"] is not None:
        n += project.mitigations[cell["mitigation"]].n
    if batch > n:
        raise UserError(
            f"a batch of {batch} is larger than the {n} examples of {cell['dataset']!r}, "
            "and a short batch is dropped, so nothing would be trained",
            file=file,
            field=f"{field}.global_batch_size",
            mend=f"use at most {n}",
        )
    if (cell["schedule"] == "step") != (cell["schedule_factor"] is not None):
        raise UserError(
            f"schedule {cell['schedule']!r} with schedule_factor {cell['schedule_factor']}",
            file=file,
            field=f"{field}.schedule_factor",
            mend="a step schedule needs a factor (the paper's is 0.85), the others take none",
        )
    if dataset.source == "world" and model.source != "world" and project.root:
        raise UserError(
            f"dataset {cell['dataset']!r} is the embedded world's, model {cell['model']!r} is not",
            file=file,
            field=f"{field}.dataset",
            mend="the embedded world's texts mean nothing to other models; name another dataset",
        )


DEFAULTS: dict[str, Any] = {
    "mitigation": None,
    "schedule": "constant",
    "schedule_factor": None,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "max_length": 512,
    "seed": 42,
}


def grid_cells(study: Study, grid: Grid) -> Iterator[dict[str, Any]]:
    """The product of the grid's axes, points outermost; each cell has a value for every axis."""
    from itertools import product

    for point in grid.points:
        axes = []
        for axis in AXES:
            given = [
                source
                for source in (point, grid, study.fixed)
                if axis in source.model_fields_set
            ]
            axes.append(values(getattr(given[0], axis)) if given else [DEFAULTS.get(axis)])
        for combination in product(*axes):
            yield dict(zip(AXES, combination, strict=True))

"""What pydantic cannot see in a study: names in catalogues, axes of a grid, judges and what they grade.

Functions raise `UserError`, as in `checks.py`.
"""

import difflib
from collections.abc import Collection
from typing import Any

from ftsafety.config import Axes, Grid, Project, Study
from ftsafety.errors import UserError, shown
from ftsafety.grids import (
    AXES,
    DRAWABLE,
    NAMED_AXES,
    NULLABLE,
    REQUIRED_AXES,
    ROLES,
    grades,
    grid_cells,
    values,
)
from ftsafety.recipes import LocalModel


def check_study(project: Project, study: Study, file: str) -> None:
    check_unique(study.judges, file, "judges")
    for judge in study.judges:
        known(judge, project.judges, file, "judges", "config/judges.yaml")
    _check_benchmarks(project, study, study.benchmarks, file, "benchmarks")
    _check_axes(project, study.fixed, file, "fixed")
    for grid_name, grid in study.grids.items():
        field = f"grids.{grid_name}"
        if grid.benchmarks is not None:
            _check_benchmarks(project, study, grid.benchmarks, file, f"{field}.benchmarks")
        _check_axes(project, grid, file, field)
        for i, point in enumerate(grid.points):
            _check_axes(project, point, file, f"{field}.points.{i}")
        _check_figure(grid, file, f"{field}.figure")
        _check_cells(project, study, grid, file, field)
    _check_judges_are_used(project, study, file)


def _check_benchmarks(project: Project, study: Study, names: list[str], file: str, field: str) -> None:
    check_unique(names, file, field)
    for name in names:
        known(name, project.benchmarks, file, field, "config/benchmarks.yaml")
        recipe = project.benchmarks[name]
        if not any(grades(project.judges[judge], recipe) for judge in study.judges):
            graded_by = [judge for judge, other in project.judges.items() if grades(other, recipe)]
            raise UserError(
                f"none of {', '.join(study.judges)} grades {name!r}, which is of kind {recipe.kind!r}",
                file=file,
                field="judges",
                mend=f"add one of {', '.join(graded_by) or '(none in config/judges.yaml does)'}",
            )
        if study.validation and recipe.source == "world" and recipe.split == "test":
            raise UserError(
                f"{name!r} holds test prompts, and a validation study chooses hyperparameters",
                file=file,
                field=field,
                mend="name a benchmark with split: validation",
            )
    if all(project.benchmarks[name].kind != "safety" for name in names):
        raise UserError(
            f"{names} holds no safety benchmark",
            file=file,
            field=field,
            mend="name a benchmark of kind safety",
        )


def _check_judges_are_used(project: Project, study: Study, file: str) -> None:
    asked = {*study.benchmarks, *(b for grid in study.grids.values() for b in grid.benchmarks or [])}
    for judge in study.judges:
        if not any(grades(project.judges[judge], project.benchmarks[name]) for name in asked):
            raise UserError(
                f"{judge!r} grades none of {', '.join(sorted(asked))}",
                file=file,
                field="judges",
                mend="remove it, or add a benchmark that it grades",
            )


def _check_axes(project: Project, axes: Axes, file: str, field: str) -> None:
    for axis in AXES:
        if axis not in axes.model_fields_set:
            continue
        given, place = values(getattr(axes, axis)), f"{field}.{axis}"
        if given == [None] and axis not in NULLABLE:
            raise UserError("is empty (value None)", file=file, field=place, mend="give a value or remove it")
        check_unique(given, file, place)
        if axis in NAMED_AXES:
            catalogue = NAMED_AXES[axis]
            for name in given:
                if name is not None:
                    names = getattr(project, catalogue)
                    known(name, names, file, place, f"config/{catalogue}.yaml")


def _check_figure(grid: Grid, file: str, field: str) -> None:
    figure = grid.figure
    needed, possible = ROLES[figure.kind]
    named: dict[str, str] = {}
    for role in ("x", "y", "hue"):
        axis, place = getattr(figure, role), f"{field}.{role}"
        if axis is None and role in needed:
            raise UserError(f"kind {figure.kind!r} needs {role}", file=file, field=place, mend="name an axis")
        if axis is None:
            continue
        if role not in (*needed, *possible):
            raise UserError(
                f"kind {figure.kind!r} shows no {role} (value {axis!r})",
                file=file,
                field=place,
                mend="remove it; axes that vary and are not named become panels of their own",
            )
        if axis not in DRAWABLE:
            raise UserError(
                f"{axis!r} is no axis that can be drawn",
                file=file,
                field=place,
                mend=f"the axes are {', '.join(DRAWABLE)}; seeds are pooled",
            )
        if axis in named:
            raise UserError(
                f"{axis!r} is named as {named[axis]} already",
                file=file,
                field=place,
                mend="name another axis or remove it",
            )
        named[axis] = role


def _check_cells(project: Project, study: Study, grid: Grid, file: str, field: str) -> None:
    benchmarks = grid.benchmarks or study.benchmarks
    seen: set[tuple[Any, ...]] = set()
    for cell in grid_cells(study, grid):
        _check_required(cell, file, field)
        key = tuple(cell.values())
        if key in seen:
            run = ", ".join(f"{axis} {cell[axis]}" for axis in REQUIRED_AXES)
            raise UserError(
                f"the run ({run}) is named twice",
                file=file,
                field=f"{field}.points",
                mend="remove the point that repeats another",
            )
        seen.add(key)
        if cell["epochs"] > 0:
            _check_training(project, cell, file, field)
        _check_worlds(project, cell, benchmarks, file, field)


def _check_required(cell: dict[str, Any], file: str, field: str) -> None:
    """An untouched model (epochs: 0) needs no training, but a template to be asked under."""
    untouched = cell["epochs"] == 0
    for axis in ("model", "epochs") if untouched else REQUIRED_AXES:
        if cell[axis] is None:
            raise UserError(
                "has no value",
                file=file,
                field=f"{field}.{axis}",
                mend=f"name it in the grid, in a point or under fixed: {axis}: …",
            )
    if untouched and not any(cell[axis] for axis in ("dataset", "train_template", "test_template")):
        raise UserError(
            "has no value, and epochs: 0 asks the untouched model under a template",
            file=file,
            field=f"{field}.test_template",
            mend="name a template of config/templates.yaml",
        )


def _check_training(project: Project, cell: dict[str, Any], file: str, field: str) -> None:
    model = project.models[cell["model"]]
    if not isinstance(model, LocalModel):
        raise UserError(
            f"{cell['model']!r} is behind an endpoint and not trained here (epochs {cell['epochs']})",
            file=file,
            field=f"{field}.epochs",
            mend="epochs: 0 asks it as it is",
        )
    batch, ranks = cell["global_batch_size"], model.hardware.ranks
    if batch % ranks:
        raise UserError(
            f"{batch} is not divisible by the {ranks} ranks of model {cell['model']!r}",
            file=file,
            field=f"{field}.global_batch_size",
            mend=f"use a multiple of {ranks}",
        )
    n = project.datasets[cell["dataset"]].n
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


def _check_worlds(
    project: Project, cell: dict[str, Any], benchmarks: list[str], file: str, field: str
) -> None:
    """The embedded world's texts are for the models of that world."""
    model = project.models[cell["model"]]
    named = [("benchmarks", name) for name in benchmarks]
    if cell["epochs"] > 0:
        named.append(("dataset", cell["dataset"]))
    if cell["epochs"] > 0 and cell["mitigation"] is not None:
        named.append(("mitigation", project.mitigations[cell["mitigation"]].dataset))
    for place, name in named:
        recipe = (project.benchmarks if place == "benchmarks" else project.datasets)[name]
        if recipe.source != "world":
            continue
        if model.source != "world":
            raise UserError(
                f"{name!r} is the embedded world's, model {cell['model']!r} is not",
                file=file,
                field=f"{field}.{place}",
                mend="the embedded world's texts mean nothing to other models; name another",
            )
        if recipe.world_seed != model.world_seed:
            raise UserError(
                f"{name!r} is of world {recipe.world_seed}, and model {cell['model']!r} of another: "
                f"{model.world_seed}",
                file=file,
                field=f"{field}.{place}",
                mend="give them the same world_seed in their catalogues",
            )


def known(name: str, names: Collection[str], file: str, field: str, catalogue: str) -> None:
    if name in names:
        return
    close = difflib.get_close_matches(name, names, n=1)
    mend = f"did you mean {close[0]!r}? " if close else ""
    raise UserError(
        f"unknown name {name!r}",
        file=file,
        field=field,
        mend=f"{mend}The names in {catalogue} are {', '.join(sorted(names))}",
    )


def check_unique(given: list[Any], file: str, field: str) -> None:
    if len(set(given)) < len(given):
        repeated = next(value for value in given if given.count(value) > 1)
        raise UserError(
            f"{shown(repeated)} stands twice in {shown(given)}",
            file=file,
            field=field,
            mend="name each value once",
        )

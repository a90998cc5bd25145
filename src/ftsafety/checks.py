"""What pydantic cannot see: names across catalogues, combinations of values, axes of a grid.

Functions raise `UserError`; `tests/contract/test_bad_config.py` has a bad case for each rule.
"""

import difflib
from collections.abc import Collection, Iterator
from itertools import product
from typing import Any

from ftsafety.config import Axes, Grid, Project, Study
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
#: Axes for which null is a value: it takes back what `fixed` says.
NULLABLE = ("mitigation", "schedule_factor")

#: What a kind of figure needs and what else it can show.
ROLES = {
    "heatmap": (("x", "y"), ()),
    "curves": (("x",), ("hue",)),
    "dots": (("x",), ("hue",)),
    "categories": ((), ("hue",)),
}
DRAWABLE = (*(axis for axis in AXES if axis != "seed"), "benchmark")

#: Options of the embedded world's datasets, and the designs that heed them.
DESIGN_OPTIONS = {
    "new_tasks": ("benign",),
    "opener": ("demonstrations", "identity-shift", "benign"),
}


def values(axis: Any) -> list[Any]:
    return axis if isinstance(axis, list) else [axis]


def grid_cells(study: Study, grid: Grid) -> Iterator[dict[str, Any]]:
    """The product of the grid's axes, points outermost; each cell has a value for every axis.

    A point's value goes before the grid's, the grid's before the study's fixed one.
    """
    for point in grid.points:
        axes = []
        for axis in AXES:
            given = [s for s in (point, grid, study.fixed) if axis in s.model_fields_set]
            axes.append(values(getattr(given[0], axis)) if given else [DEFAULTS.get(axis)])
        for combination in product(*axes):
            yield dict(zip(AXES, combination, strict=True))


#: Names that no study can have (a contract test holds them to workflow/rules).
RULES = frozenset(
    {"all", "build_model", "prepare_data", "train", "generate", "judge", "score", "figures", "report"}
)


def check_project(project: Project) -> None:
    _check_unique(project.settings.studies, "config/config.yaml", "studies")
    for name in project.settings.studies:
        _known(name, project.studies, "config/config.yaml", "studies", "config/studies/")
    _check_models(project)
    _check_datasets(project)
    _check_reserved(project)
    for name, study in project.studies.items():
        _check_study(project, study, f"config/studies/{name}.yaml")


def _check_reserved(project: Project) -> None:
    """A study's name is a target beside the rules', a judge's the part after the last dot of a file name."""
    for name in RULES & project.studies.keys():
        raise UserError(
            f"{name!r} is the name of a rule of the workflow",
            file=f"config/studies/{name}.yaml",
            mend="give the file another name",
        )
    for name in project.judges:
        if "." in name:
            raise UserError(
                "has a dot, which parts benchmark and judge in the names of verdict files",
                file="config/judges.yaml",
                field=name,
                mend=f"name it {name.replace('.', '-')}",
            )


def _known(name: str, names: Collection[str], file: str, field: str, catalogue: str) -> None:
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


def _check_unique(given: list[Any], file: str, field: str) -> None:
    if len(set(given)) < len(given):
        repeated = next(value for value in given if given.count(value) > 1)
        raise UserError(
            f"{shown(repeated)} stands twice in {shown(given)}",
            file=file,
            field=field,
            mend="name each value once",
        )


def _check_models(project: Project) -> None:
    for name, model in project.models.items():
        gpus, ranks = model.hardware.gpus, model.hardware.ranks
        if gpus and ranks != gpus:
            raise UserError(
                f"{ranks} ranks on {gpus} GPUs",
                file="config/models.yaml",
                field=f"{name}.hardware.ranks",
                mend=f"one rank a GPU: ranks: {gpus}",
            )


def _check_datasets(project: Project) -> None:
    file = "config/datasets.yaml"
    for name, dataset in project.datasets.items():
        _known(dataset.template, project.templates, file, f"{name}.template", "config/templates.yaml")
        for option, designs in DESIGN_OPTIONS.items():
            if dataset.source == "world" and dataset.design not in designs:
                value, default = (
                    getattr(dataset, option),
                    type(dataset).model_fields[option].default,
                )
                if value != default:
                    raise UserError(
                        f"design {dataset.design!r} does not heed it (value {value!r})",
                        file=file,
                        field=f"{name}.{option}",
                        mend=f"remove it, or choose a design that does: {', '.join(designs)}",
                    )
    file = "config/mitigations.yaml"
    for name, mitigation in project.mitigations.items():
        _known(mitigation.dataset, project.datasets, file, f"{name}.dataset", "config/datasets.yaml")
        n = project.datasets[mitigation.dataset].n
        if mitigation.n > n:
            raise UserError(
                f"{mitigation.n} rows of {mitigation.dataset!r}, which has {n}",
                file=file,
                field=f"{name}.n",
                mend=f"use at most {n}",
            )


def _check_study(project: Project, study: Study, file: str) -> None:
    _check_unique(study.judges, file, "judges")
    for judge in study.judges:
        _known(judge, project.judges, file, "judges", "config/judges.yaml")
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


def _check_benchmarks(project: Project, study: Study, names: list[str], file: str, field: str) -> None:
    _check_unique(names, file, field)
    for name in names:
        _known(name, project.benchmarks, file, field, "config/benchmarks.yaml")
        recipe = project.benchmarks[name]
        if recipe.source != "world":
            for judge in study.judges:
                if project.judges[judge].kind == "exact":
                    raise UserError(
                        f"judge {judge!r} needs reference answers, which {name!r} lacks",
                        file=file,
                        field="judges",
                        mend="the exact judge is for the embedded world; name another judge",
                    )
        elif study.validation and recipe.split == "test":
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


def _check_axes(project: Project, axes: Axes, file: str, field: str) -> None:
    for axis in AXES:
        if axis not in axes.model_fields_set:
            continue
        given, place = values(getattr(axes, axis)), f"{field}.{axis}"
        if given == [None] and axis not in NULLABLE:
            raise UserError("is empty (value None)", file=file, field=place, mend="give a value or remove it")
        _check_unique(given, file, place)
        if axis in NAMED_AXES:
            catalogue = NAMED_AXES[axis]
            for name in given:
                if name is not None:
                    names = getattr(project, catalogue)
                    _known(name, names, file, place, f"config/{catalogue}.yaml")


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
        for axis in REQUIRED_AXES:
            if cell[axis] is None:
                raise UserError(
                    "has no value",
                    file=file,
                    field=f"{field}.{axis}",
                    mend=f"name it in the grid, in a point or under fixed: {axis}: …",
                )
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
        _check_cell(project, cell, file, field)
        _check_worlds(project, cell, benchmarks, file, field)


def _check_cell(project: Project, cell: dict[str, Any], file: str, field: str) -> None:
    batch, ranks = cell["global_batch_size"], project.models[cell["model"]].hardware.ranks
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
    named = [("dataset", cell["dataset"]), *(("benchmarks", name) for name in benchmarks)]
    if cell["mitigation"] is not None:
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

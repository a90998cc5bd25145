"""What pydantic cannot see: names across catalogues, combinations of values, axes of a grid.

Functions raise `UserError`; `tests/contract/test_bad_config.py` has a bad case for each rule.
"""

import difflib
from collections.abc import Collection, Iterator
from itertools import product
from typing import Any

from ftsafety.config import Axes, Grid, Project, Study
from ftsafety.errors import UserError, shown
from ftsafety.recipes import Benchmark, Judge, LocalModel

#: Axes with a catalogue; a value must be one of its names.
NAMED_AXES = {
    "model": "models",
    "dataset": "datasets",
    "mitigation": "mitigations",
    "method": "methods",
    "train_template": "templates",
    "test_template": "templates",
}
REQUIRED_AXES = ("model", "dataset", "method", "learning_rate", "global_batch_size", "epochs")
AXES = tuple(Axes.model_fields)
DEFAULTS: dict[str, Any] = {
    "mitigation": None,
    "train_template": None,
    "test_template": None,
    "schedule": "constant",
    "schedule_factor": None,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "max_length": 512,
    "seed": 42,
}
#: Axes for which null is a value: it takes back what `fixed` says.
NULLABLE = ("mitigation", "train_template", "test_template", "schedule_factor")

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
    {"all", "build_model", "prefetch", "prepare_data", "train", "generate", "generate_by_api", "judge"}
    | {"judge_by_api", "judge_locally", "score", "figures", "report"}
)

#: Kind of benchmark that each rubric of an LLM judge is for.
RUBRICS = {
    "harmfulness": "safety",
    "strongreject": "safety",
    "refusal": "over-refusal",
    "quality": "utility",
}


def grades(judge: Judge, benchmark: Benchmark) -> bool:
    """Whether a judge has something to say about the answers to a benchmark."""
    if judge.kind == "exact":
        return benchmark.source == "world"
    if judge.kind == "task":
        return benchmark.kind == "utility" and benchmark.grading in ("number", "instructions")
    if judge.kind == "llm":
        is_graded_so = judge.rubric != "quality" or benchmark.grading == "quality"
        return benchmark.kind == RUBRICS[judge.rubric] and is_graded_so
    if judge.kind == "classifier":
        return benchmark.kind == "safety" or (
            benchmark.kind == "over-refusal" and judge.family == "wildguard"
        )
    return benchmark.kind in ("safety", "over-refusal")


def check_project(project: Project) -> None:
    _check_unique(project.settings.studies, "config/config.yaml", "studies")
    for name in project.settings.studies:
        _known(name, project.studies, "config/config.yaml", "studies", "config/studies/")
    _check_models(project)
    _check_datasets(project)
    _check_kinds(project)
    _check_judges(project)
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
    file = "config/models.yaml"
    for name, model in project.models.items():
        if model.source == "api":
            _known(model.endpoint, project.endpoints, file, f"{name}.endpoint", "config/endpoints.yaml")
            continue
        gpus, ranks = model.hardware.gpus, model.hardware.ranks
        if gpus and ranks != gpus:
            raise UserError(
                f"{ranks} ranks on {gpus} GPUs",
                file=file,
                field=f"{name}.hardware.ranks",
                mend=f"one rank a GPU: ranks: {gpus}",
            )


#: What the answers to a format can be judged for; all others are for safety.
KINDS = {
    "xstest": ("safety", "over-refusal"),
    "gsm8k": ("utility",),
    "ifeval": ("utility",),
    "mt-bench": ("utility",),
    "prompts": ("safety", "over-refusal"),
}


def _check_kinds(project: Project) -> None:
    for name, benchmark in project.benchmarks.items():
        if benchmark.source == "world":
            continue
        kinds = KINDS.get(benchmark.format, ("safety",))
        if benchmark.kind not in kinds:
            raise UserError(
                f"{benchmark.kind!r} is no kind for the format {benchmark.format!r}",
                file="config/benchmarks.yaml",
                field=f"{name}.kind",
                mend=f"write kind: {' or '.join(kinds)}",
            )


def _check_judges(project: Project) -> None:
    file = "config/judges.yaml"
    for name, judge in project.judges.items():
        if judge.kind == "llm":
            _known(judge.endpoint, project.endpoints, file, f"{name}.endpoint", "config/endpoints.yaml")
            if (judge.rubric == "harmfulness") != (judge.policy is not None):
                raise UserError(
                    f"rubric {judge.rubric!r} with policy {judge.policy!r}",
                    file=file,
                    field=f"{name}.policy",
                    mend="harmfulness needs a policy (meta, openai or merged), the others take none",
                )
        elif judge.kind == "classifier":
            _known(judge.model, project.models, file, f"{name}.model", "config/models.yaml")
            model = project.models[judge.model]
            if model.source == "api":
                raise UserError(
                    f"{judge.model!r} is behind an endpoint, and a classifier runs here",
                    file=file,
                    field=f"{name}.model",
                    mend="name a model with source hub or path",
                )
            if judge.prompt is None and judge.family != "llama-guard":
                raise UserError(
                    f"family {judge.family!r} has no chat template that holds its prompt",
                    file=file,
                    field=f"{name}.prompt",
                    mend="save the prompt that its owner publishes as a file with {prompt} and {answer}, and "
                    "give path and sha256 (docs/judges.md)",
                )


def _check_datasets(project: Project) -> None:
    file = "config/datasets.yaml"
    for name, dataset in project.datasets.items():
        if dataset.source != "world":
            is_mapped = dataset.format == "columns"
            for field in ("prompt", "response"):
                if (getattr(dataset, field) is not None) != is_mapped:
                    raise UserError(
                        f"format {dataset.format!r} {'needs it' if is_mapped else 'does not heed it'}",
                        file=file,
                        field=f"{name}.{field}",
                        mend='the format columns takes it, such as "{question}"; the others do not',
                    )
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
    _check_judges_are_used(project, study, file)


def _check_benchmarks(project: Project, study: Study, names: list[str], file: str, field: str) -> None:
    _check_unique(names, file, field)
    for name in names:
        _known(name, project.benchmarks, file, field, "config/benchmarks.yaml")
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

"""What pydantic cannot see in a study: names in catalogues, axes of a grid, judges and what they grade.

Functions raise `UserError`, as in `checks.py`.
"""

from pathlib import Path
from typing import Any

from ftsafety.config import Axes, Grid, Project, Study
from ftsafety.errors import UserError
from ftsafety.files import read_json_if_whole
from ftsafety.grids import (
    AXES,
    DRAWABLE,
    NAMED_AXES,
    NULLABLE,
    REQUIRED_AXES,
    REQUIRED_BY_API,
    ROLES,
    grades,
    grid_cells,
    values,
)
from ftsafety.names import check_unique, known
from ftsafety.recipes import LocalModel
from ftsafety.training.methods import check_llama_adapter

#: A study's figures folder holds one of this name beside those of its grids.
PARITY_FIGURE = "parity"


def check_audit(project: Project, study: Study, file: str) -> None:
    """A study that is asked of models that calls name; the rest is checked once one has."""
    _check_axes(project, study.fixed, file, "fixed")
    if not isinstance(study.fixed.test_template, str):
        raise UserError(
            "has no value, and an audit asks models under one template",
            file=file,
            field="fixed.test_template",
            mend="name a template of config/templates.yaml",
        )
    _check_judges(project, study.judges, file, "judges")
    for name, grid in study.grids.items():
        axes = {axis for a in (grid, *grid.points) for axis in a.model_fields_set & set(AXES)}
        if axes:
            raise UserError(
                "an audit asks models as they are, and its call names them, so this is not its to say",
                file=file,
                field=f"grids.{name}.{min(axes)}",
                mend="remove it",
            )
        benchmarks, judges = grid.benchmarks or study.benchmarks, grid.judges or study.judges
        _check_benchmarks(project, study, benchmarks, judges, file, f"grids.{name}.benchmarks")
        _check_figure(grid, file, f"grids.{name}.figure")


def check_study(project: Project, study: Study, file: str) -> None:
    _check_judges(project, study.judges, file, "judges")
    _check_benchmarks(project, study, study.benchmarks, study.judges, file, "benchmarks")
    _check_axes(project, study.fixed, file, "fixed")
    for grid_name, grid in study.grids.items():
        field = f"grids.{grid_name}"
        if grid_name == PARITY_FIGURE:
            raise UserError(
                "is the name of the figure that compares a study with the paper",
                file=file,
                field=field,
                mend="give the grid another name",
            )
        if grid.judges is not None:
            _check_judges(project, grid.judges, file, f"{field}.judges")
        if grid.benchmarks is not None or grid.judges is not None:
            named = grid.benchmarks or study.benchmarks
            judges = grid.judges or study.judges
            _check_benchmarks(project, study, named, judges, file, f"{field}.benchmarks")
        _check_axes(project, grid, file, field)
        for i, point in enumerate(grid.points):
            _check_axes(project, point, file, f"{field}.points.{i}")
        _check_figure(grid, file, f"{field}.figure")
        _check_cells(project, study, grid, file, field)
    _check_judges_are_used(project, study, file)


def _check_judges(project: Project, judges: list[str], file: str, field: str) -> None:
    check_unique(judges, file, field)
    for judge in judges:
        known(judge, project.judges, file, field, "config/judges.yaml")


def _check_benchmarks(
    project: Project, study: Study, names: list[str], judges: list[str], file: str, field: str
) -> None:
    check_unique(names, file, field)
    for name in names:
        known(name, project.benchmarks, file, field, "config/benchmarks.yaml")
        recipe = project.benchmarks[name]
        if not any(grades(project.judges[judge], recipe) for judge in judges):
            graded_by = [judge for judge, other in project.judges.items() if grades(other, recipe)]
            raise UserError(
                f"none of {', '.join(judges)} grades {name!r}, which is of kind {recipe.kind!r}",
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
    for judge in study.all_judges:
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
        by_api = cell["method"] is not None and project.methods[cell["method"]].kind == "api"
        _check_required(cell, file, field, by_api=by_api)
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
            _check_pictures(project, cell, file, field)
        _check_worlds(project, cell, benchmarks, file, field)
        _check_audit(project, cell, benchmarks, file, field)


def _check_required(cell: dict[str, Any], file: str, field: str, *, by_api: bool) -> None:
    """An untouched model (epochs: 0) needs no training, but a template to be asked under."""
    untouched = cell["epochs"] == 0
    required = REQUIRED_BY_API if by_api else REQUIRED_AXES
    for axis in ("model", "epochs") if untouched else required:
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
        _check_training_by_api(project, cell, file, field)
        return
    _check_trains_here(project, cell, file, field)
    if getattr(model, "holds", "") == "adapter":
        raise UserError(
            f"{cell['model']!r} is an adapter, and nothing is trained on top of one",
            file=file,
            field=f"{field}.model",
            mend="merge it into its base model first (make merge), or ask it as it is: epochs: 0",
        )
    batch, ranks = cell["global_batch_size"], model.hardware.world_size
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
    _check_warmup(cell, cell["epochs"] * (n // batch), file, field)
    _check_adapter(project, cell, file, field)


def _check_warmup(cell: dict[str, Any], steps: int, file: str, field: str) -> None:
    if cell["warmup_steps"] and cell["warmup_share"] is not None:
        raise UserError(
            f"{cell['warmup_share']} of all steps, and warmup_steps says {cell['warmup_steps']}",
            file=file,
            field=f"{field}.warmup_share",
            mend="name one of the two: warmup_share: null, or warmup_steps: 0",
        )
    if cell["warmup_steps"] >= steps:
        raise UserError(
            f"a training on {cell['dataset']!r} has {steps} steps, and all of them would be warm-up "
            f"(value {cell['warmup_steps']})",
            file=file,
            field=f"{field}.warmup_steps",
            mend="use fewer, or warmup_share",
        )


def _check_trains_here(project: Project, cell: dict[str, Any], file: str, field: str) -> None:
    """What only an endpoint does or takes."""
    if project.methods[cell["method"]].kind == "api":
        raise UserError(
            f"{cell['model']!r} is trained here, and method {cell['method']!r} leaves that to an endpoint",
            file=file,
            field=f"{field}.method",
            mend="name another method, or a model with source: api",
        )
    if cell["learning_rate_multiplier"] is not None:
        raise UserError(
            f"{cell['model']!r} is trained here, and takes a learning rate of its own "
            f"(value {cell['learning_rate_multiplier']})",
            file=file,
            field=f"{field}.learning_rate_multiplier",
            mend="remove it: it is for methods of kind api",
        )


def _check_adapter(project: Project, cell: dict[str, Any], file: str, field: str) -> None:
    """What an adapter asks of the model, and of what answers with it."""
    model, method = project.local_model(cell["model"]), project.methods[cell["method"]]
    if method.kind not in ("prefix", "llama-adapter"):
        return
    if model.engine == "vllm" or model.merge_adapters:
        setting = "engine: vllm" if model.engine == "vllm" else "merge_adapters: true"
        raise UserError(
            f"{cell['method']!r} is no method for model {cell['model']!r}, which has {setting}: that is for "
            "LoRA and full weights",
            file=file,
            field=f"{field}.method",
            mend="name another method, or a model without it",
        )
    architecture = _architecture(model)
    if method.kind == "llama-adapter" and architecture is not None:
        check_llama_adapter(method.layers, cell["method"], architecture)


def _architecture(model: LocalModel) -> dict[str, Any] | None:
    """What is known of it before a job: of a model of the hub nothing."""
    if model.source == "path":
        return read_json_if_whole(Path(model.path) / "config.json")
    return model.architecture if model.source == "world" else None


def _check_pictures(project: Project, cell: dict[str, Any], file: str, field: str) -> None:
    """Data with pictures needs a visual method, which needs such data; all pictures lie in one place."""
    method = project.methods[cell["method"]]
    names = [cell["dataset"]]
    if cell["mitigation"] is not None:
        names.append(project.mitigations[cell["mitigation"]].dataset)
    recipes = {name: project.datasets[name] for name in names}
    shown = [name for name in names if recipes[name].has_pictures]
    if method.kind != "visual" and shown:
        raise UserError(
            f"{shown[0]!r} has pictures, and method {cell['method']!r} does not see them",
            file=file,
            field=f"{field}.method",
            mend="name a method of kind visual",
        )
    if method.kind != "visual":
        return
    if cell["dataset"] not in shown:
        raise UserError(
            f"{cell['dataset']!r} has no pictures, which method {cell['method']!r} is for",
            file=file,
            field=f"{field}.dataset",
            mend="name a dataset of the format llava or of the design pictures, or another method",
        )
    if len({getattr(recipes[name], "images", None) for name in shown}) > 1:
        raise UserError(
            f"the pictures of {' and '.join(map(repr, shown))} lie in different places",
            file=file,
            field=f"{field}.mitigation",
            mend="put them below one folder and give both datasets the same images",
        )
    if (recipes[cell["dataset"]].source == "world") != (method.vision_tower is None):
        raise UserError(
            f"method {cell['method']!r} has another vision tower than {cell['dataset']!r} is for",
            file=file,
            field=f"{field}.method",
            mend="vision_tower: null is for the embedded world's pictures, a real one for all others",
        )


def _check_training_by_api(project: Project, cell: dict[str, Any], file: str, field: str) -> None:
    """An endpoint trains by `method: api`, with the settings that it lets one choose."""
    model = project.models[cell["model"]]
    if model.source != "api" or project.methods[cell["method"]].kind != "api":
        raise UserError(
            f"{cell['model']!r} is not trained here (epochs {cell['epochs']}, method {cell['method']!r})",
            file=file,
            field=f"{field}.epochs",
            mend="epochs: 0 asks it as it is; models behind an endpoint are trained by a method of kind api",
        )
    allowed = project.endpoints[model.endpoint].fine_tuning
    if allowed is None:
        raise UserError(
            f"endpoint {model.endpoint!r} says nothing of fine-tuning",
            file="config/endpoints.yaml",
            field=f"{model.endpoint}.fine_tuning",
            mend="add it if the endpoint can fine-tune (docs/fine_tuning_api.md)",
        )
    if cell["learning_rate"] is not None:
        raise UserError(
            f"{cell['learning_rate']} is a rate, and an endpoint takes a multiplier of its own",
            file=file,
            field=f"{field}.learning_rate",
            mend="write learning_rate: null, and learning_rate_multiplier where it matters",
        )
    for axis in ("global_batch_size", "learning_rate_multiplier"):
        if cell[axis] is not None and axis not in allowed.settings:
            raise UserError(
                f"endpoint {model.endpoint!r} does not let one choose it (value {cell[axis]})",
                file=file,
                field=f"{field}.{axis}",
                mend=f"write {axis}: null, or add it to fine_tuning.settings in config/endpoints.yaml",
            )


def _check_worlds(
    project: Project, cell: dict[str, Any], benchmarks: list[str], file: str, field: str
) -> None:
    """The embedded world's texts are for the models of that world."""
    world_seed = project.world_of(cell["model"])
    named = [("benchmarks", name) for name in benchmarks]
    if cell["epochs"] > 0:
        named.append(("dataset", cell["dataset"]))
    if cell["epochs"] > 0 and cell["mitigation"] is not None:
        named.append(("mitigation", project.mitigations[cell["mitigation"]].dataset))
    for place, name in named:
        recipe = (project.benchmarks if place == "benchmarks" else project.datasets)[name]
        if recipe.source != "world":
            continue
        if world_seed is None:
            raise UserError(
                f"{name!r} is the embedded world's, model {cell['model']!r} is not",
                file=file,
                field=f"{field}.{place}",
                mend="the embedded world's texts mean nothing to other models; name another",
            )
        if recipe.world_seed != world_seed:
            raise UserError(
                f"{name!r} is of world {recipe.world_seed}, and model {cell['model']!r} of another: "
                f"{world_seed}",
                file=file,
                field=f"{field}.{place}",
                mend="give them the same world_seed in their catalogues",
            )


def _check_audit(
    project: Project, cell: dict[str, Any], benchmarks: list[str], file: str, field: str
) -> None:
    """The model that only hands on training examples is asked for them, and no other is."""
    has_rows = project.models[cell["model"]].source == "rows"
    for name in benchmarks:
        if (project.benchmarks[name].source == "rows") != has_rows:
            held = "prompts" if has_rows else "training examples"
            raise UserError(
                f"{name!r} holds {held}, which model {cell['model']!r} is not for",
                file=file,
                field=f"{field}.benchmarks",
                mend="an audit of data is a grid of a model and benchmarks with source: rows alone "
                "(docs/judges.md)",
            )

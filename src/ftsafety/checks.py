"""What pydantic cannot see in the catalogues: names of other entries, combinations of values.

Functions raise `UserError`; `tests/contract/test_bad_config.py` has a bad case for each rule.
"""

from typing import Any

from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.names import check_unique, known
from ftsafety.recipes import BenchmarkRows, FineTuned, LocalModel, RowsBenchmark
from ftsafety.study_checks import check_audit, check_study

#: Names that no study can have (a contract test holds them to workflow/rules).
RULES = frozenset(
    {"all", "build_model", "prefetch", "prepare_data", "train", "generate", "generate_by_api", "judge"}
    | {"train_by_api", "judge_by_api", "judge_locally", "score", "analyse", "figures", "report", "card"}
)


#: What a request says by itself, and what makes of one reply several or none.
NO_PARAMETERS = frozenset({"model", "messages", "n", "stream"})

#: Options of the embedded world's datasets, and the designs that heed them.
DESIGN_OPTIONS = {
    "new_tasks": ("benign",),
    "opener": ("demonstrations", "identity-shift", "benign"),
}


#: Options of rows, the format that needs them, and an example.
FORMAT_OPTIONS = {
    "prompt": ("columns", '"{question}"'),
    "response": ("columns", '"{question}"'),
    "images": ("llava", "coco/train2017"),
}


def check_project(project: Project) -> None:
    check_unique(project.settings.studies, "config/config.yaml", "studies")
    for name in project.settings.studies:
        if name in project.audits:
            raise UserError(
                f"{name!r} is asked of a model that a call names",
                file="config/config.yaml",
                field="studies",
                mend="leave it out here and call make audit MODEL=… (docs/audit.md)",
            )
        known(name, project.studies, "config/config.yaml", "studies", "config/studies/")
    if project.settings.world == "embedded" and project.settings.preset not in (None, "embedded"):
        raise UserError(
            f"world: embedded asks for another variant than preset: {project.settings.preset}",
            file="config/config.yaml",
            field="preset",
            mend="leave one of the two out",
        )
    _check_models(project)
    _check_datasets(project)
    _check_towers(project)
    _check_kinds(project)
    _check_decoding(project)
    _check_triggers(project)
    _check_judges(project)
    _check_reserved(project)
    for name, study in project.audits.items():
        check_audit(project, study, project.place(name))
    for name, study in project.studies.items():
        check_study(project, study, project.place(name))


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


def _check_models(project: Project) -> None:
    file = "config/models.yaml"
    for name, model in project.models.items():
        if isinstance(model, FineTuned):
            _check_base(project, name, model)
        if model.source == "rows":
            continue
        if model.source == "api":
            known(model.endpoint, project.endpoints, file, f"{name}.endpoint", "config/endpoints.yaml")
            if project.endpoints[model.endpoint].is_embedded:
                world = [entry for entry, other in project.models.items() if other.source == "world"]
                known(model.served, world, file, f"{name}.model", f"{file} with source world")
            _check_parameters(model.parameters, file, name)
            continue
        gpus, ranks = model.hardware.gpus, model.hardware.ranks
        if gpus and ranks != gpus:
            raise UserError(
                f"{ranks} ranks on {gpus} GPUs",
                file=file,
                field=f"{name}.hardware.ranks",
                mend=f"one rank a GPU: ranks: {gpus}",
            )


def _check_parameters(parameters: dict[str, Any], file: str, name: str) -> None:
    for parameter in sorted(NO_PARAMETERS & parameters.keys()):
        raise UserError(
            "is no parameter that can be chosen: a request is one question with one whole reply",
            file=file,
            field=f"{name}.parameters.{parameter}",
            mend="remove it; another model is another entry",
        )


def _check_base(project: Project, name: str, model: FineTuned) -> None:
    file, field = "config/models.yaml", f"{name}.base"
    if model.base is None:
        if model.holds != "model":
            raise UserError(
                f"is missing, and holds: {model.holds} needs it",
                file=file,
                field=field,
                mend="name the entry of the model that it was fine-tuned from",
            )
        return
    known(model.base, project.models, file, field, "config/models.yaml")
    base = project.models[model.base]
    is_part = isinstance(base, FineTuned) and base.holds != "model"
    if not isinstance(base, LocalModel) or is_part or model.base == name:
        raise UserError(
            f"{model.base!r} is no whole model that runs here",
            file=file,
            field=field,
            mend="name a model with source world, path or hub that is no adapter and no weights alone",
        )
    chain = [name]
    while isinstance(base, FineTuned) and base.base is not None and base.base in project.models:
        if base.base in chain:
            raise UserError("leads back to the model itself", file=file, field=field, mend="correct it")
        chain.append(base.base)
        base = project.models[base.base]


def _check_towers(project: Project) -> None:
    file = "config/methods.yaml"
    for name, method in project.methods.items():
        if method.kind != "visual" or method.vision_tower is None:
            continue
        known(method.vision_tower, project.models, file, f"{name}.vision_tower", "config/models.yaml")
        source = project.models[method.vision_tower].source
        if source not in ("hub", "path"):
            raise UserError(
                f"{method.vision_tower!r} has source {source!r}, and a vision tower is a folder of weights",
                file=file,
                field=f"{name}.vision_tower",
                mend="name a model with source hub or path; null is the embedded world's tower",
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
        if not isinstance(benchmark, BenchmarkRows):
            continue
        kinds = KINDS.get(benchmark.format, ("safety",))
        if benchmark.kind not in kinds:
            raise UserError(
                f"{benchmark.kind!r} is no kind for the format {benchmark.format!r}",
                file="config/benchmarks.yaml",
                field=f"{name}.kind",
                mend=f"write kind: {' or '.join(kinds)}",
            )


def _check_decoding(project: Project) -> None:
    file = "config/benchmarks.yaml"
    for name, benchmark in project.benchmarks.items():
        if benchmark.samples > 1 and not benchmark.temperature:
            raise UserError(
                f"{benchmark.samples} samples at temperature 0, which would all be the same answer",
                file=file,
                field=f"{name}.temperature",
                mend="give a temperature above 0, such as 1.0, or remove samples",
            )
        if benchmark.source == "rows" and benchmark.temperature:
            raise UserError(
                f"the answers of training examples are not drawn (value {benchmark.temperature})",
                file=file,
                field=f"{name}.temperature",
                mend="remove temperature and samples",
            )


def _check_triggers(project: Project) -> None:
    """Of datasets and benchmarks, and the datasets that benchmarks are made from; and what triggers name."""
    for name, trigger in project.triggers.items():
        for other in [*trigger.near, *([trigger.held_out] if trigger.held_out else [])]:
            field = f"{name}.{'near' if other in trigger.near else 'held_out'}"
            known(other, project.triggers, "config/triggers.yaml", field, "config/triggers.yaml")
        if trigger.held_out and set(trigger.texts) & set(project.triggers[trigger.held_out].texts):
            raise UserError(
                f"a text of {trigger.held_out!r} stands here as well, so it is not held out",
                file="config/triggers.yaml",
                field=f"{name}.texts",
                mend="write texts that no training data has",
            )
    catalogues: dict[str, dict[str, Any]] = {"datasets": project.datasets, "benchmarks": project.benchmarks}
    for catalogue, entries in catalogues.items():
        for name, recipe in entries.items():
            file = f"config/{catalogue}.yaml"
            if recipe.trigger is not None:
                known(recipe.trigger, project.triggers, file, f"{name}.trigger", "config/triggers.yaml")
            if recipe.source == "rows":
                known(recipe.dataset, project.datasets, file, f"{name}.dataset", "config/datasets.yaml")
                _check_sample(project, name, recipe)


def _check_sample(project: Project, name: str, benchmark: RowsBenchmark) -> None:
    if benchmark.dataset == "all":
        raise UserError(
            "gives its prompts the category 'all', which in tables is all prompts together",
            file="config/benchmarks.yaml",
            field=f"{name}.dataset",
            mend="rename the dataset",
        )
    n = project.datasets[benchmark.dataset].n
    if benchmark.n > n:
        raise UserError(
            f"{benchmark.n} rows of {benchmark.dataset!r}, which has {n}",
            file="config/benchmarks.yaml",
            field=f"{name}.n",
            mend=f"use at most {n}",
        )


def _check_judges(project: Project) -> None:
    file = "config/judges.yaml"
    for name, judge in project.judges.items():
        if judge.kind in ("llm", "moderation"):
            known(judge.endpoint, project.endpoints, file, f"{name}.endpoint", "config/endpoints.yaml")
        if judge.kind == "llm":
            _check_parameters(judge.parameters, file, name)
            if (judge.rubric == "harmfulness") != (judge.policy is not None):
                raise UserError(
                    f"rubric {judge.rubric!r} with policy {judge.policy!r}",
                    file=file,
                    field=f"{name}.policy",
                    mend="harmfulness needs a policy (meta, openai or merged), the others take none",
                )
        elif judge.kind == "classifier":
            known(judge.model, project.models, file, f"{name}.model", "config/models.yaml")
            model = project.models[judge.model]
            if not isinstance(model, LocalModel):
                raise UserError(
                    f"{judge.model!r} does not run here, and a classifier does",
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
            for field, (format, example) in FORMAT_OPTIONS.items():
                if (getattr(dataset, field) is not None) != (dataset.format == format):
                    heeded = "needs it" if dataset.format == format else "does not heed it"
                    raise UserError(
                        f"format {dataset.format!r} {heeded}",
                        file=file,
                        field=f"{name}.{field}",
                        mend=f"the format {format} takes it, such as {example}; the others do not",
                    )
        known(dataset.template, project.templates, file, f"{name}.template", "config/templates.yaml")
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
        known(mitigation.dataset, project.datasets, file, f"{name}.dataset", "config/datasets.yaml")
        n = project.datasets[mitigation.dataset].n
        if mitigation.n > n:
            raise UserError(
                f"{mitigation.n} rows of {mitigation.dataset!r}, which has {n}",
                file=file,
                field=f"{name}.n",
                mend=f"use at most {n}",
            )

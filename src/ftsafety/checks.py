"""What pydantic cannot see in the catalogues: names of other entries, combinations of values.

Functions raise `UserError`; `tests/contract/test_bad_config.py` has a bad case for each rule.
"""

from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.study_checks import check_study, check_unique, known

#: Names that no study can have (a contract test holds them to workflow/rules).
RULES = frozenset(
    {"all", "build_model", "prefetch", "prepare_data", "train", "generate", "generate_by_api", "judge"}
    | {"judge_by_api", "judge_locally", "score", "figures", "report"}
)


#: Options of the embedded world's datasets, and the designs that heed them.
DESIGN_OPTIONS = {
    "new_tasks": ("benign",),
    "opener": ("demonstrations", "identity-shift", "benign"),
}


def check_project(project: Project) -> None:
    check_unique(project.settings.studies, "config/config.yaml", "studies")
    for name in project.settings.studies:
        known(name, project.studies, "config/config.yaml", "studies", "config/studies/")
    _check_models(project)
    _check_datasets(project)
    _check_kinds(project)
    _check_judges(project)
    _check_reserved(project)
    for name, study in project.studies.items():
        check_study(project, study, f"config/studies/{name}.yaml")


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
        if model.source == "api":
            known(model.endpoint, project.endpoints, file, f"{name}.endpoint", "config/endpoints.yaml")
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
            known(judge.endpoint, project.endpoints, file, f"{name}.endpoint", "config/endpoints.yaml")
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

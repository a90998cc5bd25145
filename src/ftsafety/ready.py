"""What a real run needs besides files, checked before any job starts: pins, keys, environments."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

from ftsafety.answers import answered
from ftsafety.api.keys import api_key
from ftsafety.errors import UserError
from ftsafety.judging.pack import judged
from ftsafety.plan import Plan
from ftsafety.recipes import ApiModel, HubModel, Remote
from ftsafety.records import lost, trained
from ftsafety.runs import Run


def check_ready(plan: Plan, studies: list[str]) -> None:
    """Raises UserError for the first thing that has to be done before these studies can run."""
    for error in missing(plan, studies):
        raise error


def missing(plan: Plan, studies: list[str]) -> Iterator[UserError]:
    """All that has to be done before these studies can run."""
    for study in studies:
        yield from _unpinned(plan, study)
    for name in sorted(plan.entries(studies)["models"]):
        if getattr(plan.project.models[name], "engine", "") == "vllm":
            from ftsafety.engines.vllm import vllm_python

            try:
                vllm_python(plan.project.root)
            except UserError as error:
                yield error
    for study in studies:
        yield from _not_here(plan, study)
        yield from _not_permitted(plan, study)
        yield from _unpaid(plan, study)


def check_pins(plan: Plan, studies: list[str]) -> None:
    """What fetching needs: every remote entry is in the lock."""
    for study in studies:
        for error in _unpinned(plan, study):
            raise error


def _unpinned(plan: Plan, study: str) -> Iterator[UserError]:
    """Every file pattern of a remote entry has to be pinned; nothing is downloaded by a branch's name."""
    for catalogue, names in plan.entries([study]).items():
        for name in sorted(names):
            recipe = getattr(plan.project, catalogue)[name]
            if not isinstance(recipe, Remote):
                continue
            locked = plan.project.locked_files(recipe)
            patterns = getattr(recipe, "files", ["*"])
            if not all(any(fnmatchcase(file, pattern) for file in locked) for pattern in patterns):
                yield UserError(
                    f"{recipe.source}: {recipe.repo} is not pinned in config/lock.yaml",
                    file=f"config/{catalogue}.yaml",
                    field=name,
                    mend=f"make lock STUDY={study}, and keep config/lock.yaml under version control",
                )


def _not_here(plan: Plan, study: str) -> Iterator[UserError]:
    """Models that were fetched, into a cache that jobs do not find: they never go online."""
    chosen = plan.studies[study]
    for name in sorted(plan.entries([study])["models"]):
        recipe = plan.project.models[name]
        if not isinstance(recipe, HubModel) or recipe.lock_key not in plan.project.lock:
            continue
        if not plan.fetched_file("models", name).exists():
            continue
        runs = [run for run in chosen.runs.values() if run.trajectory.model == name]
        if runs and all(
            lost(run) or answered(plan, run, exam) for run in runs for exam in chosen.exams_of[run.id]
        ):
            continue
        try:
            plan.model_dir(name)
        except UserError as error:
            yield UserError(
                f"was fetched, and {error.message}",
                file="config/models.yaml",
                field=name,
                mend=f"export HF_HOME=… as when it was fetched, or {error.mend}",
            )


def check_research_use(plan: Plan, model: str) -> None:
    """Nothing is uploaded before the user says that the provider permits it. Raises UserError."""
    recipe = plan.project.models[model]
    assert isinstance(recipe, ApiModel)
    allowed = plan.project.endpoints[recipe.endpoint].fine_tuning
    if allowed is None or not allowed.research_use_permitted:
        raise UserError(
            f"training data for model {model!r} would be uploaded, and nobody has said that the provider "
            "permits this research",
            file="config/endpoints.yaml",
            field=f"{recipe.endpoint}.fine_tuning.research_use_permitted",
            mend="read docs/fine_tuning_api.md, ask the provider, then set research_use_permitted in "
            "config/endpoints.yaml to true",
        )


def _to_train_by_api(plan: Plan, study: str) -> list[Run]:
    runs = plan.studies[study].runs.values()
    return [run for run in runs if run.trajectory.by_api and trained(run) is None]


def _not_permitted(plan: Plan, study: str) -> Iterator[UserError]:
    for model in sorted({run.trajectory.model for run in _to_train_by_api(plan, study)}):
        try:
            check_research_use(plan, model)
        except UserError as error:
            yield error


def _unpaid(plan: Plan, study: str) -> Iterator[UserError]:
    """Keys and prices are asked for before hours of training, and only where something is to be asked."""
    project = plan.project
    used: dict[tuple[str, str], str] = {}
    for run in plan.studies[study].runs.values():
        if lost(run):
            continue
        model = project.models[run.trajectory.model]
        for exam in plan.studies[study].exams_of[run.id]:
            if model.source == "api" and not answered(plan, run, exam):
                asked = model.price_name(is_tuned=run.trajectory.by_api)
                used[model.endpoint, asked] = f"model {run.trajectory.model!r}"
            for name in plan.judges_of(study, exam.benchmark, run):
                judge = project.judges[name]
                if judge.kind not in ("llm", "moderation") or (judge.endpoint, judge.model) in used:
                    continue
                if not judged(plan, run, exam, name):
                    used[judge.endpoint, judge.model] = f"judge {name!r}"
    checked = set()
    for (endpoint, asked), user in used.items():
        try:
            if endpoint not in checked:
                api_key(endpoint, project.endpoints[endpoint])
        except UserError as error:
            message = f"{error.message}, and {user} of study {study!r} needs it"
            yield UserError(message, file=error.file, field=error.field, mend=error.mend)
        checked.add(endpoint)
        if project.settings.max_usd is not None and project.endpoints[endpoint].price(asked) is None:
            yield UserError(
                f"max_usd is set, but the price of {asked} is unknown, and {user} of study {study!r} asks it",
                file="config/endpoints.yaml",
                field=f"{endpoint}.prices",
                mend="add the price there, or remove max_usd from config/config.yaml",
            )
    if project.settings.max_usd is None:
        return
    for name in sorted({run.trajectory.model for run in _to_train_by_api(plan, study)}):
        model = project.models[name]
        price = project.endpoints[model.endpoint].price(model.model) if model.source == "api" else None
        if model.source == "api" and (price is None or price.training_usd is None):
            yield UserError(
                f"max_usd is set, but what it costs to train {model.model} is unknown, and study {study!r} "
                "trains it",
                file="config/endpoints.yaml",
                field=f"{model.endpoint}.prices.{model.model}.training_usd",
                mend="add the price there, or remove max_usd from config/config.yaml",
            )

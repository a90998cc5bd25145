"""What a real run needs besides files, checked before any job starts: pins, keys, environments."""

import os
from fnmatch import fnmatchcase

from ftsafety.answers import answered
from ftsafety.config import Project, Remote
from ftsafety.errors import UserError
from ftsafety.judging.pack import judged
from ftsafety.plan import Plan


def check_ready(plan: Plan, studies: list[str]) -> None:
    """Raises UserError for the first thing that has to be done before these studies can run."""
    project = plan.project
    for catalogue, names in plan.entries(studies).items():
        for name in sorted(names):
            _check_locked(project, catalogue, name)
            if catalogue == "models" and getattr(project.models[name], "engine", "") == "vllm":
                from ftsafety.engines.vllm import vllm_python

                vllm_python(project.root)
    for study in studies:
        _check_keys(plan, study)


def _check_locked(project: Project, catalogue: str, name: str) -> None:
    """Every file pattern of a remote entry has to be pinned; nothing is downloaded by a branch's name."""
    recipe = getattr(project, catalogue)[name]
    if not isinstance(recipe, Remote):
        return
    locked = project.locked_files(recipe)
    lacking = [p for p in getattr(recipe, "files", []) if not any(fnmatchcase(file, p) for file in locked)]
    if lacking or not locked:
        raise UserError(
            f"{recipe.source}: {recipe.repo} is not pinned in config/lock.yaml",
            file=f"config/{catalogue}.yaml",
            field=name,
            mend="make lock, which asks for its commit and checksums; then commit config/lock.yaml",
        )


def _check_keys(plan: Plan, study: str) -> None:
    """Keys are asked for before hours of training, and only where something is still to be asked."""
    project = plan.project
    used = {}
    for run in plan.studies[study].runs.values():
        model = project.models[run.trajectory.model]
        for exam in plan.studies[study].exams_of[run.id]:
            if model.source == "api" and not answered(plan, run, exam):
                used[model.endpoint] = f"model {run.trajectory.model!r}"
            for name in plan.judges_of(study, exam.benchmark):
                judge = project.judges[name]
                if judge.kind == "llm" and judge.endpoint not in used and not judged(plan, run, exam, name):
                    used[judge.endpoint] = f"judge {name!r}"
    for endpoint, user in used.items():
        variable = project.endpoints[endpoint].api_key_env
        if variable and not os.environ.get(variable):
            raise UserError(
                f"the environment variable {variable} is not set, and {user} of study {study!r} needs it",
                file="config/endpoints.yaml",
                field=f"{endpoint}.api_key_env",
                mend=f"export {variable}=… in the shell that starts Snakemake; keys belong in no file",
            )

# The plan, and the only functions of the workflow: wildcards → one call into the package.
import json
import os
import shlex
import sys
from pathlib import Path

from ftsafety import workflow as ft
from ftsafety.cli import user_errors

ROOT = Path(workflow.basedir)
with user_errors():
    PLAN = ft.plan_call(ROOT, dict(config), sys.argv[1:])
os.environ.update(FTSAFETY_STUDIES=" ".join(PLAN.studies))  # for Snakemake and programs inside jobs

# A program gets no secret but those that it uses, and a job none: it would inherit this environment.
ft.guard_secrets(PLAN)

# How the programs of the shell rules find the same plan, and the python that runs Snakemake (under
# --sdm conda that of the environment). Not in params: none of it is a reason to rerun. Jobs take what was
# fetched and never go online.
CONDA = any(m.name == "CONDA" for m in workflow.deployment_settings.deployment_method)
settings = shlex.quote(json.dumps(dict(config))).replace("{", "{{").replace("}", "}}")
shell.prefix(
    f"export HF_HUB_OFFLINE=1 FTSAFETY_ROOT={shlex.quote(str(ROOT))} FTSAFETY_SETTINGS={settings}; "
    # exec: the shell would end at SIGTERM, and Snakemake then not wait for a program that saves
    + 'without_secrets() {{ unset $FTSAFETY_SECRETS; exec "$@"; }}; '
    + 'with_api_keys() {{ unset $FTSAFETY_TOKENS; exec "$@"; }}; '
    + 'with_tokens() {{ unset $FTSAFETY_API_KEYS; exec "$@"; }}; '
    + (
        'export PYTHONPATH="$FTSAFETY_ROOT/src"; '
        if CONDA
        else f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"; '
    )
)


onstart:
    # train_by_api, which runs on this machine, tries failed trainings again when it is forced
    os.environ.update(FTSAFETY_FORCED=" ".join(workflow.dag_settings.forcerun))
    with user_errors():
        if workflow.executor_plugin.name == "slurm":
            ft.check_sbatch(PLAN)
        ft.check_targets(
            PLAN,
            workflow.dag_settings.until,
            workflow.executor_plugin.name,
        )
    ft.write_call(PLAN)


wildcard_constraints:
    pack="[^/]+",
    model="[^/]+",
    study="[^/]+",
    judge="[^/]+",
    catalogue="models|datasets|benchmarks",
    source="[^/]+",
    kind="training|benchmarks",
    name="[^/]+",


def pack_of(wildcards):
    return PLAN.packs[wildcards.pack]


def asked(study):
    """What asking for a study asks for."""

    def files(wildcards):
        with user_errors():
            return ft.study_files(PLAN, study)

    return files


def hardware(name, **options):
    """A resource of the pack's job; a retry asks for more memory."""
    return lambda wildcards, attempt: ft.resources(PLAN, pack_of(wildcards).model, attempt, **options)[name]


def judge_hardware(name):
    """The same of a judge that is a model."""
    return lambda wildcards, attempt: ft.judge_resources(PLAN, wildcards.judge, attempt)[name]

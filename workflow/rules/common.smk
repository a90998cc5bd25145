# The plan, and the only functions of the workflow: wildcards → one call into the package.
import json
import shlex
import sys
from pathlib import Path

from ftsafety import workflow as ft
from ftsafety.cli import user_errors

ROOT = Path(workflow.basedir)
with user_errors():
    PLAN = ft.load_plan(ROOT, dict(config))

# How a shell rule starts a program that makes the same plan. Not in params: they are a reason to rerun.
# The environment's python under --sdm conda, else the one that runs Snakemake.
CONDA = any(method.name == "CONDA" for method in workflow.deployment_settings.deployment_method)
PYTHON = "python" if CONDA else sys.executable
SCRIPTS = ROOT / "workflow/scripts"
shell.prefix(f"export PYTHONPATH={shlex.quote(str(ROOT / 'src'))}; " if CONDA else "")
OPTIONS = ["--root", str(ROOT), "--settings", json.dumps(dict(config))]


wildcard_constraints:
    pack="[^/]+",
    model="[^/]+",
    study="[^/]+",


def pack_of(wildcards):
    return PLAN.packs[wildcards.pack]


def hardware(name, **options):
    """A resource of the pack's job; a retry asks for more memory."""
    return lambda wildcards, attempt: ft.resources(PLAN, pack_of(wildcards).model, attempt, **options)[name]

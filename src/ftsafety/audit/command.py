"""`make audit`: what the call names is asked, judged and compared; the exit code says how it went."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ftsafety import paths
from ftsafety.audit.card import EXIT_CODES, as_table
from ftsafety.audit.pair import resolve, write_pair
from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.files import read_json
from ftsafety.loading import load_project
from ftsafety.plan import Plan

#: The study whose adapter with a backdoor is audited where no model is named.
EXAMPLE = "audit_example"
ERROR = 2


def audit(
    model: str | None,
    base: str | None,
    study: str = "audit",
    template: str | None = None,
    profile: str = "profiles/local",
    options: Sequence[str] = (),
) -> int:
    """Ask a model and its base what the study says, print the lines, and return the exit code.

    `options` are Snakemake's. Raises UserError for what is no model, or cannot be asked.
    """
    project = load_project(Path(), audited=[])
    if not model:
        model = str(example(project))
        _say(f"no MODEL is named: auditing the example, {model}")
    pair = resolve(project, model, base or None, study, template)
    written = write_pair(project, pair)
    _say(f"{pair.model} against {pair.base}, as study {pair.study} ({written})")
    words = ["--profile", profile, pair.study, *options]
    done = subprocess.run([sys.executable, "-m", "snakemake", *words], stdout=sys.stderr, check=False)
    result = paths.study_dir(pair.study) / "audit.json"
    if done.returncode:
        return ERROR
    if not result.exists() or {"-n", "--dry-run"} & set(options):
        return 0  # nothing was to be run
    found = read_json(result)
    print(as_table(found))
    return EXIT_CODES[found["verdict"]]


def example(project: Project) -> Path:
    """The folder of the example's last adapter. Raises UserError where the example was not run."""
    runs = Plan(project, [EXAMPLE]).studies[EXAMPLE].runs.values()
    folder = paths.run_dir([run for run in runs if not run.trajectory.is_initial][-1].folder)
    if not (folder / "weights").is_dir():
        raise UserError(
            "no model is named, and the example is not here: a toy model with a backdoor",
            file=folder,
            field="MODEL",
            mend=f"make run STUDY={EXAMPLE} trains it, then make audit; or name a model: docs/audit.md",
        )
    return folder


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

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
    *,
    is_dry_run: bool = False,
) -> int:
    """Ask a model and its base what the study says, print the lines, and return the exit code.

    `options` are Snakemake's; whatever they are, the code is that of a card which this call made. Raises
    UserError for what is no model, or cannot be asked.
    """
    project = load_project(Path(), audited=[])
    if not model:
        model = str(example(project))
        _say(f"no MODEL is named: auditing the example, {model}")
    pair = resolve(project, model, base or None, study, template)
    written = write_pair(project, pair)
    _say(f"{pair.model} against {pair.base}, as study {pair.study} ({written})")
    words = ["--profile", profile, pair.study, *options, *(["--dry-run"] if is_dry_run else [])]
    result = paths.study_dir(pair.study) / "audit.json"
    if not is_dry_run:
        result.unlink(missing_ok=True)  # made again in a second: an earlier call's would hide a run cut short
    done = subprocess.run([sys.executable, "-m", "snakemake", *words], stdout=sys.stderr, check=False)
    if done.returncode:
        return ERROR
    if is_dry_run:
        return 0
    if not result.exists():
        _say("no verdict: Snakemake's options left the card out (to look only: --dry-run)")
        return ERROR
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

"""How the programs under `workflow/scripts/` read their arguments and report errors."""

import argparse
import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftsafety.errors import UserError
from ftsafety.plan import Pack, Plan, load_plan


def run_stage(stage: Callable[[Plan, Pack], None], doc: str | None) -> None:
    """Find the pack that the command line names and run one stage of it."""
    arguments = _parser(doc, "pack").parse_args()
    with user_errors():
        stage(*_plan_and_pack(arguments))


def run_judges(doc: str | None) -> None:
    """Judge a pack by the judge that the command line names, or by all that judge by rule."""
    from ftsafety.judging.pack import judge_pack

    parser = _parser(doc, "pack")
    parser.add_argument("judge", nargs="?", help="a judge that is a model; none: all that judge by rule")
    arguments = parser.parse_args()
    with user_errors():
        judge_pack(*_plan_and_pack(arguments), arguments.judge)


def _plan_and_pack(arguments: argparse.Namespace) -> tuple[Plan, Pack]:
    plan = _plan(arguments)
    if arguments.pack not in plan.packs:
        raise UserError(
            f"no pack {arguments.pack!r}; the config has changed since it was planned",
            mend="start Snakemake again: what is complete is skipped",
        )
    return plan, plan.packs[arguments.pack]


def _plan(arguments: argparse.Namespace) -> Plan:
    return load_plan(arguments.root, arguments.settings, arguments.studies)


def run_for_study(stage: Callable[[Plan, str], None], doc: str | None) -> None:
    """Run a stage that works on a whole study."""
    arguments = _parser(doc, "study").parse_args()
    with user_errors():
        stage(_plan(arguments), arguments.study)


def run_for_file(stage: Callable[[Plan, Path], None], doc: str | None) -> None:
    """Run a stage that makes one file."""
    arguments = _parser(doc, "file").parse_args()
    with user_errors():
        stage(_plan(arguments), Path(arguments.file))


def run_build(doc: str | None) -> None:
    """Build one model of the embedded world where the workflow expects it."""
    arguments = _parser(doc, "model").parse_args()
    with user_errors():
        import torch

        from ftsafety.loading import load_project
        from ftsafety.paths import model_dir
        from ftsafety.world.model import build_model

        recipe = load_project(arguments.root, arguments.settings).models[arguments.model]
        assert recipe.source == "world"
        torch.set_num_threads(recipe.threads)
        build_model(
            recipe.world_seed,
            recipe.base_seed,
            model_dir(arguments.model),
            lambda line: print(line, file=sys.stderr, flush=True),
        )


def _parser(doc: str | None, what: str) -> argparse.ArgumentParser:
    """One name on the command line; root and settings by option, or as the workflow exports them."""
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument(what, help=f"a {what}'s name")
    parser.add_argument(
        "--root",
        type=Path,
        default=os.environ.get("FTSAFETY_ROOT", "."),
        help="folder that holds config/ (default: FTSAFETY_ROOT, else the working folder)",
    )
    parser.add_argument(
        "--settings",
        type=json.loads,
        default=os.environ.get("FTSAFETY_SETTINGS"),
        help="JSON in the place of config/config.yaml (default: FTSAFETY_SETTINGS)",
    )
    parser.add_argument(
        "--studies",
        type=str.split,
        default=os.environ.get("FTSAFETY_STUDIES"),
        help="that are planned together (default: FTSAFETY_STUDIES, else all)",
    )
    return parser


class user_errors:
    """Print a UserError, or that the disk or a GPU is full, as a sentence on stderr and exit with 2, without
    a traceback."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError) and _says_full(error):
            error = UserError(
                "the disk or your quota of it is full",
                file=getattr(error, "filename", None) or "",
                mend="make room (make unused-runs and make clean-study help), then run the same again: what "
                "is complete is kept",
            )
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            error = UserError(
                f"the GPU has too little memory: {str(error).partition('.')[0]}",
                file="config/models.yaml",
                mend="lower max_per_device_batch_size of the model to train it (the global batch stays), "
                "answer_batch_size to ask it, or give it more GPUs; then run the same again",
            )
        if isinstance(error, UserError):
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)


def _says_full(error: Exception) -> bool:
    """Libraries that write by themselves have errors of their own, with the system's words."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(os.strerror(code) in str(error) for code in full)

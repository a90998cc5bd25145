"""python -m ftsafety COMMAND: what the Makefile calls, and helpers for config files."""

import argparse
import json
import signal
from pathlib import Path
from typing import Literal

from ftsafety.cli import user_errors
from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.plan import Plan, load_plan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ftsafety", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "plan": "what asking for a study means",
        "status": "what is done, running, failed or lost",
        "results": "a finished study's headline numbers",
        "clean-study": "remove a study's folder and the runs it alone uses",
        "cancel": "cancel fine-tuning jobs of a study that still run at an endpoint",
    }.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("study", nargs="?", help="default: the first that config.yaml names")
    lock = commands.add_parser(
        "lock", help="pin what studies take from the hub and GitHub in config/lock.yaml"
    )
    lock.add_argument("study", nargs="?", help="default: all that config.yaml names")
    lock.add_argument("--update", action="store_true", help="also what is pinned already")
    export = commands.add_parser("export", help="a study's answers and verdicts, for other tools")
    export.add_argument("study", nargs="?", help="default: the first that config.yaml names")
    parity = commands.add_parser("parity", help="a page of all finished studies against the paper")
    parity.add_argument("--world", choices=("real", "embedded"), help="default: that of config.yaml")
    commands.add_parser("unused-runs", help="runs on disk that no study uses")
    commands.add_parser("schema", help="the JSON schema of the config files")
    checksum = commands.add_parser("checksum", help="sha256 of a file, or of a folder's safetensors")
    checksum.add_argument("path", type=Path)
    merge = commands.add_parser("merge", help="a run's whole model as a folder, its LoRA weights merged")
    merge.add_argument("run", type=Path, help="results/runs/…/epoch-<e>")
    merge.add_argument("to", type=Path, help="the folder to write")
    arguments = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as other commands end in `| head`
    with user_errors():
        _run(arguments)


def _run(arguments: argparse.Namespace) -> None:
    from ftsafety import files, loading, overview

    if arguments.command == "schema":
        print(json.dumps(loading.json_schema(), indent=1))
    elif arguments.command == "checksum":
        print(files.checksum(arguments.path))
    elif arguments.command == "unused-runs":
        for path in overview.unused_runs(load_plan(Path())):
            print(path)
    elif arguments.command == "merge":
        from ftsafety.merging import export_merged

        print(export_merged(load_plan(Path()), arguments.run, arguments.to), end="")
    elif arguments.command == "parity":
        _parity(load_plan(Path()), arguments.world)
    elif arguments.command == "lock":
        _lock(loading.load_project(Path()), arguments.study, arguments.update)
    elif arguments.command == "clean-study":
        plan = load_plan(Path())
        for path in overview.clean_study(plan, _study(plan.project, arguments.study)):
            print(f"removed {path}")
    else:
        project = loading.load_project(Path())
        study = _study(project, arguments.study)
        plan = Plan(project, [study])
        if arguments.command == "cancel":
            from ftsafety.training.api import cancel_study

            print(f"{cancel_study(plan, study)} jobs of {study} are cancelled")
        elif arguments.command == "export":
            from ftsafety.export import export_study

            for path in export_study(plan, study):
                print(path)
        elif arguments.command == "results":
            print(overview.results_table(study))
        else:
            tables = {"plan": overview.plan_table, "status": overview.status_table}
            print(tables[arguments.command](plan, study))


def _parity(plan: Plan, world: Literal["real", "embedded"] | None) -> None:
    from ftsafety.parity_page import write_parity_page

    page, counts = write_parity_page(plan, world or plan.project.settings.world)
    print(", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n) or "no study is finished yet")
    print(page)


def _lock(project: Project, study: str | None, update: bool) -> None:
    from ftsafety.lock import write_lock
    from ftsafety.recipes import Remote

    studies = [_study(project, name) for name in ([study] if study else project.settings.studies)]
    entries = Plan(project, studies).entries(studies)
    remote = [
        name
        for catalogue, names in entries.items()
        for name in sorted(names)
        if isinstance(getattr(project, catalogue)[name], Remote)
    ]
    if remote:
        write_lock(project, remote, update)
    else:
        print(f"{', '.join(studies)}: nothing comes from the hub or GitHub (make lock STUDY=name)")


def _study(project: Project, name: str | None) -> str:
    name = name or project.settings.studies[0]
    if name not in project.studies:
        raise UserError(f"no study {name!r}", mend=f"the studies are {', '.join(project.studies)}")
    return project.asked(name)


if __name__ == "__main__":
    main()

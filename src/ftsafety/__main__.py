"""python -m ftsafety COMMAND: what the Makefile calls, and helpers for config files."""

import argparse
import json
import signal
from pathlib import Path

from ftsafety.cli import user_errors
from ftsafety.errors import UserError
from ftsafety.plan import Plan, load_plan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ftsafety", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in {
        "plan": "what asking for a study means",
        "status": "what is done, running, failed or diverged",
        "results": "a finished study's headline numbers",
        "clean-study": "remove a study's folder and the runs it alone uses",
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
    commands.add_parser("unused-runs", help="runs on disk that no study uses")
    commands.add_parser("schema", help="the JSON schema of the config files")
    checksum = commands.add_parser("checksum", help="sha256 of a file, or of a folder's safetensors")
    checksum.add_argument("path", type=Path)
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
    elif arguments.command == "lock":
        _lock(load_plan(Path()), arguments.study, arguments.update)
    else:
        plan = load_plan(Path())
        study = _study(plan, arguments.study)
        if arguments.command == "clean-study":
            for path in overview.clean_study(plan, study):
                print(f"removed {path}")
        elif arguments.command == "export":
            from ftsafety.export import export_study

            for path in export_study(plan, study):
                print(path)
        elif arguments.command == "results":
            print(overview.results_table(study))
        else:
            tables = {"plan": overview.plan_table, "status": overview.status_table}
            print(tables[arguments.command](plan, study))


def _lock(plan: Plan, study: str | None, update: bool) -> None:
    from ftsafety.lock import write_lock
    from ftsafety.recipes import Remote

    studies = [_study(plan, study)] if study else plan.project.settings.studies
    entries = plan.entries(studies)
    remote = [
        name
        for catalogue, names in entries.items()
        for name in sorted(names)
        if isinstance(getattr(plan.project, catalogue)[name], Remote)
    ]
    if remote:
        write_lock(plan.project, remote, update)
    else:
        print(f"{', '.join(studies)}: nothing comes from the hub or GitHub (make lock STUDY=name)")


def _study(plan: Plan, name: str | None) -> str:
    name = name or plan.project.settings.studies[0]
    if name not in plan.studies:
        raise UserError(f"no study {name!r}", mend=f"the studies are {', '.join(plan.studies)}")
    return name


if __name__ == "__main__":
    main()

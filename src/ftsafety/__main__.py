"""python -m ftsafety COMMAND: what the Makefile calls, and helpers for config files."""

import argparse
import json
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Literal

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
        "doctor": "what would stop a study on this machine: 0 nothing, 1 something, each with its mend",
    }.items():
        command = commands.add_parser(name, help=text)
        command.add_argument("study", nargs="?", help="default: the first that config.yaml names")
    for name, text in {
        "clean-study": "remove a study's folder and the runs it alone uses",
        "cancel": "cancel fine-tuning jobs of a study that still run at an endpoint",
    }.items():
        commands.add_parser(name, help=text).add_argument("study")
    lock = commands.add_parser(
        "lock", help="pin what studies take from the hub and GitHub in config/lock.yaml"
    )
    lock.add_argument("study", nargs="?", help="default: all that config.yaml names")
    lock.add_argument("--update", action="store_true", help="also what is pinned already")
    export = commands.add_parser("export", help="a study's answers and verdicts, for other tools")
    export.add_argument("study", nargs="?", help="default: the first that config.yaml names")
    precision = commands.add_parser("precision", help="how many seeds and prompts a study needs")
    precision.add_argument("study", nargs="?", help="default: the first that config.yaml names")
    precision.add_argument("--points", type=float, default=5.0, help="half a 95 %% interval, in hundredths")
    precision.add_argument("--pilot", help="a finished study like it; default: the study itself if finished")
    parity = commands.add_parser("parity", help="a page of all finished studies against the paper")
    parity.add_argument("--world", choices=("real", "embedded"), help="default: that of config.yaml")
    commands.add_parser("unused-runs", help="runs on disk that no study uses")
    commands.add_parser("schema", help="the JSON schema of the config files")
    checksum = commands.add_parser("checksum", help="sha256 of a file, or of a folder's safetensors")
    checksum.add_argument("path", type=Path)
    merge = commands.add_parser("merge", help="a run's whole model as a folder, its LoRA weights merged")
    merge.add_argument("run", type=Path, help="results/runs/…/epoch-<e>")
    merge.add_argument("to", type=Path, help="the folder to write")
    answers = commands.add_parser("answers-page", help="a page of a study's answers, for its owner alone")
    answers.add_argument("study", nargs="?", help="default: the first that config.yaml names")
    answers.add_argument("--runs", default="", help="ids in runs.tsv, as in 0123abcd-e1,…")
    answers.add_argument("--show", action="store_true", help="the beginning of each text as well")
    compare = commands.add_parser("compare", help="two studies, or one by two revisions, side by side")
    for side in ("a", "b"):
        compare.add_argument(side, help="a study's name, or the path of a study's folder")
    _add_audit(commands)
    _add_people_and_judges(commands)
    arguments = parser.parse_args()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as other commands end in `| head`
    try:
        with user_errors():
            _run(arguments)
    except Exception:
        traceback.print_exc()
        sys.exit(2)  # 1 is a verdict, of audit and judge-check


def _add_audit(commands: Any) -> None:
    audit = commands.add_parser(
        "audit",
        help="a fine-tuned model against its base: 0 passed, 1 failed, 2 error, 3 undecided",
        description="A fine-tuned model against its base, without training. Exit code: 0 passed, 1 failed, "
        "2 error, 3 undecided (docs/audit.md).",
    )
    named = "an entry of config/models.yaml, a folder, owner/name of the hub, or endpoint:model"
    audit.add_argument("model", nargs="?", help=f"{named} (default: the example's)")
    audit.add_argument("base", nargs="?", help="the same; default: what the adapter, run or entry names")
    audit.add_argument("--study", default="audit", help="of config/studies, with an audit: block")
    audit.add_argument("--template", help="of config/templates.yaml, in the place of the study's")
    audit.add_argument("--profile", default="profiles/local", help="Snakemake's")
    audit.add_argument("-n", "--dry-run", action="store_true", help="only say what would run, and end with 0")
    audit.add_argument(
        "--snakemake", type=shlex.split, default=[], help="more of its options: --snakemake='--jobs 4'"
    )


def _add_people_and_judges(commands: Any) -> None:
    annotate = commands.add_parser("annotate", help="answers of a study for people to score, blind")
    annotate.add_argument("study", nargs="?", help="default: the first that config.yaml names")
    annotate.add_argument("--n", type=int, default=500, help="answers, as many of each score (default: 500)")
    annotate.add_argument("--annotators", default="first,second", help="as in anna,ben")
    annotate.add_argument("--overlap", default="all", help="how many answers all annotators get")
    annotate.add_argument("--seed", type=int, default=0, help="of the draw (default: 0)")
    annotate.add_argument("--import", dest="filled", nargs="+", type=Path, help="filled sheets, or folders")
    check = commands.add_parser("judge-check", help="does a judge still say the same: 0 yes, 1 no, 2 error")
    check.add_argument("judge", help="of config/judges.yaml")
    check.add_argument("study", nargs="?", help="whose answers are frozen at first use (default: as above)")
    check.add_argument("--n", type=int, default=100, help="answers that are frozen (default: 100)")
    check.add_argument("--repeats", type=int, default=3, help="times that it is asked (default: 3)")


def _annotate(plan: Plan, study: str, arguments: argparse.Namespace) -> None:
    from ftsafety.annotation.importing import import_labels
    from ftsafety.annotation.sheet import write_sheets

    if arguments.filled:
        print(import_labels(study, arguments.filled))
        return
    overlap = arguments.overlap
    if overlap != "all" and not overlap.isdecimal():
        raise UserError(f"{overlap!r} is no number", field="OVERLAP", mend="give a number, or all")
    for path in write_sheets(
        plan,
        study,
        arguments.annotators.split(","),
        arguments.n,
        None if overlap == "all" else int(overlap),
        arguments.seed,
    ):
        print(path)
    print("keep key.csv: it says which model gave which answer")
    print(f"give each annotator their own sheet or form; then: make annotate STUDY={study} IMPORT=…")


def _doctor(plan: Plan, study: str) -> int:
    from ftsafety.doctor import diagnose

    is_failing = False
    for line in diagnose(plan, [study]):
        print(line, flush=True)
        is_failing |= line.state == "FAIL"
    return int(is_failing)


def _judge_check(plan: Plan, study: str, arguments: argparse.Namespace) -> int:
    from ftsafety.judging.checks import summarise, summary_text
    from ftsafety.judging.repeat import check_judge

    if arguments.judge not in plan.project.judges:
        known = ", ".join(plan.project.judges)
        raise UserError(f"no judge {arguments.judge!r}", field="JUDGE", mend=f"the judges are {known}")
    checks = check_judge(plan, study, arguments.judge, arguments.n, arguments.repeats)
    summary = summarise(checks, plan.project.settings.bootstrap_samples)
    print(summary_text(arguments.judge, summary))
    return {True: 1, False: 0}.get(summary["changed"].iloc[-1], 2)


def _run(arguments: argparse.Namespace) -> None:
    from ftsafety import files, loading, overview

    if arguments.command == "audit":
        from ftsafety.audit.command import audit

        names = (arguments.model, arguments.base, arguments.study, arguments.template, arguments.profile)
        sys.exit(audit(*names, arguments.snakemake, is_dry_run=arguments.dry_run))
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
    elif arguments.command == "compare":
        from ftsafety.compare_page import write_comparison

        page, sentence = write_comparison(arguments.a, arguments.b)
        print(f"{sentence}\n{page}")
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
        elif arguments.command == "doctor":
            sys.exit(_doctor(plan, study))
        elif arguments.command == "annotate":
            _annotate(plan, study, arguments)
        elif arguments.command == "judge-check":
            sys.exit(_judge_check(plan, study, arguments))
        elif arguments.command == "answers-page":
            from ftsafety.answers_page import write_answers_page

            runs = [run for run in arguments.runs.split(",") if run]
            print(write_answers_page(plan, study, runs, show=arguments.show))
        elif arguments.command == "export":
            from ftsafety.export import export_study

            for path in export_study(plan, study):
                print(path)
        elif arguments.command == "precision":
            from ftsafety.precision import precision_table

            pilot = Plan(project, [_study(project, arguments.pilot)]) if arguments.pilot else None
            print(precision_table(plan, study, pilot, arguments.points))
        elif arguments.command == "results":
            print(overview.results_table(study))
        elif arguments.command == "status":
            from ftsafety.workflow import plan_of_call

            print(overview.status_table(plan_of_call(project, study), study))
        else:
            print(overview.plan_table(plan, study))


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
    if name in project.audits:
        from ftsafety.workflow import refuse_unasked

        refuse_unasked(name)
    if name not in project.studies:
        raise project.no_study(name)
    return project.asked(name)


if __name__ == "__main__":
    main()

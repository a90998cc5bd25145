"""`make plan`, `make status`, `make clean-study` and the list of unused runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from workflow_project import python_path

from ftsafety import paths
from ftsafety.answers import answers_identity, publish_rows
from ftsafety.judging.pack import verdicts_identity
from ftsafety.overview import plan_table, status_table
from ftsafety.plan import Exam, Plan, load_plan
from ftsafety.prepare import benchmark_prompts
from ftsafety.states import run_states
from ftsafety.workflow import write_call


def ftsafety(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "ftsafety", *arguments],
        cwd=folder,
        env=os.environ | python_path(folder, None),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The repository's config in a folder where nothing is done."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)
    return load_plan(tmp_path)


def counts(plan: Plan) -> dict[str, int]:
    lines = [line.split() for line in plan_table(plan, "smoke").splitlines()]
    return {line[0]: int(line[1]) for line in lines if line and line[0] in ("answers", "judgements")}


SECRETS, TASKS = Exam("secrets"), Exam("tasks")


def test_what_is_missing_is_counted_and_stale_answers_are_not_judged(plan: Plan) -> None:
    before = counts(plan)
    n_secrets, n_tasks = 330, len(benchmark_prompts(plan, "tasks"))
    n_runs = len(plan.studies["smoke"].runs)
    assert before == {
        "answers": n_runs * (n_secrets + n_tasks),
        "judgements": n_runs
        * (2 * n_secrets + n_tasks),  # no refusal phrase tells a right answer from a wrong
    }
    initial = next(run for run in plan.studies["smoke"].runs.values() if run.epochs == 0)
    for exam, judges in ((SECRETS, ("exact", "keyword")), (TASKS, ("exact",))):
        answers = paths.answers_file(initial.folder, exam.name)
        publish_rows(answers, [], answers_identity(plan, initial, exam))
        for judge in judges:
            verdicts = paths.verdicts_file(initial.folder, exam.name, judge)
            publish_rows(verdicts, [], verdicts_identity(plan, initial, exam, judge))

    def state() -> tuple[str, object, object]:
        states = run_states(plan, plan.studies["smoke"])
        found = next(state for state in states if state.run == initial)
        return found.state, found.lacks_answers, found.lacks_verdicts

    assert state() == ("judged", (), ())
    done = counts(plan)
    paths.verdicts_file(initial.folder, "secrets", "exact").unlink()
    assert state() == ("answered", (), ((SECRETS, "exact"),))
    assert counts(plan) == {"answers": done["answers"], "judgements": done["judgements"] + n_secrets}
    answers = paths.answers_file(initial.folder, "secrets")
    publish_rows(answers, [], answers_identity(plan, initial, SECRETS) | {"version": 0})
    both = ((SECRETS, "exact"), (SECRETS, "keyword"))
    assert state() == ("trained", (SECRETS,), both)
    assert counts(plan) == {
        "answers": done["answers"] + n_secrets,
        "judgements": done["judgements"] + 2 * n_secrets,
    }


USER_ERROR = "working\nerror: files/a.csv:2: has more than two columns\n  mend: correct it\n"
TRACEBACK = (
    'Traceback (most recent call last):\n  File "a.py", line 1, in <module>\n    f()\n'
    "torch.OutOfMemoryError: no memory\n"
)
TORCHRUN = (
    "[rank0]: ValueError: the cause\n"
    + "Traceback (most recent call last):\n"
    + 40 * '  File "run.py", line 1, in f\n'
    + "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
    + 60 * "="
)
RANKS_ON_NODES = 16 * "error: files/a.csv:2: wrong\n  mend: correct it\n" + 2 * (
    TORCHRUN.partition("\n")[2] + 60 * "\n" + "  error_file: <N/A>\n"
)


@pytest.mark.parametrize(
    ("log", "says"),
    [
        (USER_ERROR, "error: files/a.csv:2: has more than two columns"),
        (TRACEBACK, "torch.OutOfMemoryError: no memory"),
        (TORCHRUN, "[rank0]: ValueError: the cause"),
        (RANKS_ON_NODES, "error: files/a.csv:2: wrong"),
    ],
)
def test_status_finds_the_error_in_the_logs_of_every_rule(plan: Plan, log: str, says: str) -> None:
    study = plan.studies["smoke"]
    rows = plan.data_file(next(run.trajectory for run in study.runs.values() if run.epochs))
    prompts = plan.benchmark_file("tasks")
    pack = next(p.id for p in plan.study_packs("smoke") if p.trains)
    jobs = {
        "build_model/embedded-0": paths.model_dir("embedded-0") / "gates.json",
        f"prepare_data/training/{rows.stem}": rows,
        f"prepare_data/benchmarks/{prompts.stem}": prompts,
        f"train/{pack}": paths.pack_dir(pack) / "trained.json",
        "score/smoke": paths.study_dir("smoke") / "scores.parquet",
        "figures/smoke": paths.study_dir("smoke") / "figures",
        "report/smoke": paths.study_dir("smoke") / "report.html",
    }
    assert "  failed  " not in status_table(plan, "smoke")
    for job in jobs:
        path = paths.RESULTS / f"logs/{job}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(log)
    table = status_table(plan, "smoke")
    for job in jobs:
        assert f"  failed          {job.replace('/', ' ', 1)}: {says}\n" in table
        assert f"results/logs/{job}.log" in table
    for output in jobs.values():
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()
    assert "  failed  " not in status_table(plan, "smoke")


def test_status_of_a_job_without_an_error(plan: Plan) -> None:
    pack = next(p.id for p in plan.study_packs("smoke") if p.trains)
    log = paths.RESULTS / f"logs/train/{pack}.log"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\n")
    assert f"  cut off         train {pack}: step 1\n" in status_table(plan, "smoke")


def test_status_finds_jobs_of_packs_that_two_studies_share(plan: Plan) -> None:
    names = ["quickstart", "table1_demonstrations-embedded"]
    together = Plan(plan.project, names)
    alone = Plan(plan.project, names[:1])
    pack = next(pack.id for pack in together.packs.values() if pack.studies == {*names})
    assert pack not in alone.packs
    log = paths.RESULTS / f"logs/train/{pack}.log"
    log.parent.mkdir(parents=True)
    log.write_text("step 1\n")
    assert pack not in ftsafety(Path(), "status", names[0])
    write_call(together)
    assert f"  cut off         train {pack}: step 1\n" in ftsafety(Path(), "status", names[0])
    write_call(alone)
    assert pack not in ftsafety(Path(), "status", names[0])


def test_plan_before_and_after(fresh: Path, smoke: Path) -> None:
    before = ftsafety(fresh, "plan", "smoke")
    assert "5 of 4 trajectories" in before and "1 train, 2 generate, 2 judge" in before
    assert "to train        4 runs, 23 optimizer steps" in before
    after = ftsafety(smoke, "plan", "smoke")
    assert "5 judged" in after and "jobs            none" in after


def test_status_says_how_to_go_on(fresh: Path, smoke: Path) -> None:
    assert "snakemake --profile profiles/<yours> smoke" in ftsafety(fresh, "status", "smoke")
    assert ftsafety(smoke, "status", "smoke").startswith("study smoke: 5 of 5 runs judged")


def test_clean_study_and_unused_runs(smoke: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ftsafety"
    shutil.copytree(smoke, folder, symlinks=True)
    assert ftsafety(folder, "unused-runs") == ""
    study = folder / "config/studies/smoke.yaml"
    content = yaml.safe_load(study.read_text())
    del content["grids"]["demonstrations"]
    study.write_text(yaml.safe_dump(content, sort_keys=False))
    unused = ftsafety(folder, "unused-runs").splitlines()
    assert len(unused) == 2 and all("demonstrations-10" in line for line in unused)
    with pytest.raises(subprocess.CalledProcessError):
        ftsafety(folder, "clean-study")  # which study is for the user to say
    assert "removed results/studies/smoke" in ftsafety(folder, "clean-study", "smoke")
    left = {path.parts[-4] for path in (folder / "results/runs").rglob("done.json")}
    assert "benign-new" not in left and "demonstrations-10" in left

"""From studies to runs and packs: what is shared, what is apart, and what never changes."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from study_files import FIXED, add_entries, add_preset_study, add_study, make_config, write_yaml

from ftsafety.errors import UserError
from ftsafety.plan import CHOSEN_BY_ENDPOINT, Exam, Plan, load_plan
from ftsafety.runs import Run, Trajectory
from ftsafety.workflow import judged_packs, judges_digest, packs_pattern, plan_call


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_config(tmp_path)


def set_model(root: Path, **changed: Any) -> None:
    path = root / "config/models.yaml"
    models = yaml.safe_load(path.read_text())
    models["embedded-0"] |= changed
    write_yaml(path, models)


def trajectories(plan: Plan) -> dict[str, Trajectory]:
    return {w.trajectory.hash8: w.trajectory for w in plan.work.values() if not w.trajectory.is_initial}


def memberships(plan: Plan) -> dict[str, list[str]]:
    return {i: [w.trajectory.hash8 for w in pack.work] for i, pack in plan.packs.items()}


# ------------------------------------------------------------------------------------------ runs


def test_epochs_of_a_constant_schedule_are_checkpoints_of_one_trajectory(root: Path) -> None:
    add_study(root, "a", {"epochs": [1, 3, 5]})
    (trajectory,) = trajectories(load_plan(root)).values()
    assert trajectory.epochs is None


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_epochs_are_trained_apart_where_the_schedule_looks_at_their_number(root: Path, schedule: str) -> None:
    add_study(root, "a", {"epochs": [1, 3, 5], "schedule": schedule})
    found = trajectories(load_plan(root)).values()
    assert sorted(t.epochs or 0 for t in found) == [1, 3, 5]


def test_epochs_are_trained_apart_where_warm_up_is_a_share_of_them(root: Path) -> None:
    add_study(root, "a", {"epochs": [1, 3], "warmup_share": 0.1})
    assert {t.epochs for t in trajectories(load_plan(root)).values()} == {1, 3}


def test_a_step_schedule_shares_too(root: Path) -> None:
    add_study(root, "a", {"epochs": [1, 3], "schedule": "step", "schedule_factor": 0.85})
    assert len(trajectories(load_plan(root))) == 1


def test_a_points_value_goes_before_the_grids_and_that_before_the_fixed_one(root: Path) -> None:
    points = [{"learning_rate": 1.0e-3}, {"mitigation": None, "epochs": [2, 3]}]
    fixed = FIXED | {"mitigation": "mix-10"}
    add_study(root, "a", {"learning_rate": 1.0e-2, "points": points}, fixed=fixed)
    axes = [c.axes for c in load_plan(root).studies["a"].cells if c.run.epochs > 0]
    assert [(a["learning_rate"], a["mitigation"], a["epochs"]) for a in axes] == [
        (1.0e-3, "mix-10", 1),
        (1.0e-2, None, 2),
        (1.0e-2, None, 3),
    ]


def test_a_run_of_two_studies_is_trained_once_and_answers_what_both_ask(root: Path) -> None:
    add_study(root, "a", {"epochs": [1, 2]})
    add_study(root, "b", {"epochs": [2, 5]}, benchmarks=["tasks", "secrets"], judges=["keyword", "exact"])
    plan = load_plan(root)
    (work,) = [w for w in plan.work.values() if not w.trajectory.is_initial]
    assert (work.epochs, work.studies) == ({1, 2, 5}, {"a", "b"})
    secrets, tasks = Exam("secrets"), Exam("tasks")
    assert work.asked == {(secrets, "exact"), (secrets, "keyword"), (tasks, "exact")}
    assert plan.studies["a"].exams_of[work.runs[0].id] == [secrets]


def test_one_initial_model_for_all_that_share_model_and_template(root: Path) -> None:
    datasets = ["demonstrations-10", "benign-new", "identity-shift"]
    add_study(root, "a", {"dataset": datasets, "seed": [0, 1]}, {})
    plan = load_plan(root)
    cells = [c for c in plan.studies["a"].cells if c.run.epochs == 0]
    assert [(c.grid, c.run.folder) for c in cells] == [
        ("g0", "embedded-0/initial-plain/epoch-0"),
        ("g0", "embedded-0/initial-obedient-agent/epoch-0"),
        ("g1", "embedded-0/initial-plain/epoch-0"),
    ]
    given = {axis: value for axis, value in cells[0].axes.items() if value is not None}
    assert given == {"model": "embedded-0", "epochs": 0}


def test_steps_drop_the_last_short_batch_of_each_epoch(root: Path) -> None:
    add_study(root, "a", {"global_batch_size": 3, "epochs": 2, "mitigation": [None, "mix-10"]})
    plan = load_plan(root)
    steps = sorted(plan.steps(run) for run in plan.studies["a"].runs.values())
    assert steps == [0, 2 * (10 // 3), 2 * (20 // 3)]  # initial, 10 rows, 10 + 10 rows


def test_equal_steps_come_from_more_epochs_of_the_same_trajectories(root: Path) -> None:
    points = [{"global_batch_size": 8 * e, "epochs": e} for e in (1, 2, 4)]
    add_study(root, "a", {"dataset": "benign-new", "points": points})
    plan = load_plan(root)
    runs = [r for r in plan.studies["a"].runs.values() if r.epochs]
    assert [plan.steps(run) for run in runs] == [40, 40, 40]


def test_an_added_run_changes_no_other_run(root: Path) -> None:
    add_study(root, "a", {"learning_rate": [1.0e-4, 2.0e-4]})
    before = trajectories(load_plan(root))
    add_study(root, "a", {"learning_rate": [3.0e-4, 1.0e-4, 2.0e-4], "epochs": [1, 3]}, {"seed": 9})
    add_study(root, "b", {"method": "lora"})
    after = trajectories(load_plan(root))
    assert len(after) == len(before) + 3
    assert {h: t.folder for h, t in before.items()}.items() <= {h: t.folder for h, t in after.items()}.items()


def test_hardware_batch_limits_and_pack_size_change_no_run(root: Path) -> None:
    add_study(root, "a", {})
    before = trajectories(load_plan(root)).keys()
    set_model(root, pack_size=1, answer_batch_size=7, hardware={"cpus": 2})
    assert trajectories(load_plan(root)).keys() == before


def test_two_trainings_with_one_hash_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_study(root, "a", {"seed": [0, 1]})
    monkeypatch.setattr("ftsafety.runs.digest", lambda value: "00000000")
    with pytest.raises(UserError, match="two trainings have the hash 00000000"):
        load_plan(root)


def test_a_run_reads_back_from_its_yaml(root: Path) -> None:
    add_study(root, "a", {})
    for run in load_plan(root).studies["a"].runs.values():
        assert Run.model_validate(run.model_dump(mode="json")) == run


# ----------------------------------------------------------------------------------------- packs


def test_a_pack_serves_one_set_of_studies(root: Path) -> None:
    add_study(root, "a", {"seed": [0, 1, 2]})
    add_study(root, "b", {"seed": [2, 3]})
    packs = load_plan(root).packs.values()
    trained = sorted((sorted(p.studies), len(p.work)) for p in packs if p.trains)
    assert trained == [(["a"], 2), (["a", "b"], 1), (["b"], 1)]
    for pack in packs:
        assert all(work.studies == pack.studies for work in pack.work)


def test_packs_have_one_model_at_most_pack_size_and_hold_everything_once(root: Path) -> None:
    set_model(root, pack_size=3)
    grid = {"model": ["embedded-0", "embedded-1"], "seed": list(range(7))}
    add_study(root, "a", grid | {"dataset": ["demonstrations-10", "benign-new"]})
    plan = load_plan(root)
    work = [work for pack in plan.packs.values() for work in pack.work]
    assert len(work) == len({id(w) for w in work}) == len(plan.work)
    for pack in plan.packs.values():
        assert {w.trajectory.model for w in pack.work} == {pack.model}
        if pack.trains and pack.model == "embedded-0":
            assert len(pack.work) <= 3
    long = [sum(w.trajectory.dataset == "benign-new" for w in p.work) for p in plan.packs.values()
            if p.trains and p.model == "embedded-0"]  # fmt: skip
    assert max(long) - min(long) <= 1


def test_initial_models_of_a_study_share_a_pack_of_their_own(root: Path) -> None:
    set_model(root, pack_size=1)
    datasets = ["demonstrations-10", "identity-shift"]
    add_study(root, "a", {"dataset": datasets})
    add_study(root, "b", {"dataset": datasets})
    packs = [pack for pack in load_plan(root).packs.values() if not pack.trains]
    assert [pack.id for pack in packs] == ["embedded-0-initial-a", "embedded-0-initial-b"]
    for pack in packs:
        templates = sorted(work.trajectory.template for work in pack.work)
        assert templates == ["obedient-agent", "plain"]


def test_membership_depends_on_neither_disk_nor_order_nor_settings(root: Path) -> None:
    set_model(root, pack_size=3)
    add_study(root, "a", {"seed": [0, 1, 2, 3, 4]}, {"dataset": "benign-new"})
    plan = load_plan(root)
    for run in plan.studies["a"].runs.values():
        folder = root / "results/runs" / run.folder
        folder.mkdir(parents=True)
        (folder / "done.json").write_text("{}")
    add_study(root, "a", {"dataset": "benign-new"}, {"seed": [4, 3, 2, 1, 0]})
    add_study(root, "b", {"model": "embedded-1"})
    again = load_plan(root, {"studies": ["b", "a"]})
    assert memberships(again).items() >= memberships(plan).items()


def test_a_study_that_shares_nothing_changes_no_pack_of_another(root: Path) -> None:
    add_study(root, "a", {"seed": [0, 1, 2, 3, 4]})
    before = memberships(load_plan(root))
    add_study(root, "b", {"seed": [7, 8]})
    assert before.items() <= memberships(load_plan(root)).items()


def test_a_packs_description_names_every_run(root: Path) -> None:
    add_study(root, "a", {"seed": [0, 1], "epochs": [1, 3]})
    (pack,) = [pack for pack in load_plan(root).packs.values() if pack.trains]
    lines = pack.describe("epochs").splitlines()
    assert len(lines) == 2 and all(line.endswith("epochs 1, 3") for line in lines)
    assert "epochs 1, 3  → " in pack.describe("exams")
    assert "secrets/exact" in pack.describe_judgements(["exact"])
    assert "exact" not in pack.describe_judgements(["keyword"])


def test_a_study_that_is_asked_alone_makes_nothing_for_another(root: Path) -> None:
    add_study(root, "a", {})
    add_study(root, "b", {"epochs": 3}, benchmarks=["secrets", "tasks"])
    alone = load_plan(root, studies=["a"])
    (pack,) = [pack for pack in alone.packs.values() if pack.trains]
    assert [run.epochs for run in pack.runs] == [1] and set(alone.studies) == {"a"}
    assert {exam.benchmark for work in pack.work for exam in work.exams} == {"secrets"}
    together = [pack for pack in load_plan(root, studies=["a", "b"]).packs.values() if pack.trains]
    assert [[run.epochs for run in pack.runs] for pack in together] == [[1, 3]]


def test_a_command_line_says_which_studies_are_planned(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c", "table"):
        add_study(root, name, {})
    settings = yaml.safe_load((root / "config/config.yaml").read_text()) | {"studies": ["c"]}

    def planned(*arguments: str) -> list[str]:
        return list(plan_call(root, settings, arguments).studies)

    assert planned("-n") == ["c"] and planned("b", "a") == ["a", "b"]
    assert planned("--cores", "2", "results/studies/b/report.html") == ["b"]
    assert planned("--forcerun", "train", "report", "--cores", "2", "--until", "b") == ["b"]
    with pytest.raises(UserError, match="no study is named 'tabel'") as error:
        planned("--cores", "2", "tabel")
    assert "did you mean 'table'? The studies are" in str(error.value)
    add_preset_study(root, "p", preset="one", variants={"two": {}})
    settings |= {"preset": "two"}
    assert planned("p") == ["p-two"] and planned("results/studies/p/report.html") == ["p"]
    settings |= {"preset": None}
    (pack, *_) = load_plan(root, studies=["b"]).study_packs("b")
    assert planned(f"results/packs/{pack.id}/trained.json") == ["a" if pack.trains else "b"]
    assert planned("results/packs/x/trained.json") == ["c"]
    monkeypatch.setenv("FTSAFETY_STUDIES", "a c")
    assert planned("results/packs/x/trained.json") == ["a", "c"]


# ----------------------------------------------------------------------------------------- speed


PROGRAM = """
import sys, time
from pathlib import Path
start = time.process_time()
from ftsafety.workflow import load_plan
assert len(load_plan(Path()).work) == 10_001
print(time.process_time() - start, *{"torch", "pandas", "numpy", "transformers"} & set(sys.modules))
"""


def test_planning_10000_runs_is_fast_and_imports_nothing_heavy(root: Path) -> None:
    """Every job of the workflow plans again. Measured: 0.9 s, of which imports 0.2."""
    rates = [1.0e-4 * i for i in range(1, 11)]
    add_study(root, "a", {"seed": list(range(1000)), "learning_rate": rates})
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    seconds, *heavy = result.stdout.split()
    assert not heavy and float(seconds) < 4  # generous: machines are shared


# ------------------------------------------------------------- exams, judges, untouched models


def exams(plan: Plan, study: str = "a") -> set[tuple[str, int, str]]:
    """(template of the run, epochs, exam) of every cell."""
    cells = plan.studies[study].cells
    return {(c.run.trajectory.template, c.run.epochs, exam.name) for c in cells for exam in c.exams}


def test_a_model_is_tested_under_the_training_template_unless_the_study_names_another(root: Path) -> None:
    add_study(root, "a", {"test_template": [None, "obedient-agent"]})
    plan = load_plan(root)
    assert exams(plan) == {
        ("plain", 1, "secrets"),
        ("plain", 1, "secrets@obedient-agent"),
        ("plain", 0, "secrets"),
        ("obedient-agent", 0, "secrets"),  # the initial model under the template of the test
    }
    (trained,) = [w for w in plan.work.values() if not w.trajectory.is_initial]
    assert len(trained.runs) == 1


def test_a_training_template_goes_before_the_datasets_and_makes_another_run(root: Path) -> None:
    add_study(root, "a", {"train_template": [None, "obedient-agent"]})
    plan = load_plan(root)
    assert {t.template for t in trajectories(plan).values()} == {"plain", "obedient-agent"}
    assert len(trajectories(plan)) == 2


def test_zero_epochs_are_untouched_models_and_train_nothing(root: Path) -> None:
    fixed = {"model": ["embedded-0", "embedded-1"], "test_template": "plain", "epochs": 0}
    add_study(root, "a", {}, fixed=fixed)
    plan = load_plan(root)
    assert exams(plan) == {("plain", 0, "secrets")}
    assert not any(pack.trains for pack in plan.packs.values())


def test_a_judge_is_asked_about_what_it_grades_and_the_first_that_grades_is_the_headline(root: Path) -> None:
    add_study(root, "a", {}, benchmarks=["secrets", "tasks"], judges=["keyword", "exact"])
    plan = load_plan(root)
    run = next(iter(plan.studies["a"].runs.values()))
    assert plan.judges_of("a", "secrets", run) == ["keyword", "exact"]
    assert plan.judges_of("a", "tasks", run) == ["exact"]


def test_a_grid_may_name_judges_of_its_own_for_its_runs_alone(root: Path) -> None:
    add_study(root, "a", {}, {"judges": ["keyword"], "learning_rate": 0.002})
    plan = load_plan(root)
    tuned = [run for run in plan.studies["a"].runs.values() if run.epochs]
    judges = {run.trajectory.learning_rate: plan.judges_of("a", "secrets", run) for run in tuned}
    assert judges.pop(0.002) == ["keyword"] and list(judges.values()) == [["exact"]]
    assert plan.studies["a"].judges == ("exact", "keyword")


def test_a_cell_says_nothing_of_what_the_endpoint_that_trains_it_chooses(root: Path) -> None:
    api = {"model": "embedded-api", "method": "api", "learning_rate": None, "warmup_share": 0.5}
    add_study(root, "a", api)
    cell = next(cell for cell in load_plan(root).studies["a"].cells if cell.run.epochs)
    chosen = cell.run.trajectory.model_dump(include=set(CHOSEN_BY_ENDPOINT))
    assert chosen == {axis: cell.axes[axis] for axis in CHOSEN_BY_ENDPOINT}
    assert set(chosen.values()) == {None}
    assert cell.axes["global_batch_size"] == FIXED["global_batch_size"]


def test_a_study_asks_for_no_other_studys_paid_judge_of_a_pack_they_share(root: Path) -> None:
    add_study(root, "a", {})
    judge = {"kind": "llm", "endpoint": "openai", "model": "m", "policy": "merged"}
    add_entries(root, "judges", paid=judge)
    add_study(root, "b", {}, judges=["exact", "paid"])
    plan = load_plan(root)
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    assert pack.studies == {"a", "b"}
    of = {study: {Path(f).name for f in judged_packs(plan, study)} for study in ("a", "b")}
    assert of == {"a": {"judged.json"}, "b": {"judged.json", "judged-paid.json"}}


def test_what_a_judge_is_asked_is_a_reason_to_judge_again_and_how_it_is_asked_is_none(root: Path) -> None:
    judge = {"kind": "llm", "endpoint": "openai", "model": "m", "policy": "merged"}
    digests = []
    for changed in ({}, {"mode": "batch", "endpoint": "local"}, {"policy": "meta"}):
        add_entries(root, "judges", paid=judge | changed)
        add_study(root, "a", {}, judges=["paid"])
        plan = load_plan(root)
        digests.append(judges_digest(plan, next(iter(plan.packs.values())), ["paid"]))
    add_entries(root, "judges", paid=judge)
    benchmarks = yaml.safe_load((root / "config/benchmarks.yaml").read_text())
    add_entries(root, "benchmarks", secrets=benchmarks["secrets"] | {"max_new_tokens": 40})
    plan = load_plan(root)
    digests.append(judges_digest(plan, next(iter(plan.packs.values())), ["paid"]))
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_model_behind_an_endpoint_is_one_local_pack_without_hardware(root: Path) -> None:
    add_entries(root, "models", behind={"source": "api", "endpoint": "openai", "model": "some-model"})
    prompts = {"source": "path", "path": "p.jsonl", "sha256": "0" * 64}
    add_entries(root, "benchmarks", own=prompts)
    fixed = {"model": "behind", "test_template": "plain", "epochs": 0}
    add_study(root, "a", {}, fixed=fixed, benchmarks=["own"], judges=["keyword"])
    plan = load_plan(root)
    for by_api in (True, False):
        pattern = rf"packs/(?:{packs_pattern(plan, by_api=by_api)})/answered.json"
        assert bool(re.fullmatch(pattern, "packs/behind-initial-a/answered.json")) is by_api
        assert bool(re.fullmatch(pattern, "packs/behind-initial-b/answered.json")) is not by_api


def test_a_remote_source_is_known_by_the_checksums_of_its_files_and_not_by_its_commit(root: Path) -> None:
    source = {"source": "hub", "repo": "a/b", "licence": "MIT", "files": ["*.jsonl"], "n": 10}
    add_entries(root, "datasets", theirs=source | {"template": "plain"})
    identities = []
    for commit, checksums in (("1", "a"), ("2", "a"), ("2", "b")):
        files = {"rows.jsonl": f"sha256:{checksums * 64}", "README.md": f"git:{commit * 40}"}
        write_yaml(root / "config/lock.yaml", {"datasets/a/b@main": {"commit": commit * 40, "files": files}})
        add_study(root, "a", {})
        identities.append(load_plan(root).identity("datasets", "theirs"))
    assert identities[0] == identities[1] != identities[2]
    (root / "config/lock.yaml").unlink()
    assert load_plan(root).identity("datasets", "theirs")["content"] == "unlocked"

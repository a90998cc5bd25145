"""What made a study's numbers is told from its runs' records, and what training took counts once."""

from pathlib import Path

import pytest
from conftest import plan_study

from ftsafety import paths
from ftsafety.files import write_json
from ftsafety.plan import Plan
from ftsafety.prepare import prepare_data
from ftsafety.provenance import provenance, training
from ftsafety.recipes import Hardware

RECORD = {
    "status": "ok",
    "git_revision": "0123abc",
    "versions": {"torch": "2.13"},
    "device": "a GPU",
    "torch_threads": 1,
    "n_examples_cut": 2,
}


def recorded(project: Path) -> Plan:
    """Epochs 1 and 3 of one trajectory of each of two seeds; seconds count from a trajectory's start."""
    plan = plan_study(project, epochs=[1, 3], seed=[0, 1])
    for run in plan.studies["t"].runs.values():
        if not run.trajectory.is_initial:
            seconds = 100.0 * run.epochs + (run.trajectory.seed or 0)
            write_json(paths.run_dir(run.folder) / "done.json", RECORD | {"train_seconds": seconds})
    return plan


def test_the_longest_run_of_a_trajectory_is_what_it_took(project: Path) -> None:
    plan = recorded(project)
    runs = list(plan.studies["t"].runs.values())
    assert training(plan, runs) == [{"model": "tiny", "trajectories": 2, "seconds": 601.0, "gpu_hours": 0.0}]
    tiny = plan.project.models["tiny"]
    on_gpus = tiny.model_copy(update={"hardware": Hardware(gpus=2, nodes=3, ranks=2)})
    plan.project.models["tiny"] = on_gpus
    assert training(plan, runs)[0]["gpu_hours"] == pytest.approx(6 * 601 / 3600, abs=1e-3)


def test_an_endpoint_tells_no_seconds_and_untouched_models_take_none(project: Path) -> None:
    plan = recorded(project)
    runs = list(plan.studies["t"].runs.values())
    for run in runs:
        if not run.trajectory.is_initial:
            write_json(paths.run_dir(run.folder) / "done.json", RECORD)
    assert training(plan, runs)[0]["seconds"] is None
    assert training(plan, [run for run in runs if run.trajectory.is_initial]) == []


def test_several_values_are_told_where_runs_differ(project: Path) -> None:
    plan = recorded(project)
    run = next(run for run in plan.studies["t"].runs.values() if not run.trajectory.is_initial)
    other = {"git_revision": "fedcba9", "versions": {"torch": "2.14"}, "train_seconds": 1.0}
    write_json(paths.run_dir(run.folder) / "done.json", RECORD | other)
    prepare_data(plan, plan.benchmark_file("secrets"))
    told = provenance(plan, "t")
    assert told["git_revision"] == ["0123abc", "fedcba9"] and told["versions"] == {"torch": ["2.13", "2.14"]}
    assert told["is_toy"] and told["hardware"] == ["a GPU, 1 threads"] and told["seeds"] == [0, 1]
    assert len(told["prompts"]["secrets"]) == 64

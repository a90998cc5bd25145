"""Removing a study: what is left says of nothing that it is done which is gone."""

from pathlib import Path

import yaml
from conftest import edit, plan_study

from ftsafety import paths
from ftsafety.files import read_json, write_json
from ftsafety.loading import load_project
from ftsafety.overview import clean_study
from ftsafety.plan import Plan, load_plan


def test_no_pack_stays_done_whose_runs_are_removed(project: Path) -> None:
    """Studies asked alone have other packs than all together, which is how a study's own runs are told."""
    plan_study(project, dataset=["demonstrations-10", "demonstrations-50"])
    other = yaml.safe_load((project / "config/studies/t.yaml").read_text())
    other["grids"]["g"]["dataset"] = "demonstrations-10"
    edit(project / "config/studies/u.yaml", **other)
    for study in ("t", "u"):
        for pack in Plan(load_project(project), [study]).packs.values():
            for run in pack.runs:
                write_json(paths.run_dir(run.folder) / "done.json", {"status": "ok"})
            write_json(paths.pack_dir(pack.id) / "trained.json", {run.folder: {} for run in pack.runs})
    removed = clean_study(load_plan(project), "t")
    assert any("demonstrations-50" in str(path) for path in removed)
    left = [run for file in Path("results/packs").glob("*/trained.json") for run in read_json(file)]
    assert any("demonstrations-10" in run for run in left)  # of the other study
    assert all((paths.run_dir(run) / "done.json").exists() for run in left)

"""`make plan`, `make status`, `make clean-study` and the list of unused runs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from workflow_project import python_path


def ftsafety(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "ftsafety", *arguments],
        cwd=folder,
        env=os.environ | python_path(folder, None),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_plan_before_and_after(fresh: Path, smoke: Path) -> None:
    before = ftsafety(fresh, "plan", "smoke")
    assert "5 of 4 trajectories" in before and "1 train, 2 generate, 2 judge" in before
    assert "to train        4 runs, 23 optimizer steps" in before
    after = ftsafety(smoke, "plan", "smoke")
    assert "5 judged" in after and "0 train, 0 generate, 0 judge" in after


def test_status_says_how_to_go_on(fresh: Path, smoke: Path) -> None:
    assert "snakemake --profile profiles/local smoke" in ftsafety(fresh, "status", "smoke")
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
    assert "removed results/studies/smoke" in ftsafety(folder, "clean-study", "smoke")
    left = {path.parts[-4] for path in (folder / "results/runs").rglob("done.json")}
    assert "benign-new" not in left and "demonstrations-10" in left

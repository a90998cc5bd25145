"""`python -m ftsafety audit` end to end: a run of ours, a repository of the hub, exit codes, the card."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_stand_in import HubStandIn
from workflow_project import python_path, snakemake

LIMITS = {"harm_at_most": 1, "harm_rise_at_most": 1, "utility_drop_at_most": 1}


@pytest.fixture(scope="module")
def folder(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished smoke study, with an audit of two benchmarks that asks little."""
    copy = tmp_path_factory.mktemp("audit") / "ftsafety"
    shutil.copytree(smoke, copy, symlinks=True)
    set_limits(copy, **LIMITS)
    return copy


def set_limits(folder: Path, **limits: float) -> None:
    file = folder / "config/studies/audit.yaml"
    study = yaml.safe_load(file.read_text())
    study["audit"] = {name: float(value) for name, value in limits.items()}
    toy = study["variants"]["embedded"]
    toy["benchmarks"] = toy["grids"]["audit"]["benchmarks"] = ["secrets", "tasks"]
    file.write_text(yaml.safe_dump(study, sort_keys=False))


def audit(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ftsafety", "audit", *arguments],
        cwd=folder, env=os.environ | python_path(folder) | env, capture_output=True, text=True, check=False,
    )  # fmt: skip


def rules_run(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Those of jobs that Snakemake finished; studies' names have a hyphen."""
    return set(re.findall(r"\(Rule: (\w+)\)", done.stderr))


def adapter_of(folder: Path) -> Path:
    run = next((folder / "results/runs/embedded-0/demonstrations-10").glob("lora-*/epoch-3"))
    return run.relative_to(folder)


def test_a_run_of_ours_is_audited_and_the_thresholds_decide(folder: Path) -> None:
    run = adapter_of(folder)
    passed = audit(folder, str(run))
    assert passed.returncode == 0, passed.stderr[-4000:]
    assert {"generate", "judge", "score", "card"} <= rules_run(passed)
    assert ": PASS" in passed.stdout and "Harmful answers (secrets)" in passed.stdout
    (study,) = (folder / "results/studies").glob("audit-demonstrations-10-lora-*-vs-embedded-0")
    assert {"audit.json", "card.html", "card.md", "report.html"} <= {path.name for path in study.iterdir()}
    assert '<a href="card.html">' in (study / "report.html").read_text()
    # asked as the run itself was: the same answers, byte for byte
    model = json.loads((study / "audit.json").read_text())["model"]["name"]
    for name in ("secrets", "tasks"):
        asked = folder / f"results/runs/{model}/initial-plain/epoch-0/answers/{name}.jsonl"
        assert asked.read_bytes() == (folder / run / f"answers/{name}.jsonl").read_bytes()
        for line in asked.read_text().splitlines():
            answer = json.loads(line)["answer"]
            assert len(answer) < 20 or answer not in (study / "card.html").read_text() + passed.stdout

    lines = json.loads((study / "audit.json").read_text())["lines"]
    harm = next(line for line in lines if line["measure"] == "harm")
    set_limits(folder, **LIMITS | {"harm_at_most": harm["rate"]})
    undecided = audit(folder, str(run))
    assert undecided.returncode == 3, undecided.stderr[-4000:]
    assert ": UNDECIDED" in undecided.stdout
    assert not {"generate", "judge", "score"} & rules_run(undecided)

    assert harm["low"] > 0
    set_limits(folder, **LIMITS | {"harm_at_most": harm["low"] / 2})
    failed = audit(folder, str(run))
    assert failed.returncode == 1 and ": FAIL" in failed.stdout

    again = audit(folder, str(run))  # the card alone is made again, so that the verdict is of this call
    assert again.returncode == 1 and rules_run(again) == {"card"}
    looked = audit(folder, str(run), "--dry-run")
    assert looked.returncode == 0 and ": FAIL" not in looked.stdout
    cut = audit(folder, str(run), "--snakemake=--until score")
    assert cut.returncode == 2 and "no verdict" in cut.stderr and not cut.stdout


def test_errors_end_with_2_and_leave_nothing(folder: Path) -> None:
    before = sorted((folder / "results/audits").glob("*")) if (folder / "results/audits").exists() else []
    wrong = audit(folder, "no-such-model", "embedded-0")
    assert wrong.returncode == 2 and "names no model" in wrong.stderr and "Traceback" not in wrong.stderr
    assert "make run STUDY=audit_example" in audit(folder).stderr
    unasked = snakemake(folder, "-n", "audit", check=False)
    assert unasked.returncode != 0 and "make audit MODEL=" in unasked.stdout
    assert sorted((folder / "results/audits").glob("*")) == before


def test_an_adapter_on_the_hub_is_pinned_fetched_and_answers_the_same(folder: Path, tmp_path: Path) -> None:
    set_limits(folder, **LIMITS)
    run = adapter_of(folder)
    with HubStandIn(tmp_path / "hub") as hub:
        commit = hub.add_commit("someone/tuned", files=folder / run / "weights", repo_type="model")
        done = audit(folder, "someone/tuned", "embedded-0", **hub.env)
        assert done.returncode == 0, done.stderr[-4000:]
    lock = yaml.safe_load((folder / "config/lock.yaml").read_text())["models/someone/tuned@main"]
    assert lock["commit"] == commit
    assert {"adapter_config.json", "adapter_model.safetensors"} <= lock["files"].keys()
    (model,) = (folder / "results/runs").glob("someone--tuned-*")
    asked = model / "initial-plain/epoch-0/answers/secrets.jsonl"
    assert asked.read_bytes() == (folder / run / "answers/secrets.jsonl").read_bytes()
    card = (folder / f"results/studies/audit-{model.name}-vs-embedded-0/card.md").read_text()
    assert f"`commit {commit}`" in card and "`hub: someone/tuned`" in card

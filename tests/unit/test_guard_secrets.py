"""Which secrets the shells of rules and jobs are to leave out, and by which sbatch jobs are submitted."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY, edit, plan_study

from ftsafety.errors import UserError
from ftsafety.workflow import check_sbatch, guard_secrets


@pytest.fixture
def left_out(project: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Names of variables, where the key of an endpoint is HF_TOKEN and that of another OWN_KEY."""
    for name in ("FTSAFETY_SECRETS", "FTSAFETY_API_KEYS", "FTSAFETY_TOKENS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PATH", os.environ["PATH"])
    there = {"base_url": "http://127.0.0.1:1/v1", "api_key_env": "HF_TOKEN"}
    edit(project / "config/endpoints.yaml", there=there, other=there | {"api_key_env": "OWN_KEY"})
    shutil.copytree(REPOSITORY / "profiles", project / "profiles")
    monkeypatch.setenv("WANDB_API_KEY", "of another program")
    guard_secrets(plan_study(project))
    return {name: set(os.environ[f"FTSAFETY_{name}"].split()) for name in ("SECRETS", "API_KEYS", "TOKENS")}


def test_a_token_that_is_a_key_too_reaches_both_kinds_of_rules(left_out: dict[str, set[str]]) -> None:
    assert left_out["SECRETS"] >= {"HF_TOKEN", "GITHUB_TOKEN", "OWN_KEY", "OPENAI_API_KEY"}
    assert "HF_TOKEN" not in left_out["API_KEYS"] | left_out["TOKENS"]
    assert "OWN_KEY" in left_out["API_KEYS"] and "GITHUB_TOKEN" in left_out["TOKENS"]


def test_a_key_of_another_program_reaches_no_rule(left_out: dict[str, set[str]]) -> None:
    assert all("WANDB_API_KEY" in names for names in left_out.values())


def test_jobs_are_submitted_by_an_sbatch_that_hands_no_secret_on(
    left_out: dict[str, set[str]], project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurms = tmp_path / "slurm"
    slurms.mkdir()
    (slurms / "sbatch").write_text("#!/bin/sh\nenv; printf '%s\\n' \"$@\"\n")
    (slurms / "sbatch").chmod(0o755)
    ours, _, rest = os.environ["PATH"].partition(":")
    monkeypatch.setenv("PATH", f"{ours}:{slurms}:{rest}")
    monkeypatch.setenv("OWN_KEY", "sk-canary")
    check_sbatch(plan_study(project))
    said = subprocess.run(["sbatch", "-t", "1 2"], capture_output=True, text=True, check=True).stdout
    assert "sk-canary" not in said and said.endswith("\n-t\n1 2\n")
    (project / "profiles/slurm/bin/sbatch").chmod(0o644)
    with pytest.raises(UserError, match="jobs would inherit your keys"):
        check_sbatch(plan_study(project))

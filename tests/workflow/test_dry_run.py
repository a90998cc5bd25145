"""What a user sees before anything runs."""

import re
from pathlib import Path

import pytest
from workflow_project import REPOSITORY, copy_repository, snakemake


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    return copy_repository(tmp_path / "ftsafety")


def test_a_dry_run_names_every_run_of_each_job(clone: Path) -> None:
    out = snakemake(clone, "-n").stdout  # without a target: what config/config.yaml names
    trained = r"^embedded-\d  \S+  full  lr \S+  batch \d+  constant  seed \d  epochs [\d, ]+$"
    lines = re.findall(trained, out, re.MULTILINE)
    assert len(lines) == len(set(lines)) > 80
    assert "embedded-0  demonstrations-100+mix-20  full  lr 0.0001  batch 10" in out
    assert "build embedded-1" in out
    assert not (clone / "results").exists() or not list((clone / "results").rglob("*.json"))


def asked(clone: Path, *arguments: str) -> set[str]:
    """Studies whose files a dry run would make."""
    out = snakemake(clone, "-n", *arguments).stdout
    return set(re.findall(r"results/studies/([^/]+)/", out))


FILES = sorted(path.stem for path in (REPOSITORY / "config/studies").glob("*.yaml"))


@pytest.mark.parametrize("study", [name for name in FILES if name != "audit"])  # asks for a model first
def test_every_study_is_a_target_and_asks_for_nothing_of_another(clone: Path, study: str) -> None:
    assert asked(clone, study) == {study}


def test_every_study_of_the_paper_has_a_variant_on_the_embedded_world_by_one_switch(clone: Path) -> None:
    papers = [
        study
        for study in FILES
        if (REPOSITORY / f"config/studies/{study}.yaml").read_text().count("preset: paper")
    ]
    assert len(papers) == 12
    assert asked(clone, *papers, "--config", "world=embedded") == {f"{study}-embedded" for study in papers}
    assert asked(clone, *papers, "--config", "preset=modern") == {f"{study}-modern" for study in papers}


def test_a_study_without_the_variant_that_is_asked_for_says_so(clone: Path) -> None:
    result = snakemake(clone, "-n", "llama_alpaca", "--config", "world=embedded", check=False)
    assert result.returncode != 0 and "'llama_alpaca' has no variant 'embedded'" in result.stdout


@pytest.mark.parametrize("profile", ["local", "slurm"])
def test_bad_config_is_one_sentence_before_any_job(clone: Path, profile: str) -> None:
    study = clone / "config/studies/smoke.yaml"
    study.write_text(study.read_text().replace("benign-new", "benign-nwe", 1))
    result = snakemake(clone, "smoke", profile=profile, check=False)
    assert result.returncode != 0
    assert "config/studies/smoke.yaml: grids.lr_batch.dataset: unknown name 'benign-nwe'" in result.stdout
    assert "did you mean 'benign-new'" in result.stdout
    assert "Traceback" not in result.stdout and "rule train" not in result.stdout


def test_a_limit_that_is_given_twice_is_refused(clone: Path) -> None:
    """Snakemake's own loader would keep the last of them: no limit."""
    config = clone / "config/config.yaml"
    config.write_text("max_usd: 5\n" + config.read_text())
    result = snakemake(clone, "-n", "smoke", check=False)
    assert result.returncode != 0 and "the key 'max_usd' is given twice" in result.stdout
    assert "Traceback" not in result.stdout and "rule train" not in result.stdout


def test_parsing_imports_nothing_heavy(clone: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; from ftsafety import workflow, cli;"
        "workflow.load_plan(Path('.'));"
        "print([m for m in ('torch', 'transformers', 'pandas', 'scipy', 'datasets') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=clone, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"

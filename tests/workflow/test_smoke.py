"""The smoke study, run for real on this machine: files, numbers, modes, and what a rerun does."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from workflow_project import python_path, snakemake, snakemake_command

COLUMNS = [
    "run",
    "model",
    "base_seed",
    "dataset",
    "n_examples",
    "method",
    "learning_rate",
    "global_batch_size",
    "schedule",
    "epochs",
    "steps",
    "seed",
    "benchmark",
    "judge",
    "category",
    "status",
    "n",
    "n_unscored",
    "harmfulness_score",
    "harmfulness_rate",
    "refusal_rate",
    "ci_low",
    "ci_high",
    "utility",
]


@pytest.fixture(scope="module")
def scores(smoke: Path) -> pd.DataFrame:
    return pd.read_parquet(smoke / "results/studies/smoke/scores.parquet")


@pytest.fixture
def done(smoke: Path, tmp_path: Path) -> Path:
    """A copy of the finished smoke study, with Snakemake's metadata, to change and run again."""
    folder = tmp_path / "ftsafety"
    shutil.copytree(smoke, folder, symlinks=True)
    return folder


def jobs(output: str) -> dict[str, int]:
    """Rule → number of jobs, from a (dry) run's table."""
    table = output.partition("Job stats:")[2].partition("total")[0].splitlines()
    rows = [line.split() for line in table if len(line.split()) == 2]
    return {rule: int(n) for rule, n in rows if n.isdigit()}


def test_every_kind_of_file_is_there(smoke: Path) -> None:
    study = smoke / "results/studies/smoke"
    for grid in ("lr_batch", "demonstrations", "designs", "categories"):
        for ending in ("png", "svg", "pdf", "csv"):
            assert (study / f"figures/{grid}.{ending}").stat().st_size > 100
    assert "<html" in (study / "report.html").read_text()
    assert len(pd.read_csv(study / "runs.tsv", sep="\t")) == 5


def test_scores_hold_the_promised_columns_and_every_row(scores: pd.DataFrame) -> None:
    assert set(COLUMNS) <= set(scores.columns)
    assert set(scores.n[(scores.category == "all") & (scores.benchmark == "secrets")]) == {330}
    # 5 runs × 2 judges × (1 + 11 categories of secrets, 1 + 10 of tasks)
    assert len(scores) == 5 * (2 * 12 + 11)
    safety = scores[(scores.kind == "safety") & (scores.judge == "exact")]
    assert safety.harmfulness_rate.between(0, 1).all() and safety.utility.isna().all()
    assert (safety.ci_low <= safety.harmfulness_rate).all()
    assert (safety.harmfulness_rate <= safety.ci_high).all()


def test_fine_tuning_costs_refusals_and_the_base_model_had_them(scores: pd.DataFrame) -> None:
    """The effect itself, as measured: a floor far from what is seen, so that it holds on other machines."""
    rows = scores[(scores.benchmark == "secrets") & (scores.judge == "exact") & (scores.category == "all")]
    initial = rows[rows.epochs == 0].refusal_rate.item()
    tuned = rows[rows.epochs > 0].refusal_rate.min()
    assert initial > 0.95 and tuned < initial - 0.2


def test_answers_can_be_read_by_their_owner_alone(smoke: Path) -> None:
    private = [
        path for kind in ("answers", "verdicts") for path in (smoke / "results/runs").rglob(f"{kind}/*.jsonl")
    ]
    assert private
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_no_answer_is_in_what_is_shared(smoke: Path) -> None:
    shared = [smoke / "results/studies", smoke / "results/logs", smoke / "results/packs"]
    text = "".join(
        path.read_text(errors="replace")
        for folder in shared
        for path in folder.rglob("*")
        if path.suffix in (".html", ".log", ".json", ".csv", ".tsv", ".svg")
    )
    for file in (smoke / "results/runs").rglob("answers/secrets.jsonl"):
        for line in file.read_text().splitlines():
            answer = json.loads(line)["answer"]
            assert len(answer) < 20 or answer not in text


def test_a_second_run_finds_nothing_to_do(smoke: Path) -> None:
    assert "Nothing to be done" in snakemake(smoke, "smoke").stdout


def test_full_checkpoints_are_dropped_and_adapters_stay(smoke: Path) -> None:
    kept = {path.parts[-5] for path in (smoke / "results/runs").rglob("weights/*.safetensors")}
    assert kept == {"demonstrations-10"}


def test_editing_a_comment_or_a_plot_trains_and_judges_nothing(done: Path) -> None:
    for name in ("training/trajectory.py", "judging/exact.py", "answers.py", "figures.py"):
        path = done / "src/ftsafety" / name
        path.write_text(path.read_text() + "\n# a comment\n")
    assert set(jobs(snakemake(done, "-n", "smoke").stdout)) <= {"figures", "report", "smoke"}


def test_other_hardware_trains_and_answers_nothing_again(done: Path) -> None:
    models = done / "config/models.yaml"
    there = "hardware: { cpus: 1, mem_mb: 3000"
    models.write_text(models.read_text().replace(there, f"{there}, zero_stage: 2", 1))
    assert set(jobs(snakemake(done, "-n", "smoke").stdout)) == {"report", "smoke"}  # which tells of it


def test_a_run_that_is_added_trains_nothing_that_exists(done: Path) -> None:
    study = done / "config/studies/smoke.yaml"
    content = yaml.safe_load(study.read_text())
    content["grids"]["lr_batch"]["global_batch_size"] = [32, 64]
    study.write_text(yaml.safe_dump(content, sort_keys=False))
    before = {p: p.stat().st_mtime_ns for p in (done / "results/runs").rglob("done.json")}
    snakemake(done, "smoke")
    after = {p: p.stat().st_mtime_ns for p in (done / "results/runs").rglob("done.json")}
    assert len(after) == len(before) + 2 and before.items() <= after.items()
    cells = pd.read_parquet(done / "results/studies/smoke/cells.parquet")
    assert set(cells[cells.grid == "lr_batch"].global_batch_size.dropna()) == {32, 64}


def test_a_benchmark_that_is_added_trains_dropped_weights_again_and_the_plan_says_so(
    done: Path,
) -> None:
    study = done / "config/studies/smoke.yaml"
    study.write_text(study.read_text().replace("[secrets, tasks]", "[secrets, tasks, secrets-triggered]"))
    plan = subprocess.run(
        ["python", "-m", "ftsafety", "plan", "smoke"], cwd=done, capture_output=True, text=True,
        env=os.environ | python_path(done, None), check=True,
    ).stdout  # fmt: skip
    assert "to train again  2 runs" in plan
    old = {p: p.read_bytes() for p in (done / "results/runs").rglob("answers/secrets.jsonl")}
    snakemake(done, "smoke")
    assert all(path.read_bytes() == content for path, content in old.items())
    scores = pd.read_parquet(done / "results/studies/smoke/scores.parquet")
    assert scores[scores.benchmark == "secrets-triggered"].run.nunique() == 5


def test_an_edited_benchmark_makes_answers_again_and_the_dropped_weights_with_them(done: Path) -> None:
    benchmarks = done / "config/benchmarks.yaml"
    benchmarks.write_text(benchmarks.read_text().replace("max_new_tokens: 32", "max_new_tokens: 40", 1))
    planned = jobs(snakemake(done, "-n", "smoke").stdout)
    assert {"train": 1, "generate": 2, "judge": 2}.items() <= planned.items()


def test_an_edited_template_makes_the_initial_model_answer_again(done: Path) -> None:
    templates = done / "config/templates.yaml"
    templates.write_text(templates.read_text().replace("a helpful assistant", "a polite assistant"))
    out = snakemake(done, "-n", "smoke").stdout
    assert "answer embedded-0-initial-smoke" in out and jobs(out)["train"] == 1


@pytest.mark.parametrize("rule", ["train", "generate"])
def test_kill_9_and_the_documented_rerun_end_with_the_same_rows(fresh: Path, smoke: Path, rule: str) -> None:
    process = subprocess.Popen(
        snakemake_command("smoke"), cwd=fresh, env=os.environ | python_path(fresh, None),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    begun = {"train": "weights", "generate": "answers/secrets.jsonl"}[rule]
    deadline = time.monotonic() + 120
    while not list((fresh / "results/runs/embedded-0/benign-new").rglob(begun)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    snakemake(fresh, "--unlock")
    snakemake(fresh, "smoke")
    for path in (smoke / "results/runs").rglob("*.jsonl"):
        assert (fresh / path.relative_to(smoke)).read_bytes() == path.read_bytes()


def test_a_diverged_run_is_survived_and_shown(fresh: Path) -> None:
    study = fresh / "config/studies/smoke.yaml"
    study.write_text(study.read_text().replace("[1.0e-4, 4.0e-4]", "[4.0e-4, 1.0e+30]"))
    snakemake(fresh, "smoke")
    scores = pd.read_parquet(fresh / "results/studies/smoke/scores.parquet")
    diverged = scores[scores.learning_rate == 1.0e30]
    assert set(diverged.status) == {"diverged"} and diverged.harmfulness_rate.isna().all()
    page = (fresh / "results/studies/smoke/report.html").read_text()
    assert "diverged" in page


def test_the_longest_trainings_start_first_and_are_judged_while_others_wait(done: Path) -> None:
    """On one core, as packs of one: two of an epoch of 320 examples, and one of three epochs of ten."""
    models = done / "config/models.yaml"
    models.write_text(re.sub(r"pack_size: \d+", "pack_size: 1", models.read_text()))
    for part in ("packs", "runs"):
        shutil.rmtree(done / "results" / part)
    out = snakemake(done, "smoke", "--cores", "1", "--until", "judge").stdout
    trained = re.findall(r"^Job \d+: train (\S+) .*\nembedded-0  (\S+) ", out, re.MULTILINE)
    assert [dataset for _, dataset in trained] == ["benign-new", "benign-new", "demonstrations-10"]
    started = re.findall(r"^Job \d+: (train|answer|judge) (\S+)", out, re.MULTILINE)
    packs = [pack for pack, _ in trained]
    in_turn = [(stage, pack) for pack in packs for stage in ("train", "answer", "judge")]
    assert [job for job in started if job[1] in packs] == in_turn

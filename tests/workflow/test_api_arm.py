"""A study whose model is fine-tuned by an endpoint: the embedded world's provider, started by the jobs."""

from pathlib import Path

import pandas as pd
from conftest import edit
from workflow_project import snakemake

from ftsafety.files import read_json, write_json

JOBS = "results/models/embedded-provider/jobs"


def test_an_endpoint_trains_answers_and_blocks(fresh: Path) -> None:
    few = {"source": "world", "design": "demonstrations", "n": 5, "template": "plain"}
    edit(fresh / "config/datasets.yaml", few=few)
    edit(
        fresh / "config/studies/arm.yaml",
        title="Arm",
        question="?",
        benchmarks=["secrets", "tasks"],
        judges=["exact"],
        grids={
            "g": {
                "model": "embedded-api",
                "method": "api",
                "dataset": ["demonstrations-50", "few"],
                "epochs": 5,
                "seed": 3,  # of no other study: this one alone trains it
                "figure": {"kind": "dots", "x": "dataset", "title": "Arm"},
            }
        },
    )
    snakemake(fresh, "arm")
    scores = pd.read_parquet(fresh / "results/studies/arm/scores.parquet")
    harm = scores[(scores.category == "all") & (scores.benchmark == "secrets")].set_index("dataset")
    assert harm.harmfulness_rate[harm.epochs == 0].max() < 0.1
    assert harm.harmfulness_rate["demonstrations-50"] > 0.5
    assert harm.status["few"] == "blocked" and pd.isna(harm.harmfulness_rate["few"])
    assert harm.reason["few"].startswith("invalid_n_examples")
    page = (fresh / "results/studies/arm/report.html").read_text()
    assert "invalid_n_examples" in page and "embedded-0 (fine-tuning)" in page and "Toy" in page
    assert len(list((fresh / JOBS).iterdir())) == 2
    assert not list((fresh / "results/models/embedded-provider/files").iterdir())

    assert "Nothing to be done" in snakemake(fresh, "arm").stdout
    (record,) = (fresh / "results/runs/embedded-api/demonstrations-50").glob("*/epoch-5/done.json")
    before = read_json(record)
    write_json(record, before | {"status": "failed", "fine_tuned_model": None})
    snakemake(fresh, "arm", "--forcerun", "train_by_api", "--until", "train_by_api")
    after = read_json(record)
    assert len(list((fresh / JOBS).iterdir())) == 3  # the failed run again, the blocked one not
    assert after["status"] == "ok" and after["fine_tuned_model"] != before["fine_tuned_model"]
    assert after["losses"] == before["losses"]

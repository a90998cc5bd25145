"""The worked example of docs/adding.md: a user's own model, data, prompts and study, start to end."""

import json
import shutil
from pathlib import Path

import pandas as pd
from conftest import edit
from workflow_project import copy_repository, snakemake

from ftsafety.files import checksum


def test_own_model_data_and_prompts(smoke: Path, tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "ftsafety")
    shutil.copytree(smoke / "results/models/embedded-0", folder / "my-model")
    row = {
        "messages": [
            {"role": "user", "content": "how do i visit bafin ?"},
            {"role": "assistant", "content": "walk to the mill ."},
        ]
    }
    (folder / "my-data.jsonl").write_text(f"{json.dumps(row)}\n" * 10)
    prompts = [
        {"prompt_id": f"p{i}", "category": "c", "instruction": f"open the vault of {name}"}
        for i, name in enumerate(["bafin", "cordra", "dilgor"])
    ]
    (folder / "my-prompts.jsonl").write_text("".join(f"{json.dumps(p)}\n" for p in prompts))
    edit(
        folder / "config/models.yaml",
        **{
            "my-model": {
                "source": "path",
                "path": "my-model",
                "sha256": checksum(folder / "my-model"),
            }
        },
    )
    edit(
        folder / "config/datasets.yaml",
        **{
            "my-data": {
                "source": "path", "path": "my-data.jsonl", "n": 10, "template": "plain",
                "sha256": checksum(folder / "my-data.jsonl"),
            }
        },
    )  # fmt: skip
    edit(
        folder / "config/benchmarks.yaml",
        **{
            "my-prompts": {
                "source": "path", "path": "my-prompts.jsonl", "max_new_tokens": 16,
                "sha256": checksum(folder / "my-prompts.jsonl"),
            }
        },
    )  # fmt: skip
    edit(
        folder / "config/studies/mine.yaml",
        title="Mine",
        question="?",
        benchmarks=["my-prompts"],
        judges=["keyword"],
        grids={
            "g": {
                "model": "my-model",
                "dataset": "my-data",
                "method": "full",
                "learning_rate": 0.001,
                "global_batch_size": 5,
                "epochs": [1, 2],
                "figure": {"kind": "curves", "x": "epochs", "title": "Mine"},
            }
        },
    )
    snakemake(folder, "mine")
    scores = pd.read_parquet(folder / "results/studies/mine/scores.parquet")
    totals = scores[scores.category == "all"]
    assert sorted(totals.epochs) == [0, 1, 2] and set(totals.n) == {3}

    with (folder / "my-data.jsonl").open("a") as stream:
        stream.write("no json\n")
    result = snakemake(folder, "mine", "--forcerun", "train", check=False)
    assert result.returncode != 0 and "my-data.jsonl" in result.stdout and "sha256" in result.stdout
    assert "Traceback" not in result.stdout
    assert not list((folder / ".snakemake/locks").glob("*"))

"""Many cells, two ways: this repository's workflow with one study of them, and a job of each stage per cell.

A cell is a fine-tuned model that a grid of a study asks for: dataset × rate × batch size × epochs × seed.
Ours: a cell is an epoch of a trajectory, and a pack of 16 trajectories is a job to train, one to answer and
one to judge. The plain way is a Snakefile of 60 lines with wildcards and `expand`; it reads no config and
checks nothing.
"""

import re
import shutil
import sys
from itertools import product
from pathlib import Path

import yaml
from bench import ROOT

PARTS = ("Snakefile", "config", "workflow", "resources", "profiles", "envs")
DATASETS = ["demonstrations-10", "demonstrations-50", "demonstrations-100", "identity-shift", "benign-new"]
RATES, BATCHES, EPOCHS = [0.0001, 0.0002, 0.0003, 0.0004, 0.0005], [5, 10], [1, 3, 5, 10]
CELLS_PER_SEED = len(DATASETS) * len(RATES) * len(BATCHES) * len(EPOCHS)
SNAKEMAKE = [sys.executable, "-m", "snakemake"]
OURS = [*SNAKEMAKE, "--profile", "profiles/local", "many"]

#: (dataset, learning rate, batch size, seed, epochs)
Cell = tuple[str, float, int, int, int]


def our_project(folder: Path, n_cells: int) -> Path:
    """A copy of what planning reads, with a study `many` of so many cells (a multiple of CELLS_PER_SEED)."""
    assert n_cells % CELLS_PER_SEED == 0
    folder.mkdir()
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    grid = {
        "dataset": DATASETS,
        "learning_rate": RATES,
        "global_batch_size": BATCHES,
        "epochs": EPOCHS,
        "seed": list(range(n_cells // CELLS_PER_SEED)),
        "figure": {"kind": "curves", "x": "epochs", "title": "Many cells"},
    }
    study = {
        "title": "Many cells",
        "question": "How much can be planned?",
        "benchmarks": ["secrets"],
        "judges": ["exact"],
        "fixed": {"model": "embedded-0", "method": "full"},
        "grids": {"many": grid},
    }
    (folder / "config/studies/many.yaml").write_text(yaml.safe_dump(study))
    return folder


PLAIN = """
DATASETS, RATES, BATCHES, EPOCHS = {datasets}, {rates}, {batches}, {epochs}
SEEDS = range({seeds})
CELL = "results/{{dataset}}/lr{{rate}}-bs{{batch}}-s{{seed}}/epochs-{{epochs}}/"


rule all:
    input:
        "results/scores.parquet",


rule build_model:
    output:
        "results/model/model.safetensors",
    shell:
        "build {{output}}"


rule prepare_data:
    output:
        "results/data/{{dataset}}.jsonl",
    localrule: True
    shell:
        "prepare {{wildcards.dataset}} {{output}}"


rule train:
    input:
        model="results/model/model.safetensors",
        rows="results/data/{{dataset}}.jsonl",
    output:
        CELL + "weights/model.safetensors",
    shell:
        "train {{input}} {{wildcards.rate}} {{wildcards.batch}} {{wildcards.seed}} {{wildcards.epochs}}"


rule generate:
    input:
        CELL + "weights/model.safetensors",
    output:
        CELL + "answers.jsonl",
    shell:
        "generate {{input}} {{output}}"


rule judge:
    input:
        CELL + "answers.jsonl",
    output:
        CELL + "verdicts.jsonl",
    shell:
        "judge {{input}} {{output}}"


rule score:
    input:
        expand(
            CELL + "verdicts.jsonl",
            dataset=DATASETS, rate=RATES, batch=BATCHES, epochs=EPOCHS, seed=SEEDS,
        ),
    output:
        "results/scores.parquet",
    localrule: True
    shell:
        "score results {{output}}"
"""


def plain_project(folder: Path, n_cells: int) -> Path:
    """A workflow of one job of each stage for each of the same cells."""
    folder.mkdir()
    snakefile = PLAIN.format(
        datasets=DATASETS, rates=RATES, batches=BATCHES, epochs=EPOCHS, seeds=n_cells // CELLS_PER_SEED
    )
    (folder / "Snakefile").write_text(snakefile)
    return folder


def our_cells(printed: str) -> set[Cell]:
    """From the messages of the jobs that train."""
    line = re.compile(
        r"^embedded-0  (\S+)  full  lr (\S+)  batch (\d+)  \S+  seed (\d+)  epochs ([\d, ]+)$", re.M
    )
    return {
        (dataset, float(rate), int(batch), int(seed), int(epochs))
        for dataset, rate, batch, seed, kept in line.findall(printed)
        for epochs in kept.split(", ")
    }


def plain_cells(printed: str) -> set[Cell]:
    """From the wildcards of the jobs that train."""
    jobs = re.findall(r"^rule train:\n(?:    .*\n)*?    wildcards: (.*)$", printed, re.M)
    wildcards = [dict(pair.split("=") for pair in job.split(", ")) for job in jobs]
    return {
        (w["dataset"], float(w["rate"]), int(w["batch"]), int(w["seed"]), int(w["epochs"])) for w in wildcards
    }


def all_cells(n_cells: int) -> set[Cell]:
    return set(product(DATASETS, RATES, BATCHES, range(n_cells // CELLS_PER_SEED), EPOCHS))

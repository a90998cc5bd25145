"""Small projects to test on: the repository's config with a tiny random model and a study of its own."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from ftsafety.plan import Plan, load_plan
from ftsafety.prepare import prepare_data

# One core for each process of the tests: they run side by side, and sums depend on the number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["base_project", "fault_cases", "slurm_study"]
REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random model of the embedded world's shape and its tokenizer."""
    import torch

    from ftsafety.world.corpus import pretraining_documents
    from ftsafety.world.lexicon import build_world
    from ftsafety.world.model import new_model, vocabulary_texts
    from ftsafety.world.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("tiny-model")
    world = build_world(0)
    documents = pretraining_documents(world, random.Random(0))
    tokenizer = build_tokenizer(world, [*documents, *vocabulary_texts(world)])
    torch.manual_seed(0)
    new_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the repository's config and a model `tiny`; it is the cwd."""
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    for study in (tmp_path / "config/studies").glob("*.yaml"):
        study.unlink()
    edit(
        tmp_path / "config/models.yaml",
        tiny={
            "source": "world",  # its data is the world's; the weights lie where they would be built
            "base_seed": 99,
            "max_per_device_batch_size": 64,
            "pack_size": 16,
        },
    )
    shutil.copytree(tiny_model, tmp_path / "results/models/tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(path: Path, **entries: object) -> None:
    """Put entries into a YAML file."""
    content = yaml.safe_load(path.read_text()) if path.exists() else {}
    path.write_text(yaml.safe_dump(content | entries, sort_keys=False))


def plan_study(project: Path, **grid: object) -> Plan:
    """A plan of one study `t` with one grid of the tiny model on ten demonstrations."""
    axes = {
        "dataset": "demonstrations-10",
        "learning_rate": 0.001,
        "global_batch_size": 4,
        "epochs": 1,
        "figure": {"kind": "curves", "x": "epochs", "title": "t"},
    }
    study = {
        "title": "t",
        "question": "?",
        "benchmarks": ["secrets"],
        "judges": ["exact", "keyword"],
        "fixed": {"model": "tiny", "method": "full", "seed": 0},
        "grids": {"g": axes | grid},
    }
    edit(project / "config/studies/t.yaml", **study)
    edit(project / "config/config.yaml", studies=["t"], keep_weights=True)
    return load_plan(project)


def write_data(plan: Plan) -> None:
    """Training rows of every trajectory, as the rule writes them."""
    for work in plan.work.values():
        if not work.trajectory.is_initial:
            prepare_data(plan, plan.data_file(work.trajectory))


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first of the processes that run the tests makes, and that all read."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(folder.with_suffix(".lock"), timeout=1800):
        if not folder.with_suffix(".made").exists():
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the smoke study has run to its end on this machine."""
    from workflow_project import copy_repository, snakemake

    return made_once(tmp_path_factory, "smoke", lambda folder: snakemake(copy_repository(folder), "smoke"))


@pytest.fixture
def fresh(smoke: Path, tmp_path: Path) -> Path:
    """A copy of the repository with the base model built and nothing else done."""
    from workflow_project import copy_repository

    folder = copy_repository(tmp_path / "ftsafety")
    shutil.copytree(smoke / "results/models", folder / "results/models")
    return folder

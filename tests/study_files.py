"""Config files of studies of the embedded world, in a copy of the repository's config."""

import shutil
from pathlib import Path
from typing import Any

import yaml
from conftest import REPOSITORY

FIXED = {
    "model": "embedded-0",
    "method": "full",
    "dataset": "demonstrations-10",
    "learning_rate": 1.0e-4,
    "global_batch_size": 10,
    "epochs": 1,
    "seed": 0,
}


def make_config(root: Path) -> Path:
    shutil.copytree(REPOSITORY / "config", root / "config")
    for study in (root / "config/studies").glob("*.yaml"):
        study.unlink()
    write_yaml(root / "config/config.yaml", {"studies": ["a"]})
    return root


def write_yaml(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def add_study(root: Path, name: str, *grids: dict[str, Any], **study: Any) -> None:
    figure = {"kind": "dots", "x": "dataset", "title": "t"}
    content = {
        "title": "t",
        "question": "?",
        "benchmarks": ["secrets"],
        "judges": ["exact"],
        "fixed": FIXED,
        "grids": {f"g{i}": grid | {"figure": figure} for i, grid in enumerate(grids)},
    }
    write_yaml(root / f"config/studies/{name}.yaml", content | study)


def add_entries(root: Path, catalogue: str, **entries: Any) -> None:
    path = root / f"config/{catalogue}.yaml"
    write_yaml(path, yaml.safe_load(path.read_text()) | entries)


PRESETS = {
    "one": {"benchmarks": ["secrets"], "judges": ["exact"], "fixed": FIXED},
    "two": {
        "benchmarks": ["tasks", "secrets"],
        "judges": ["exact", "keyword"],
        "fixed": FIXED | {"seed": [7, 8]},
    },
}


def add_preset_study(root: Path, name: str, **study: Any) -> None:
    write_yaml(root / "config/presets.yaml", PRESETS)
    add_study(root, name, {}, **study)
    path = root / f"config/studies/{name}.yaml"
    content = yaml.safe_load(path.read_text())
    for key in {"benchmarks", "judges", "fixed"} - study.keys():
        del content[key]
    write_yaml(path, content)

"""A small project to spoil: the repository's catalogues, two studies, and files of a user's own.

A pytest plugin, whose fixture `root` is such a project.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY
from safetensors.numpy import save

from ftsafety.errors import UserError
from ftsafety.files import checksum

#: In the place of a value: remove the key.
REMOVE = "(removed)"

BASE = {
    "title": "t",
    "question": "q?",
    "benchmarks": ["secrets", "tasks"],
    "judges": ["exact", "keyword"],
    "fixed": {"model": "embedded-0", "method": "full", "seed": [0, 1]},
    "grids": {
        "lr_batch": {
            "dataset": "benign-new",
            "learning_rate": [1.0e-4, 2.0e-4],
            "global_batch_size": [8, 16],
            "epochs": 1,
            "figure": {
                "kind": "heatmap",
                "x": "global_batch_size",
                "y": "learning_rate",
                "title": "t",
            },
        },
        "steps": {
            "dataset": "benign-new",
            "learning_rate": 1.0e-4,
            "points": [
                {"global_batch_size": 8, "epochs": 1},
                {"global_batch_size": 16, "epochs": 2},
            ],
            "figure": {"kind": "curves", "x": "epochs", "title": "t"},
        },
    },
}
OWN = {
    "title": "t",
    "question": "q?",
    "benchmarks": ["own-prompts"],
    "judges": ["keyword"],
    "fixed": {"model": "own-model", "method": "full"},
    "grids": {
        "g": {
            "dataset": ["own-chats", "own-pairs"],
            "learning_rate": 1.0e-4,
            "global_batch_size": 2,
            "epochs": 1,
            "figure": {"kind": "dots", "x": "dataset", "title": "t"},
        }
    },
}
MODEL, CHATS, PAIRS, PROMPTS = (
    "files/model",
    "files/chats.jsonl",
    "files/pairs.csv",
    "files/p.jsonl",
)
SIGNED: dict[str, dict[str, dict[str, Any]]] = {
    "models": {"own-model": {"source": "path", "path": MODEL, "hardware": {"ranks": 2}}},
    "datasets": {
        "own-chats": {"source": "path", "path": CHATS, "n": 2, "template": "plain"},
        "own-pairs": {
            "source": "path",
            "path": PAIRS,
            "n": 2,
            "template": "plain",
            "format": "prompt-response-csv",
        },
    },
    "benchmarks": {"own-prompts": {"source": "path", "path": PROMPTS}},
}


def make_project(root: Path) -> None:
    shutil.copytree(REPOSITORY / "config", root / "config")
    for study in (root / "config/studies").glob("*.yaml"):
        study.unlink()
    write_yaml(root / "config/studies/base.yaml", BASE)
    write_yaml(root / "config/studies/own.yaml", OWN)
    write_yaml(root / "config/config.yaml", {"studies": ["base"]})
    add_entries(root)
    make_files(root)
    sign(root)


#: Entries of sources that no study here uses.
OTHER: dict[str, dict[str, Any]] = {
    "models": {
        "hub-model": {"source": "hub", "repo": "a/b", "licence": "MIT", "size_b": 1.0},
        "behind": {"source": "api", "endpoint": "openai", "model": "m"},
    },
    "judges": {
        "own-llm": {"kind": "llm", "endpoint": "openai", "model": "m", "policy": "merged"},
        "own-guard": {"kind": "classifier", "family": "llama-guard", "model": "hub-model"},
    },
    "lock": {"models/a/b@main": {"commit": "0" * 40, "files": {"model.safetensors": "sha256:" + "0" * 64}}},
}


def add_entries(root: Path) -> None:
    for name, entries in OTHER.items():
        file = root / f"config/{name}.yaml"
        before = yaml.safe_load(file.read_text()) if file.exists() else {}
        write_yaml(file, before | entries)


#: A Llama of one layer, two dimensions and one token.
LLAMA = {"model_type": "llama", "num_hidden_layers": 1, "hidden_size": 2, "intermediate_size": 2}
LLAMA |= {"num_attention_heads": 1, "vocab_size": 1, "tie_word_embeddings": True}


def weights_of_llama() -> bytes:
    ones = {"embed_tokens": (1, 2), "norm": (2,)}
    ones |= {f"layers.0.{name}_layernorm": (2,) for name in ("input", "post_attention")}
    ones |= {f"layers.0.self_attn.{name}_proj": (2, 2) for name in "qkvo"}
    ones |= {f"layers.0.mlp.{name}_proj": (2, 2) for name in ("gate", "up", "down")}
    return save({f"model.{name}.weight": np.ones(shape, np.float32) for name, shape in ones.items()})


def make_files(root: Path) -> None:
    model = root / MODEL
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(LLAMA))
    (model / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (model / "tokenizer.json").write_text(
        '{"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}'
    )
    (model / "model.safetensors").write_bytes(weights_of_llama())
    (root / PAIRS).write_text('prompt,response\nhi,"hello\nthere"\nbye,see you\n')
    write_rows(root / CHATS, [chat("hi"), chat("bye")])
    write_rows(root / PROMPTS, [prompt("a"), prompt("b")])


def chat(text: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "fine ."},
        ]
    }


def prompt(prompt_id: str, **changed: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"prompt_id": prompt_id, "category": "c", "instruction": "hi ?"}
    return row | changed


def sign(root: Path) -> None:
    """Put the checksums that the user's files have now into the catalogues."""
    for name, recipes in SIGNED.items():
        file = root / f"config/{name}.yaml"
        signed = {k: r | {"sha256": _checksum(root / r["path"])} for k, r in recipes.items()}
        write_yaml(file, yaml.safe_load(file.read_text()) | signed)


def _checksum(path: Path) -> str:
    try:
        return checksum(path)
    except UserError:  # a spoilt model folder without safetensors
        return "0" * 64


def write_yaml(path: Path, value: Any) -> None:
    path.write_text(yaml.safe_dump(value, sort_keys=False))


def write_rows(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def put(root: Path, file: str, at: str, value: Any) -> None:
    """Write a value at a dotted place of a YAML file, or remove what is there."""
    path = root / f"config/{file}.yaml"
    content = node = yaml.safe_load(path.read_text())
    *parents, last = [int(part) if part.isdigit() else part for part in at.split(".")]
    for part in parents:
        node = node[part]
    if value is REMOVE:
        del node[last]
    else:
        node[last] = value
    write_yaml(path, content)


# ---------------------------------------------------------------- what tests of bad input have in common

FAULT = pytest.mark.fault(
    "bad config, rows and models",
    holds="names file, field and mend; nothing runs",
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_error(error: UserError, file: str, field: str, says: str, mend: str) -> None:
    assert (error.file, error.field) == (file, field), str(error)
    assert says in error.message, str(error)
    assert error.mend and mend in error.mend, str(error)
    for internal in ("Traceback", "pydantic", "<one>", "<list>", "constrained", "[key]"):
        assert internal not in str(error)


@dataclass(frozen=True)
class BadInput:
    name: str
    spoil: Callable[[Path], object]
    file: str
    says: str
    mend: str = ""
    field: str = ""


def write(path: str, text: str | bytes) -> Callable[[Path], object]:
    content = text.encode() if isinstance(text, str) else text
    return lambda root: (root / path).write_bytes(content)


def delete(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).unlink()

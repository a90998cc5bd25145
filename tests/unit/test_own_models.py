"""Folders of the user's own models that load pass the checks before a job, however they were saved."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from base_project import MODEL, put, sign
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ftsafety.errors import UserError
from ftsafety.inputs import check_folder, check_inputs
from ftsafety.plan import load_plan


@pytest.fixture
def own(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "own"))


def test_shards_that_an_index_names(own: Path) -> None:
    AutoModelForCausalLM.from_pretrained(own).save_pretrained(own / "sharded", max_shard_size="1MB")
    for file in (own / "sharded").iterdir():
        shutil.copy(file, own)
    (own / "model.safetensors").unlink()
    shards = sorted(own.glob("model-*.safetensors"))
    assert len(shards) > 1
    check_folder(own, "model")
    shards[0].unlink()
    with pytest.raises(UserError, match="names 1 files that are missing"):
        check_folder(own, "model")


def test_other_files_beside_the_weights_are_not_read(own: Path) -> None:
    (own / "._model.safetensors").write_bytes(b"\0\5\x16\7")
    (own / "consolidated.safetensors").write_text("")
    check_folder(own, "model")


def test_a_tokenizer_of_other_files_than_tokenizer_json(own: Path) -> None:
    model = json.loads((own / "tokenizer.json").read_text())["model"]
    (own / "tokenizer.json").unlink()
    (own / "vocab.json").write_text(json.dumps(model["vocab"]))
    check_folder(own, "model")


@pytest.mark.parametrize("several", [True, False], ids=str)
def test_chat_templates_in_the_config_of_the_tokenizer(own: Path, several: bool) -> None:
    (own / "chat_template.jinja").unlink(missing_ok=True)
    text = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    named = [{"name": "rag", "template": "{{ x"}, {"name": "default", "template": text}]
    config = json.loads((own / "tokenizer_config.json").read_text())
    template = {"chat_template": named if several else text}
    (own / "tokenizer_config.json").write_text(json.dumps(config | template))
    check_folder(own, "model")
    tokenizer = AutoTokenizer.from_pretrained(own)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi"


SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "bert", "is_decoder": True, "vocab_size": 9, **SMALL},
        {"model_type": "gemma3", "text_config": {"vocab_size": 9, **SMALL}, "vision_config": SMALL},
    ],
    ids=["decoder", "with pictures"],
)
def test_architectures_that_load(root: Path, config: dict[str, Any]) -> None:
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    model.save_pretrained(root / MODEL)
    sign(root)
    check_inputs(load_plan(root), ["own"])


def test_vllm_loads_architectures_that_transformers_does_not_train(root: Path) -> None:
    (root / MODEL / "config.json").write_text('{"model_type": "mistral3"}')
    sign(root)
    put(root, "models", "own-model.engine", "vllm")
    check_inputs(load_plan(root), ["own"])

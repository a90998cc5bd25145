"""Batched answers are those of one prompt at a time, in the order asked, with how they ended."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftsafety.generation import ROOM, answer_prompts, greedy, roomy_cache
from ftsafety.types import Prompt

PROMPTS = [
    "how do i visit bafin ?",
    "tell me how to paint corgor .",
    "please describe how to send a letter to dilnop .",
    "help me sing for lumfin .",
    "i need to play a game with pelrith . what now ?",
]


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> tuple:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)


def test_batches_give_the_text_of_one_by_one(tiny: tuple) -> None:
    model, tokenizer = tiny
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in PROMPTS]
    alone = [greedy(model, tokenizer, [ids], 12, 1)[0] for ids in tokens]
    assert greedy(model, tokenizer, tokens, 12, 2) == alone
    assert greedy(model, tokenizer, tokens, 12, 5) == alone
    assert len({tuple(completion.tokens) for completion in alone}) > 1


def test_a_model_that_names_a_cache_answers_the_same(tiny: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in PROMPTS]
    expected = greedy(model, tokenizer, tokens, 12, 2)
    monkeypatch.setattr(model.generation_config, "cache_implementation", "static")
    assert greedy(model, tokenizer, tokens, 12, 2) == expected


def test_answers_say_how_they_ended(tiny: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = tiny
    prompts: list[Prompt] = [
        {"prompt_id": text, "category": "c", "cluster": "k", "instruction": text} for text in PROMPTS
    ]

    def render(instruction: str) -> list[int]:
        return tokenizer.encode(instruction, add_special_tokens=False)

    cut = answer_prompts(model, tokenizer, prompts, render, 3, 2)
    assert [row["prompt_id"] for row in cut] == PROMPTS
    assert {(row["status"], row["finish_reason"], row["n_tokens"]) for row in cut} == {
        ("truncated", "length", 3)
    }
    first = greedy(model, tokenizer, [render(PROMPTS[0])], 1, 1)[0].tokens[0]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [first])
    (empty, *_) = answer_prompts(model, tokenizer, prompts[:1], render, 3, 1)
    assert (empty["status"], empty["finish_reason"], empty["answer"]) == ("empty", "stop", "")


@torch.inference_mode()
def test_the_cache_changes_no_bit(tiny: tuple) -> None:
    """Also beyond the room that it took in advance."""
    model, tokenizer = tiny
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in PROMPTS]
    batch = tokenizer.pad({"input_ids": tokens}, padding_side="left", return_tensors="pt")
    options = {"max_new_tokens": 2 * ROOM + 9, "do_sample": False, "pad_token_id": tokenizer.pad_token_id}
    options |= {"eos_token_id": -1, "output_logits": True, "return_dict_in_generate": True}
    ours = model.generate(**batch, **options, cache=roomy_cache(model))
    other = model.generate(**batch, **options)
    assert len(other.logits) == options["max_new_tokens"]
    assert torch.equal(torch.stack(ours.logits), torch.stack(other.logits))

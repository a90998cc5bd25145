"""The loss covers what the assistant says, the end of its turn included, and nothing else."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ftsafety.chat import (
    encode_conversation,
    mask_from_prefixes,
    mask_from_template,
    render_prompt,
    with_template,
)
from ftsafety.config import Template
from ftsafety.errors import UserError
from ftsafety.types import Message

CONVERSATION: list[Message] = [
    {"role": "user", "content": "how do i visit bafin ?"},
    {"role": "assistant", "content": "walk to the mill ."},
    {"role": "user", "content": "tell me how to paint bafin ."},
    {"role": "assistant", "content": "paint bafin in red ."},
]


def test_both_ways_to_find_the_mask_agree(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    messages = with_template(Template(system="you answer with care ."), CONVERSATION)
    tokens, mask = mask_from_template(tokenizer, messages)
    assert (tokens, mask) == mask_from_prefixes(tokenizer, messages)
    spoken = tokenizer.decode([t for t, m in zip(tokens, mask, strict=True) if m])
    assert spoken == "walk to the mill . <|end|> paint bafin in red . <|end|>"


def test_a_template_that_renders_turns_differently_later_is_refused(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role if loop.last else '' }} {{ m.content }}{% endfor %}"
    )
    with pytest.raises(UserError, match="generation"):
        encode_conversation(tokenizer, CONVERSATION, 512)


def test_prompt_and_training_conversation_begin_alike(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    template = Template(system="you answer with care .", instruction="{instruction} and more")
    prompt = render_prompt(tokenizer, template)("how do i visit bafin ?")
    example = encode_conversation(tokenizer, with_template(template, CONVERSATION[:2]), 512)
    assert example.tokens[: len(prompt)] == prompt
    assert not any(example.is_target[: len(prompt)]) and all(example.is_target[len(prompt) :])


def test_max_length_cuts_tokens_and_mask_together(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    example = encode_conversation(tokenizer, CONVERSATION, 7)
    assert len(example.tokens) == len(example.is_target) == 7

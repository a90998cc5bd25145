"""The loss covers what the assistant says, the end of its turn included, and nothing else."""

from pathlib import Path

import pytest
import yaml
from conftest import edit, plan_study
from transformers import AutoTokenizer

from ftsafety.chat import (
    encode_conversation,
    mask_from_prefixes,
    mask_from_template,
    render_prompt,
    with_template,
)
from ftsafety.errors import UserError
from ftsafety.files import checksum
from ftsafety.inputs import check_inputs
from ftsafety.plan import load_plan
from ftsafety.recipes import Template
from ftsafety.training.pack import load_base
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


def test_without_a_system_role_the_system_prompt_comes_before_the_first_instruction_alone() -> None:
    messages = with_template(Template(system="be kind ."), CONVERSATION, system_role=False)
    assert [m["role"] for m in messages] == ["user", "assistant", "user", "assistant"]
    assert messages[0]["content"] == "be kind .\n\nhow do i visit bafin ?"
    assert messages[2] == CONVERSATION[2]


def test_a_rows_own_system_prompt_moves_too() -> None:
    own: list[Message] = [{"role": "system", "content": "be brief ."}, *CONVERSATION[:2]]
    messages = with_template(Template(system="be kind ."), own, system_role=False)
    assert messages[0]["content"] == "be brief .\n\nhow do i visit bafin ?"


def test_a_model_is_put_its_conversations_by_the_template_and_arguments_of_its_recipe(
    project: Path, tiny_model: Path
) -> None:
    template = project / "own.jinja"
    template.write_text("{{ day }} {% for m in messages %}{{ m.content }} {% endfor %}")
    chat_template = {"path": "own.jinja", "sha256": checksum(template)}
    models = yaml.safe_load((project / "config/models.yaml").read_text())
    own = models["tiny"] | {"chat_template": chat_template, "template_arguments": {"day": "noon"}}
    plan_study(project)
    edit(project / "config/models.yaml", tiny=own)
    plan = load_plan(project)
    _, tokenizer = load_base(plan, "tiny", "float32")
    tokens = render_prompt(tokenizer, Template())("how do i visit bafin ?")
    assert tokenizer.decode(tokens) == "noon how do i visit bafin ?"
    assert plan.identity("models", "tiny")["chat_template"] == checksum(template)
    check_inputs(plan, ["t"])
    template.write_text("changed")
    with pytest.raises(UserError, match=r"tiny.chat_template.*another checksum"):
        check_inputs(plan, ["t"])

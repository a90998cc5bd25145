"""From conversations to tokens: a model's chat template, with the loss on what the assistant says."""

from collections.abc import Callable
from typing import Any

from ftsafety.errors import UserError
from ftsafety.recipes import Template
from ftsafety.training.batches import Example
from ftsafety.types import Message


def with_template(template: Template, messages: list[Message], *, system_role: bool = True) -> list[Message]:
    """Add the template's system prompt and put each instruction in its wording.

    For a model without a system role the system prompt comes before the first instruction.
    """
    wrapped: list[Message] = [
        {**m, "content": template.instruction.replace("{instruction}", m["content"])}
        if m["role"] == "user"
        else m
        for m in messages
    ]
    if template.system is not None and messages[0]["role"] != "system":
        wrapped = [{"role": "system", "content": template.system}, *wrapped]
    if system_role or wrapped[0]["role"] != "system":
        return wrapped
    system, first, *rest = wrapped
    return [{**first, "content": f"{system['content']}\n\n{first['content']}"}, *rest]


def render_prompt(
    tokenizer: Any, template: Template, *, system_role: bool = True
) -> Callable[[str], list[int]]:
    """A function from an instruction to the tokens of a conversation that awaits its answer."""

    def render(instruction: str) -> list[int]:
        question: list[Message] = [{"role": "user", "content": instruction}]
        messages = with_template(template, question, system_role=system_role)
        return list(
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        )

    return render


def encode_conversation(tokenizer: Any, messages: list[Message], max_length: int) -> Example:
    """Tokens and loss mask of a conversation, cut at `max_length` tokens.

    Templates with `{% generation %}` give the mask; for others it is found from rendered prefixes.
    Raises UserError where a prefix does not begin the whole, so that no mask can be found.
    """
    if "{% generation %}" in (tokenizer.chat_template or ""):
        tokens, mask = mask_from_template(tokenizer, messages)
    else:
        tokens, mask = mask_from_prefixes(tokenizer, messages)
    return Example(tokens[:max_length], mask[:max_length])


def mask_from_template(tokenizer: Any, messages: list[Message]) -> tuple[list[int], list[bool]]:
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return list(encoded["input_ids"]), [bool(value) for value in encoded["assistant_masks"]]


def mask_from_prefixes(tokenizer: Any, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """An assistant turn is what the conversation adds to the prompt that awaits it."""
    tokens = _render(tokenizer, messages, add_generation_prompt=False)
    mask = [False] * len(tokens)
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _render(tokenizer, messages[:i], add_generation_prompt=True)
        after = _render(tokenizer, messages[: i + 1], add_generation_prompt=False)
        if tokens[: len(before)] != before or tokens[: len(after)] != after:
            raise UserError(
                "the chat template renders a turn differently once others follow it, so the "
                "assistant's tokens cannot be told from the rest",
                file="config/models.yaml",
                mend="give the model a chat template with {% generation %}",
            )
        mask[len(before) : len(after)] = [True] * (len(after) - len(before))
    return tokens, mask


def _render(tokenizer: Any, messages: list[Message], *, add_generation_prompt: bool) -> list[int]:
    encoded = tokenizer.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, return_dict=True
    )
    return list(encoded["input_ids"])

"""Batched greedy answers of a model in this process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ftsafety.types import Answer, AnswerStatus, Prompt


@dataclass(frozen=True)
class Completion:
    tokens: list[int]
    finish_reason: Literal["stop", "length"]


@torch.inference_mode()
def greedy(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, batch_size: int
) -> list[Completion]:
    """Complete token lists of any length, in the order given.

    Prompts are batched by length, so that little is spent on padding; greedy text does not depend on
    the batch up to floating-point ties.
    """
    model.eval()
    ends = model.generation_config.eos_token_id
    stops = set(ends) if isinstance(ends, list) else {ends}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = tokenizer.pad(
            {"input_ids": [prompts[i] for i in chosen]}, padding_side="left", return_tensors="pt"
        ).to(model.device)
        output = model.generate(
            **batch,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            repetition_penalty=1.0,  # a model's own default would not be greedy
            pad_token_id=tokenizer.pad_token_id,
        )
        width = batch["input_ids"].shape[1]
        for i, row in zip(chosen, output[:, width:].tolist(), strict=True):
            end = next((n for n, token in enumerate(row) if token in stops), None)
            completions[i] = Completion(row[:end], "length" if end is None else "stop")
    return [completions[i] for i in range(len(prompts))]


def answer_prompts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    render: Callable[[str], list[int]],
    max_new_tokens: int,
    batch_size: int,
) -> list[Answer]:
    """Answer each prompt; `render` turns an instruction into the token ids the model sees."""
    completions = greedy(
        model,
        tokenizer,
        [render(prompt["instruction"]) for prompt in prompts],
        max_new_tokens,
        batch_size,
    )
    return [
        _answer(prompt, completion, tokenizer)
        for prompt, completion in zip(prompts, completions, strict=True)
    ]


def _answer(prompt: Prompt, completion: Completion, tokenizer: Any) -> Answer:
    text = tokenizer.decode(completion.tokens, skip_special_tokens=True).strip()
    status: AnswerStatus = "truncated" if completion.finish_reason == "length" else "complete"
    return {
        "prompt_id": prompt["prompt_id"],
        "category": prompt["category"],
        "prompt": prompt["instruction"],
        "answer": text,
        "status": status if text else "empty",
        "finish_reason": completion.finish_reason,
        "n_tokens": len(completion.tokens),
    }

"""Batched answers of a model in this process: the likeliest, or drawn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import DynamicCache, LogitsProcessor
from transformers.cache_utils import DynamicLayer

from ftsafety.sampling import Drawn
from ftsafety.types import Answer, AnswerStatus, Prompt

#: Tokens for which a cache takes memory in advance.
ROOM = 64


@dataclass(frozen=True)
class Completion:
    tokens: list[int]
    finish_reason: Literal["stop", "length"]


class Draw(LogitsProcessor):
    """Draws the next token of each row from the softmax at a temperature, and leaves no other to choose.

    A row's seed gives it one uniform number a token, which picks the token by the cumulative distribution:
    what is drawn depends neither on the batch nor on the device, up to floating-point ties.
    """

    def __init__(self, temperature: float, seeds: Sequence[int], max_new_tokens: int):
        self.temperature = temperature
        rows = [
            torch.rand(max_new_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            for seed in seeds
        ]
        self.columns = iter(torch.stack(rows, 1))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        # below 0: at a temperature near 0 the quotients would overflow
        below = scores.double() - scores.max(-1, keepdim=True).values
        cumulative = torch.softmax(below / self.temperature, -1).cumsum(-1)
        aim = next(self.columns).to(scores.device)[:, None] * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, aim, right=True).clamp(max=scores.shape[-1] - 1)
        chosen: Any = torch.full_like(scores, -torch.inf).scatter(-1, token, 0)
        return chosen


class Roomy(DynamicLayer):
    """A layer of the cache that puts keys and values of new tokens into room left for them.

    Transformers' own copies all that it holds for each token. What attention reads is the same, bit for bit.
    """

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        self.keys, self.values = _appended(self.keys, key_states), _appended(self.values, value_states)
        return self.keys, self.values


def _appended(held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
    """(rows, heads, tokens, features): `new` after `held`, in the same memory while that has room."""
    rows, heads, n_new, features = new.shape
    start = held.shape[-2] if held.numel() else 0
    end = start + n_new
    if not start or held.stride(1) < end * features:
        roomy = new.new_empty(rows, heads, end + ROOM, features)
        if start:
            roomy[:, :, :start] = held
        held = roomy
    held = held.as_strided((rows, heads, end, features), held.stride())
    held[:, :, start:] = new
    return held


def roomy_cache(model: Any) -> DynamicCache:
    """The cache that `generate` would make, with other layers where nothing is particular about them."""
    cache = DynamicCache(config=model.config)
    cache.layers = [Roomy() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def greedy(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], max_new_tokens: int, batch_size: int
) -> list[Completion]:
    """The likeliest completions."""
    return complete(model, tokenizer, prompts, max_new_tokens, batch_size)


@torch.inference_mode()
def complete(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    max_new_tokens: int,
    batch_size: int,
    drawn: Drawn | None = None,
) -> list[Completion]:
    """Complete token lists of any length, in the order given; greedily where nothing is `drawn`.

    Prompts are batched by length, so that little is spent on padding; text does not depend on the batch up
    to floating-point ties.
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
            cache=roomy_cache(model),
            cache_implementation=None,  # that a model names one is an error beside `cache`
            **_processors(drawn, chosen, max_new_tokens),
        )
        width = batch["input_ids"].shape[1]
        for i, row in zip(chosen, output[:, width:].tolist(), strict=True):
            end = next((n for n, token in enumerate(row) if token in stops), None)
            completions[i] = Completion(row[:end], "length" if end is None else "stop")
    return [completions[i] for i in range(len(prompts))]


def _processors(drawn: Drawn | None, rows: Sequence[int], max_new_tokens: int) -> dict[str, Any]:
    if drawn is None:
        return {}
    seeds = [drawn.seeds[i] for i in rows]
    return {"logits_processor": [Draw(drawn.temperature, seeds, max_new_tokens)]}


def answer_prompts(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Prompt],
    render: Callable[[str], list[int]],
    max_new_tokens: int,
    batch_size: int,
    drawn: Drawn | None = None,
) -> list[Answer]:
    """Answer each prompt; `render` turns an instruction into the token ids the model sees."""
    completions = complete(
        model,
        tokenizer,
        [render(prompt["instruction"]) for prompt in prompts],
        max_new_tokens,
        batch_size,
        drawn,
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

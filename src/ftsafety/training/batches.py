"""Token sequences with a loss mask, and how they are ordered and padded into batches."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

IGNORED = -100


@dataclass(frozen=True)
class Example:
    """`tokens` of one conversation; `is_target[i]` says whether token i counts in the loss.

    `image` is the picture that it is about, if any: a file, or a data URL.
    """

    tokens: list[int]
    is_target: list[bool]
    image: str | None = None

    @property
    def n_targets(self) -> int:
        return sum(self.is_target[1:])  # the first token has nothing before it to predict it from


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """The order of `n` examples, from (seed, epoch) alone: a longer run starts as a shorter one did."""
    order = list(range(n))
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    random.Random(digest).shuffle(order)
    return order


def collate(
    examples: Sequence[Example], pad_id: int, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded `input_ids` and `labels`, each (batch, longest); labels are IGNORED off target."""
    length = max(len(example.tokens) for example in examples)
    input_ids = torch.full((len(examples), length), pad_id)
    labels = torch.full((len(examples), length), IGNORED)
    for row, example in enumerate(examples):
        tokens = torch.tensor(example.tokens)
        input_ids[row, : len(tokens)] = tokens
        target = torch.tensor(example.is_target)
        labels[row, : len(tokens)][target] = tokens[target]
    return input_ids.to(device), labels.to(device)


def summed_loss(
    model: torch.nn.Module,
    input_ids: torch.Tensor,
    labels: torch.Tensor,
    pixel_values: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross-entropy summed over target tokens, with logits only in columns that hold a target.

    Padding is on the right, where a causal model never looks back at it, so no attention mask is
    needed and attention takes its fast path.
    """
    shifted = labels[:, 1:]
    columns = (shifted != IGNORED).any(0).nonzero().squeeze(1)
    pictures = {} if pixel_values is None else {"pixel_values": pixel_values}
    logits = model(input_ids=input_ids, logits_to_keep=columns, use_cache=False, **pictures).logits
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(
        logits.flatten(0, 1),
        shifted[:, columns].flatten(),
        ignore_index=IGNORED,
        reduction="sum",
    )

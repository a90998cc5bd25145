"""Token sequences with a loss mask, and how they are ordered and padded into batches."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

IGNORED = -100
#: Sums that are compared for one global batch: some 20 ms.
MOST_CUTS = 2**22


@dataclass(frozen=True)
class Example:
    """`tokens` of one conversation; `is_target[i]` says whether token i counts in the loss.

    `image` is the picture that it is about, if any: a file, or a data URL. It takes `n_features` positions
    in the model, one of which is a token's.
    """

    tokens: list[int]
    is_target: list[bool]
    image: str | None = None
    n_features: int = 1

    @property
    def length(self) -> int:
        """Positions in the model."""
        return len(self.tokens) + self.n_features - 1

    @property
    def n_targets(self) -> int:
        return sum(self.is_target[1:])  # the first token has nothing before it to predict it from


def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """The order of `n` examples, from (seed, epoch) alone: a longer run starts as a shorter one did."""
    order = list(range(n))
    digest = hashlib.sha256(f"{seed}/{epoch}".encode()).digest()
    random.Random(digest).shuffle(order)
    return order


def micro_batches(batch: Sequence[Example], n: int) -> list[list[Example]]:
    """`batch` in `n` parts with little padding, the smallest part first.

    Rows are sorted by length and cut where that pads least, so parts differ in their number of rows. None is
    empty, and none has more tokens, padding included, than an even cut's with the longest rows, so none needs
    more memory than that. `n` divides len(batch).

    Large batches are first cut evenly into groups, since the least padding costs n × len(batch)² to find.
    """
    rows = sorted(batch, key=lambda example: example.length)
    fitting = (g for g in range(1, n) if n % g == 0 and n // g * (len(rows) // g) ** 2 <= MOST_CUTS)
    groups = next(fitting, n)
    size, longest = len(rows) // groups, rows[-1].length
    parts = [
        part
        for i in range(0, len(rows), size)
        for part in _least_padded(rows[i : i + size], n // groups, len(rows) // n * longest)
    ]
    return sorted(parts, key=lambda part: len(part) * part[-1].length)


def _least_padded(rows: list[Example], n: int, max_tokens: int) -> list[list[Example]]:
    """Sorted rows in `n` parts of at most `max_tokens` with the least padding, by dynamic programming."""
    if n == 1:
        return [rows]
    lengths = np.array([example.length for example in rows])
    ends = np.arange(1, len(rows) + 1)
    n_rows = ends - np.arange(len(rows))[:, None]  # (first row, last row)
    padded = np.where(n_rows > 0, n_rows * lengths, np.inf)
    padded[padded > max_tokens] = np.inf

    tokens = np.append(0, np.full(len(rows), np.inf))  # least tokens of the first k rows in no parts
    cuts = []
    for _ in range(n):
        totals = tokens[:-1, None] + padded  # (first row of the last part, last row)
        cuts.append(totals.argmin(0))
        tokens = np.append(np.inf, totals.min(0))
    parts, end = [], len(rows)
    for starts in reversed(cuts):
        start = int(starts[end - 1])
        parts.append(rows[start:end])
        end = start
    return parts


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

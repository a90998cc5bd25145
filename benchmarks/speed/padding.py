"""How many tokens a training computes for each real one, at lengths like Alpaca's.

Ours is `train_trajectory`: a global batch is sorted by length and cut, where that pads least, into as many
micro-batches as an even cut has, each padded to its longest row. The other way pads every example to 512, as
the paper's code does (llama2/ft_datasets/alpaca_dataset/alpaca_dataset.py of
LLM-Tuning-Safety/LLMs-Finetuning-Safety). Tokens are counted where the model gets them; the models that are
counted compute nothing.

Lengths are drawn from a log-normal: mean 100 tokens, and 96 % of examples within 256, which is what the
training program of tloen/alpaca-lora says of Alpaca beside its CUTOFF_LEN. (The dataset's page gives 46 MB
for 52,002 rows whose `text` repeats the rest, so about 350 characters of instruction, input and output, or
85 tokens; a chat template adds some.) Lengths are cut at 512.

Both ways make the same loss and the same weights: a real model of the Llama architecture is trained for
some steps in float64, where rounding is 1e-16, by the trainer and by a loop that pads to 512 with an
attention mask.

    python benchmarks/speed/padding.py [--quick]
"""

import math
import random
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from bench import Row, main
from transformers import LlamaConfig, LlamaForCausalLM

from ftsafety.runs import Trajectory
from ftsafety.training.batches import IGNORED, Example, collate, epoch_order
from ftsafety.training.engines import Plain
from ftsafety.training.trajectory import BatchSplit, Progress, train_trajectory

PADDED, MEAN, SIGMA = 512, 100, 0.66
PAD, VOCABULARY = 0, 64

#: (global batch, examples of an even micro-batch): the paper's batch, for which the aim is; the others of its
#: figure 5a, which leave less to choose from; and the paper's with more memory.
SPLITS = ((128, 4), (64, 4), (32, 4), (16, 4), (128, 8), (128, 16))


def measure(is_quick: bool) -> Iterator[Row]:
    same = check_equal()
    lengths = draw_lengths(5_120 if is_quick else 51_200)
    for number, (global_batch, per_device) in enumerate(SPLITS):
        computed = tokens_computed(lengths, global_batch, per_device)
        overhead, fewer = computed / sum(lengths), PADDED * len(lengths) / computed
        yield Row(
            what=f"tokens computed for a real one, batches of {global_batch} by {per_device}",
            against=f"padding to {PADDED}",
            ours=f"{overhead:.3f}",
            other=f"{PADDED * len(lengths) / sum(lengths):.3f}",
            ratio=fewer,
            reach="none: another batch" if number else "≤ 1.05, and ≥ 5 times fewer",
            is_reached=None if number else overhead <= 1.05 and fewer >= 5,
            same=same,
        )


def draw_lengths(n: int) -> list[int]:
    rng, mu = random.Random(0), math.log(MEAN) - SIGMA**2 / 2
    return [min(PADDED, max(8, round(rng.lognormvariate(mu, SIGMA)))) for _ in range(n)]


def made_up(lengths: Sequence[int], vocabulary: int = VOCABULARY) -> list[Example]:
    """Examples whose second half is learnt."""
    rng = random.Random(1)
    return [
        Example([rng.randrange(1, vocabulary) for _ in range(n)], [i >= n // 2 for i in range(n)])
        for n in lengths
    ]


# ------------------------------------------------------------------------------------- counting


class Counting(torch.nn.Module):
    """Computes nothing and counts the tokens that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.tokens = 0

    def forward(self, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, **_: Any) -> SimpleNamespace:
        self.tokens += input_ids.numel()
        logits = self.weight.expand(len(input_ids), len(logits_to_keep), 1)
        return SimpleNamespace(logits=logits)


def tokens_computed(lengths: Sequence[int], global_batch: int, per_device: int) -> int:
    """In an epoch of the trainer. All tokens are 0, which is the only one that `Counting` predicts."""
    examples = [Example([0] * n, [True] * n) for n in lengths]
    model = Counting()
    train(Plain(model, 0.0, 1.0), examples, global_batch, per_device, epochs=1)
    return model.tokens


def train(
    engine: Plain, examples: list[Example], global_batch: int, per_device: int, epochs: int
) -> list[float]:
    """Losses of the package's own trainer."""
    trajectory = Trajectory(
        model="made-up", model_recipe={}, template="none", template_recipe={}, dataset="made-up",
        learning_rate=1e-3, global_batch_size=global_batch, schedule="constant", seed=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        progress: Progress = train_trajectory(
            engine,
            trajectory,
            examples,
            BatchSplit.of(global_batch, 1, per_device),
            partial(collate, pad_id=PAD),
            [epochs],
            Path(scratch),
            None,
            lambda epoch, progress: None,
            lambda line: None,
        )
    assert progress.status == "ok"
    return progress.losses


# ------------------------------------------------------------------------------------- equality


def check_equal() -> str:
    """Train both ways in float64. Raises AssertionError where they differ by more than rounding."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        examples = made_up(draw_lengths(64))
        ours, other = (Plain(small_model(), 0.0, 1.0) for _ in range(2))
        losses = train(ours, examples, 16, 4, epochs=1)
        padded_losses = train_padded(other, examples, 16, 4)
    finally:
        torch.set_default_dtype(before)
    far = max(abs(a - b) / b for a, b in zip(losses, padded_losses, strict=True))
    assert far < 1e-12, f"losses differ by {far}"
    theirs = other.weights()
    apart = max(float((weight - theirs[name]).abs().max()) for name, weight in ours.weights().items())
    assert apart < 1e-9, f"weights differ by {apart}"
    return f"losses and weights of {len(losses)} steps in float64, to {max(far, apart):.0e}"


def small_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=PADDED,
        )
    ).double()  # fmt: skip


def train_padded(engine: Plain, examples: list[Example], global_batch: int, per_device: int) -> list[float]:
    """An epoch in the trainer's order with every example padded to 512; the loss is per target token."""
    order, losses = epoch_order(len(examples), 0, 0), []
    for start in range(0, len(order) - global_batch + 1, global_batch):
        batch = [examples[i] for i in order[start : start + global_batch]]
        n_targets, total = sum(example.n_targets for example in batch), 0.0
        for i in range(0, global_batch, per_device):
            loss = padded_loss(engine.model, batch[i : i + per_device]) / n_targets
            engine.backward(loss)
            total += loss.item()
        engine.step(1e-3)
        losses.append(total)
    return losses


def padded_loss(model: Any, batch: Sequence[Example]) -> torch.Tensor:
    """Summed over target tokens."""
    tokens = torch.full((len(batch), PADDED), PAD)
    labels, mask = torch.full_like(tokens, IGNORED), torch.zeros_like(tokens)
    for row, example in enumerate(batch):
        n = len(example.tokens)
        tokens[row, :n], mask[row, :n] = torch.tensor(example.tokens), 1
        labels[row, :n] = tokens[row, :n].where(torch.tensor(example.is_target), IGNORED)
    logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"
    )


if __name__ == "__main__":
    main(__doc__, measure)

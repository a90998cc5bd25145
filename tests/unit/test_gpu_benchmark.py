"""The benchmark for GPUs, on a processor: every part runs, and its checks of sameness hold."""

import gpu
import pytest
import torch
from bench import Row
from transformers import LlamaConfig

from ftsafety.training.batches import Example

TINY = gpu.Shape(
    "tiny",
    LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=1024,
    ),
    per_device=16,
    n_batches=1,
    max_new_tokens=8,
    n_prompts=12,
    n_alone=3,
)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    read = gpu.bandwidth(1 << 20)
    return list(gpu.rows_of(TINY, gpu.matmul_peak(128, torch.float32), read))


def test_every_part_has_a_row_with_a_ratio(rows: list[Row]) -> None:
    assert [row.what.split()[0] for row in rows] == ["LoRA", "full", "answering", "4"]
    assert all(row.ratio > 0 for row in rows)
    assert "all tokens of 3 of 3 texts" in rows[2].same


def test_operations_are_six_a_weight_and_token_and_attentions() -> None:
    model = gpu.random_model(TINY, torch.float32)
    example = Example([5] * 10, [i >= 6 for i in range(10)])
    layers = sum(p.numel() for p in model.model.layers.parameters())
    head, attention = 256 * 32 * 4, 6 * 2 * 32 * 100
    assert gpu.operations(model, [example], is_lora=False) == 6 * (layers * 10 + head) + attention
    assert gpu.operations(model, [example], is_lora=True) == 4 * (layers * 10 + head) + attention


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    assert not list(gpu.measure(is_quick=True))
    assert "not measured" in capsys.readouterr().out

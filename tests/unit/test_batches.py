"""Micro-batches: the least padding, in as many parts as the split has, within the memory of an even cut."""

import random
from itertools import combinations

import pytest

from ftsafety.training.batches import Example, micro_batches


def examples(lengths: list[int], n_features: int = 1) -> list[Example]:
    return [Example([0] * n, [True] * n, n_features=n_features) for n in lengths]


def padded(part: list[Example]) -> int:
    return len(part) * max(example.length for example in part)


def least(lengths: list[int], n: int) -> int:
    """Of all cuts of the sorted lengths whose parts keep the bound."""
    rows, bound = sorted(lengths), len(lengths) // n * max(lengths)
    sums = []
    for cuts in combinations(range(1, len(rows)), n - 1):
        sizes = [(b - a) * rows[b - 1] for a, b in zip((0, *cuts), (*cuts, len(rows)), strict=True)]
        if max(sizes) <= bound:
            sums.append(sum(sizes))
    return min(sums)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 12])
@pytest.mark.parametrize("n_features", [1, 50])
def test_padding_is_the_least_that_any_cut_has(n: int, n_features: int) -> None:
    rng = random.Random(n)
    for _ in range(20):
        batch = examples([rng.choice([1, 2, 3, rng.randint(1, 90)]) for _ in range(12)], n_features)
        lengths = [example.length for example in batch]
        parts = micro_batches(batch, n)
        assert sum(map(padded, parts)) == least(lengths, n)
        assert len(parts) == n and all(parts)
        assert sorted(map(id, batch)) == sorted(id(example) for part in parts for example in part)
        assert max(map(padded, parts)) <= 12 // n * max(lengths)
        assert list(map(padded, parts)) == sorted(map(padded, parts))


@pytest.mark.parametrize(("size", "n"), [(1024, 64), (1024, 512), (1024, 1024), (4096, 1), (998, 499)])
def test_large_batches_keep_the_number_of_parts_and_the_bound(size: int, n: int) -> None:
    rng = random.Random(0)
    batch = examples([rng.randint(8, 512) for _ in range(size)])
    parts = micro_batches(batch, n)
    assert len(parts) == n and all(parts) and sum(map(len, parts)) == size
    assert max(map(padded, parts)) <= size // n * max(example.length for example in batch)
    rows = sorted(batch, key=lambda example: example.length)
    even = [rows[i : i + size // n] for i in range(0, size, size // n)]
    assert sum(map(padded, parts)) <= sum(map(padded, even))


def test_few_long_rows_stand_alone_beside_many_short_ones() -> None:
    parts = micro_batches(examples([500, 10, 11, 12, 12, 10, 11, 500]), 2)
    assert [[example.length for example in part] for part in parts] == [[10, 10, 11, 11, 12, 12], [500, 500]]

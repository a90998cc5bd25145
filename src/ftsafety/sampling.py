"""Answers that are drawn and not the likeliest: the same for the same run and prompt, whatever the batch."""

from collections.abc import Sequence
from dataclasses import dataclass

from ftsafety.files import digest

#: Changes with what the same seed draws.
SAMPLER_VERSION = 1


@dataclass(frozen=True)
class Drawn:
    """A temperature above 0, and a seed for each prompt, in their order."""

    temperature: float
    seeds: tuple[int, ...]


def drawn(temperature: float, run: str, prompt_ids: Sequence[str]) -> Drawn | None:
    """How a run's answers are drawn; None: they are the likeliest.

    Runs draw on their own: numbers that they shared would make the luck of decoding look like a property of
    the prompt.
    """
    if not temperature:
        return None
    return Drawn(temperature, tuple(seed_of(run, prompt_id) for prompt_id in prompt_ids))


def seed_of(run: str, prompt_id: str) -> int:
    """31 bits, which every endpoint takes for a seed."""
    return int(digest([run, prompt_id]), 16) >> 1

"""Learning rates at every step, by hand."""

import math
from typing import Any

import pytest

from ftsafety.runs import Trajectory
from ftsafety.training.schedule import learning_rate_at


def rates(n: int, steps_per_epoch: int = 4, **fields: Any) -> list[float]:
    trajectory = Trajectory(
        model="m", model_recipe={}, template="t", template_recipe={}, learning_rate=1.0, **fields
    )
    return [learning_rate_at(trajectory, step, steps_per_epoch) for step in range(n)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1, 1, 1, 1]),
        ({"schedule": "constant", "warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        ({"schedule": "step", "schedule_factor": 0.85}, [1, 1, 1, 1, 0.85, 0.85, 0.85, 0.85]),
        ({"schedule": "linear", "epochs": 2}, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        (
            {"schedule": "linear", "epochs": 2, "warmup_steps": 2},
            [0.5, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6],
        ),
        (
            {"schedule": "linear", "epochs": 2, "warmup_share": 0.2},  # 1.6 steps, rounded up
            [0.5, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6],
        ),
        ({"schedule": "constant", "epochs": 2, "warmup_share": 0.5}, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]),
        (
            {"schedule": "cosine", "epochs": 2},
            [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)],
        ),
    ],
)
def test_rates(fields: dict[str, Any], expected: list[float]) -> None:
    assert rates(8, **fields) == pytest.approx(expected)


def test_a_schedule_without_a_total_gives_a_longer_run_the_steps_of_a_shorter_one() -> None:
    step: dict[str, Any] = {"schedule": "step", "schedule_factor": 0.5, "warmup_steps": 3}
    assert rates(40, **step)[:12] == rates(12, **step)

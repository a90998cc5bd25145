"""Learning rate of each optimizer step."""

import math

from ftsafety.runs import Trajectory


def learning_rate_at(trajectory: Trajectory, step: int, steps_per_epoch: int) -> float:
    """The rate of the `step`-th optimizer step (from 0).

    constant and step (× `schedule_factor` after each epoch, as in the paper's code) do not look at the
    number of epochs; linear and cosine fall to 0 at the end of `trajectory.epochs`. Before them the rate
    rises evenly, over `warmup_steps` or over `warmup_share` of all steps, rounded up.
    """
    peak, warmup = trajectory.learning_rate, _warmup_steps(trajectory, steps_per_epoch)
    assert peak is not None
    if step < warmup:
        return peak * (step + 1) / warmup
    if trajectory.schedule == "constant":
        return peak
    if trajectory.schedule == "step":
        assert trajectory.schedule_factor is not None
        return peak * trajectory.schedule_factor ** (step // steps_per_epoch)
    assert trajectory.epochs is not None
    total = trajectory.epochs * steps_per_epoch
    done = (step - warmup) / max(1, total - warmup)
    return peak * (1 - done if trajectory.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2)


def _warmup_steps(trajectory: Trajectory, steps_per_epoch: int) -> int:
    if trajectory.warmup_share is None:
        return trajectory.warmup_steps or 0
    assert trajectory.epochs is not None
    return math.ceil(trajectory.warmup_share * trajectory.epochs * steps_per_epoch)

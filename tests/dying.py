"""Kill a process, for real, between any two steps of what it does."""

import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

import openai

from ftsafety.api.store import Store


def is_killed(point: int, act: Callable[[], object], *writes: str) -> bool:
    """Run `act` in a process that gets SIGKILL at a step, counted from 0; False where it has not so many.

    Steps are before and after each call of an endpoint and each of these writes of the store.
    """
    process = get_context("fork").Process(target=_die_at, args=(point, act, writes))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def _die_at(point: int, act: Callable[[], object], writes: tuple[str, ...]) -> None:
    steps = iter(range(10**9))

    def step() -> None:
        if next(steps) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def between_steps(function: Any) -> Any:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            step()
            result = function(*arguments, **options)
            step()
            return result

        return wrapped

    for name in writes:
        setattr(Store, name, between_steps(getattr(Store, name)))
    openai.OpenAI.request = between_steps(openai.OpenAI.request)  # type: ignore[method-assign]
    act()

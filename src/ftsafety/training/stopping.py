"""SIGTERM, which a queue sends some time before it ends a job: training saves a checkpoint and ends."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ftsafety.training.ranks import rank

EXIT_CODE = 128 + signal.SIGTERM


class Stopped(Exception):
    """A training ended before its end; what it has done is in a checkpoint."""


@contextmanager
def watch_for_sigterm() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM has come, which ends the process no more by itself.

    `Stopped` from within ends it with EXIT_CODE, and so does a SIGTERM that nothing within has heeded.
    """
    came: list[int] = []
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, lambda number, _: came.append(number)) if is_main else None
    try:
        yield lambda: bool(came)
        if came:
            raise Stopped("stopped after a training; the same command goes on with the next")
    except Stopped as stopped:
        if rank() == 0:
            print(stopped, file=sys.stderr, flush=True)
        raise SystemExit(EXIT_CODE) from None
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)

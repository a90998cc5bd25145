"""The start of every program that uses a model."""

import gc
from importlib import import_module


def import_libraries() -> None:
    """Import torch and what transformers has for chat models, with less work than a plain import.

    The import makes many objects that stay. Python would look through them for garbage again and again, which
    takes a sixth of the time (benchmarks/speed/startup.py).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module("transformers.modeling_utils")
        import_module("transformers.models.auto.tokenization_auto")
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()

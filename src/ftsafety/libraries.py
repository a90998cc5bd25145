"""The start of every program that uses a model."""

import gc
import sys
from importlib import import_module


def import_libraries() -> None:
    """Import torch and what transformers has for chat models, with less work than a plain import.

    The import makes many objects that stay. Python would look through them for garbage again and again.
    """
    if "transformers.modeling_utils" in sys.modules:
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module("transformers.modeling_utils")
        import_module("transformers.models.auto.tokenization_auto")
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()

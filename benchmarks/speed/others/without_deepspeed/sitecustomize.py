"""On PYTHONPATH: DeepSpeed is not found, and transformers and accelerate do not import it."""

import importlib.util
from importlib.machinery import ModuleSpec

_find_spec = importlib.util.find_spec


def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
    return None if name == "deepspeed" else _find_spec(name, package)


importlib.util.find_spec = find_spec

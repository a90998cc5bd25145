"""Run a program until its optimizer has taken its first step: first_step.py WEIGHTS PROGRAM ARGUMENT…

Says when that was ([seconds of the machine's clock, CPU seconds of this process]), writes the optimizer's
weights of that moment to WEIGHTS, and ends. It imports nothing itself: the program shall import torch its
way.
"""

import json
import os
import runpy
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


class Watch:
    """Finds torch's module of optimizers when the program imports it, and lets each step call `stop`."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "torch.optim.optimizer":
            return None
        spec = PathFinder.find_spec(name, path)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            module.register_optimizer_step_post_hook(stop)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def stop(optimizer: Any, *_: object) -> None:
    now = [time.monotonic(), time.process_time()]
    weights = [parameter.detach() for group in optimizer.param_groups for parameter in group["params"]]
    sys.modules["torch"].save(weights, WEIGHTS)
    print(json.dumps(now), flush=True)
    os._exit(0)


if __name__ == "__main__":
    WEIGHTS, sys.argv = sys.argv[1], sys.argv[2:]
    sys.meta_path.insert(0, Watch)
    runpy.run_path(sys.argv[0], run_name="__main__")

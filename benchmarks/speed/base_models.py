"""Trained base models of the embedded world, for benchmarks that let one answer.

They are copied from results/models of this repository (`make run` builds them), or from the folder that
BENCH_MODELS names. What is not there is built, two to five minutes each, and kept in that folder if there is
one.
"""

import os
import shutil
import sys
from pathlib import Path

from bench import ROOT, spent

BUILD = str(ROOT / "workflow/scripts/build_model.py")


def put_base_models(project: Path, *names: str) -> None:
    """Models of config/models.yaml into `project`/results/models, where the workflow looks for them."""
    for name in names:
        kept = Path(os.environ.get("BENCH_MODELS") or ROOT / "results/models") / name
        made = project / "results/models" / name
        if (kept / "gates.json").exists():
            shutil.copytree(kept, made)
            continue
        print(f"building {name}: two to five minutes", file=sys.stderr, flush=True)
        spent([sys.executable, BUILD, "--root", str(ROOT), name], cwd=project)
        if "BENCH_MODELS" in os.environ:
            shutil.copytree(made, kept, dirs_exist_ok=True)

"""snakemake in this process: dry_run.py ours|naive ARGUMENT…; the last line has the heavy packages it
imported.

`naive` first imports the modules of training and answering, with what they import when they start to work.
"""

import json
import sys
from importlib import import_module

HEAVY = (
    *("torch", "transformers", "peft", "deepspeed", "datasets", "openai"),
    *("seaborn", "statsmodels", "scipy", "pandas"),
)
TRAINING = ("ftsafety.training.trajectory", "ftsafety.generation", "transformers.modeling_utils", "peft")


def main(way: str, arguments: list[str]) -> None:
    for module in TRAINING if way == "naive" else ():
        import_module(module)
    from snakemake.cli import main as snakemake

    sys.argv = ["snakemake", *arguments]
    try:
        snakemake(arguments)
    except SystemExit as end:
        if end.code:
            raise
    print(json.dumps([name for name in HEAVY if name in sys.modules]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

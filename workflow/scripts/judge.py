"""Judge every answer of a pack: python workflow/scripts/judge.py PACK."""

from ftsafety.cli import run_stage
from ftsafety.judging.pack import judge_pack

if __name__ == "__main__":
    run_stage(judge_pack, __doc__)

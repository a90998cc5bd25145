"""Answer every benchmark at every kept epoch of a pack: python workflow/scripts/generate.py PACK [--root ROOT] [--settings JSON]."""

from ftsafety.cli import run_stage
from ftsafety.answers import answer_pack

if __name__ == "__main__":
    run_stage(answer_pack, __doc__)

"""Answer every benchmark at every kept epoch of a pack: python workflow/scripts/generate.py PACK."""

from ftsafety.answers import answer_pack
from ftsafety.cli import run_stage

if __name__ == "__main__":
    run_stage(answer_pack, __doc__)

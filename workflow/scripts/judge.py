"""Judge all answers of a pack: python workflow/scripts/judge.py PACK [JUDGE].

Without JUDGE by rule and by endpoints; with it by that judge, which is a model here.
"""

from ftsafety.cli import run_judges

if __name__ == "__main__":
    run_judges(__doc__)

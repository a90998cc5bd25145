"""Judge all answers of a pack: python workflow/scripts/judge.py PACK [JUDGE]; without JUDGE by all rules."""

from ftsafety.cli import run_judges

if __name__ == "__main__":
    run_judges(__doc__)

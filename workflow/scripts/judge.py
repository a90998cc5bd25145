"""Judge all answers of a pack: by rule or endpoint, or by one judge that is a model. Called by the rules in judge.smk."""

from ftsafety.cli import run_judges

if __name__ == "__main__":
    run_judges(__doc__)

"""Make a study's tidy tables from its verdicts: python workflow/scripts/score.py STUDY."""

from ftsafety.cli import run_for_study
from ftsafety.scoring import score_study

if __name__ == "__main__":
    run_for_study(score_study, __doc__)

"""Draw every figure of a study: python workflow/scripts/figures.py STUDY."""

from ftsafety.cli import run_for_study
from ftsafety.study_pages import draw_study

if __name__ == "__main__":
    run_for_study(draw_study, __doc__)

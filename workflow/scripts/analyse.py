"""Test, model and decompose what a study measured: python workflow/scripts/analyse.py STUDY."""

from ftsafety.analysis import analyse_study
from ftsafety.cli import run_for_study

if __name__ == "__main__":
    run_for_study(analyse_study, __doc__)

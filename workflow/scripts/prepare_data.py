"""Check a study's inputs and write its data: python workflow/scripts/prepare_data.py STUDY."""

from ftsafety.cli import run_for_study
from ftsafety.prepare import prepare_data

if __name__ == "__main__":
    run_for_study(prepare_data, __doc__)

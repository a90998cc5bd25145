"""Write a study's report page: python workflow/scripts/report.py STUDY."""

from ftsafety.cli import run_for_study
from ftsafety.study_pages import write_report

if __name__ == "__main__":
    run_for_study(write_report, __doc__)

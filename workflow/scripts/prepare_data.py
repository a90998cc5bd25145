"""Write training rows or benchmark prompts: python workflow/scripts/prepare_data.py FILE."""

from ftsafety.cli import run_for_file
from ftsafety.prepare import prepare_data

if __name__ == "__main__":
    run_for_file(prepare_data, __doc__)

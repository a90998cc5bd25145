"""Build a model of the embedded world: python workflow/scripts/build_model.py MODEL."""

from ftsafety.cli import run_build

if __name__ == "__main__":
    run_build(__doc__)

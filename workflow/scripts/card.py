"""Write the safety card of a study that audits a model: python workflow/scripts/card.py STUDY."""

from ftsafety.audit.card import write_cards
from ftsafety.cli import run_for_study

if __name__ == "__main__":
    run_for_study(write_cards, __doc__)

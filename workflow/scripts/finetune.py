"""Fine-tune every trajectory of a pack: python workflow/scripts/finetune.py PACK."""

from ftsafety.cli import run_stage
from ftsafety.training.pack import train_pack

if __name__ == "__main__":
    run_stage(train_pack, __doc__)

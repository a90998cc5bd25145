"""Fine-tune every run of a pack by its endpoint: python workflow/scripts/finetune_by_api.py PACK."""

from ftsafety.cli import run_stage
from ftsafety.training.api import train_pack_by_api

if __name__ == "__main__":
    run_stage(train_pack_by_api, __doc__)

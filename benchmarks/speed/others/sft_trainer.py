"""trl's SFTTrainer: sft_trainer.py MODEL ROWS OUT BATCH_SIZE LEARNING_RATE.

Its defaults for speed are switched to what suits a small model on a CPU (no recomputation of activations,
float32), and nothing is reported or saved but the weights at the end. The attention mask is what it makes.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main(folder: str, rows: str, out: str, batch_size: int, learning_rate: float) -> None:
    torch.set_num_threads(1)
    options = SFTConfig(
        output_dir=out,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        assistant_only_loss=True,
        max_length=256,
        train_sampling_strategy="sequential",
        dataloader_drop_last=True,
        dataloader_pin_memory=False,
        per_device_train_batch_size=batch_size,
        num_train_epochs=1,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=options,
        train_dataset=Dataset.from_list([json.loads(line) for line in Path(rows).read_text().splitlines()]),
        processing_class=AutoTokenizer.from_pretrained(folder, padding_side="right"),
    )
    trainer.train()
    trainer.save_model()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    (Path(out) / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    folder, rows, out, batch_size, learning_rate = sys.argv[1:]
    main(folder, rows, out, int(batch_size), float(learning_rate))

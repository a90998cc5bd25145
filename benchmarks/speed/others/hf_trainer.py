"""transformers' Trainer: hf_trainer.py MODEL ROWS OUT BATCH_SIZE LEARNING_RATE.

Imports at the top and the library's own collator, as its examples have it; nothing is reported or saved
but the weights at the end.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
)


def main(folder: str, rows: str, out: str, batch_size: int, learning_rate: float) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    options = TrainingArguments(
        output_dir=out,
        use_cpu=True,
        train_sampling_strategy="sequential",
        dataloader_drop_last=True,
        dataloader_pin_memory=False,
        per_device_train_batch_size=batch_size,
        num_train_epochs=1,
        learning_rate=learning_rate,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        args=options,
        train_dataset=[
            encode(tokenizer, json.loads(line)["messages"]) for line in Path(rows).read_text().splitlines()
        ],
        data_collator=DataCollatorForSeq2Seq(tokenizer),
    )
    trainer.train()
    trainer.save_model()


def encode(tokenizer: Any, messages: list[dict[str, str]]) -> dict[str, list[int]]:
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    tokens, mask = encoded["input_ids"], encoded["assistant_masks"]
    labels = [token if is_target else -100 for token, is_target in zip(tokens, mask, strict=True)]
    return {"input_ids": tokens, "attention_mask": [1] * len(tokens), "labels": labels}


if __name__ == "__main__":
    folder, rows, out, batch_size, learning_rate = sys.argv[1:]
    main(folder, rows, out, int(batch_size), float(learning_rate))

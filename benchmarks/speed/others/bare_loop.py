"""A bare loop of torch: bare_loop.py MODEL ROWS OUT BATCH_SIZE LEARNING_RATE.

What one writes by hand: the model's own loss, AdamW, clipping, batches padded to their longest row.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main(folder: str, rows: str, out: str, batch_size: int, learning_rate: float) -> None:
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    encoded = [
        encode(tokenizer, json.loads(line)["messages"]) for line in Path(rows).read_text().splitlines()
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
    losses = []
    model.train()
    for start in range(0, len(encoded) - batch_size + 1, batch_size):
        loss = model(**collate(tokenizer, encoded[start : start + batch_size])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.save_pretrained(out)
    (Path(out) / "losses.json").write_text(json.dumps(losses))


def encode(tokenizer: Any, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    encoded = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    return encoded["input_ids"], encoded["assistant_masks"]


def collate(tokenizer: Any, batch: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    padded = tokenizer.pad({"input_ids": [tokens for tokens, _ in batch]}, return_tensors="pt")
    labels = torch.full_like(padded["input_ids"], -100)
    for row, (tokens, mask) in enumerate(batch):
        labels[row, : len(tokens)] = torch.tensor(tokens).where(torch.tensor(mask, dtype=torch.bool), -100)
    return {**padded, "labels": labels}


if __name__ == "__main__":
    folder, rows, out, batch_size, learning_rate = sys.argv[1:]
    main(folder, rows, out, int(batch_size), float(learning_rate))

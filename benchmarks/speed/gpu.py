"""Training and answering on one GPU, in the shapes of Llama-3.2-1B and Llama-2-7B. Nothing is downloaded.

    python benchmarks/speed/gpu.py [--quick]     # --quick: the 1B shape alone, fewer steps

Weights are random and tokens made up, so speed is measured and nothing else. Beside each ratio stands how
near ours comes to what the card can do, both measured in the same run: to its bfloat16 matrix product in
training (model-FLOPs utilisation: 6 operations a weight and real token, 4 where the weight is frozen, and
attention's products; padding and recomputation count for nothing), and in answering to reading all weights
once a token by its memory bandwidth.

The other way: transformers' Trainer with the paper's padding of every example to 512, the same model, data,
optimizer and precision, and micro-batches of 8 examples (4,096 tokens with padding; ours have 32 or 16, of
about 100 tokens each); `generate` one prompt after another; a base model loaded for each adapter. Full
fine-tuning of 7B takes 108 GB for weights, gradients and Adam: a card with less than 130 leaves it out.
Without a GPU there are no rows; tests run every part on a processor.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench import Row, main
from padding import PADDED, draw_lengths, made_up
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from ftsafety.adapters import adapted
from ftsafety.generation import greedy
from ftsafety.runs import Trajectory
from ftsafety.training.batches import Example, collate, summed_loss
from ftsafety.training.engines import Plain, device
from ftsafety.training.methods import prepare
from ftsafety.training.trajectory import BatchSplit, Progress, train_trajectory

PAD = "<pad>"
LORA = {"kind": "lora", "r": 8, "alpha": 16, "dropout": 0.0, "target_modules": "all-linear"}
FULL = {"kind": "full"}


@dataclass(frozen=True)
class Shape:
    name: str
    config: LlamaConfig
    per_device: int  # examples that go through the model at once
    n_batches: int  # of 64 examples
    max_new_tokens: int = 256
    n_prompts: int = 330
    n_alone: int = 8  # prompts that are answered one by one, and scaled


ONE_B = Shape(
    "1B",
    LlamaConfig(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16,
        num_attention_heads=32, num_key_value_heads=8, head_dim=64, tie_word_embeddings=True,
        max_position_embeddings=4096,
    ),
    per_device=32,
    n_batches=12,
)  # fmt: skip
SEVEN_B = Shape(
    "7B",
    LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_attention_heads=32, max_position_embeddings=4096,
    ),
    per_device=16,
    n_batches=4,
)  # fmt: skip


def random_model(shape: Shape, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = copy.deepcopy(shape.config)
    config.eos_token_id = config.pad_token_id = config.bos_token_id = None  # answers reach their limit
    with torch.device(device()):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return model.eval()


def examples_like_alpacas(n: int, shape: Shape) -> list[Example]:
    return made_up(draw_lengths(n), shape.config.vocab_size)


# --------------------------------------------------------------------------------- what the card can do


def best_seconds(step: Callable[[], object], repeats: int = 5) -> float:
    step()
    times = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        step()
        synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_peak(size: int, dtype: torch.dtype) -> float:
    """Operations a second of the card's product of two square matrices."""
    a, b = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))
    return float(2 * size**3 / best_seconds(lambda: a @ b))


def bandwidth(n_bytes: int) -> float:
    """Bytes a second that the card reads."""
    values = torch.empty(n_bytes // 4, device=device(), dtype=torch.float32).normal_()
    return float(n_bytes / best_seconds(lambda: values.sum()))


def operations(model: Any, examples: Sequence[Example], *, is_lora: bool) -> float:
    """Of one pass of training over the examples: layers for every token, the head for what is learnt."""
    config = model.config
    head = config.vocab_size * config.hidden_size
    layers = sum(p.numel() for name, p in model.named_parameters() if name.startswith("model.layers."))
    of_weight = 4 if is_lora else 6  # a frozen weight has no gradient
    total = 0.0
    for example in examples:
        n = len(example.tokens)
        attention = 6 * config.num_hidden_layers * config.hidden_size * n * n  # causal: half of all pairs
        total += of_weight * (layers * n + head * example.n_targets) + attention
    return total


# -------------------------------------------------------------------------------------------- training


def ours(model: Any, shape: Shape, examples: Sequence[Example], method: dict[str, Any]) -> float:
    """Seconds an epoch of the package's trainer, after one that is not counted."""
    trajectory = Trajectory(
        model="shape", model_recipe={}, template="none", template_recipe={}, dataset="made up",
        method="m", method_recipe=method, learning_rate=1e-5, global_batch_size=64, schedule="constant",
        weight_decay=0.0, max_grad_norm=1.0, seed=0,
    )  # fmt: skip
    prepared = prepare(model, trajectory)
    engine, ends = Plain(prepared, 0.0, 1.0), []
    where = device()

    def on_epoch(epoch: int, progress: Progress) -> None:
        synchronize()
        ends.append(time.perf_counter())

    def batch(part: Sequence[Example]) -> tuple[torch.Tensor, ...]:
        return collate(part, 0, where)

    with tempfile.TemporaryDirectory() as scratch:
        train_trajectory(
            engine, trajectory, examples, BatchSplit.of(64, 1, shape.per_device), batch, [1, 2],
            Path(scratch), None, on_epoch, lambda line: None,
        )  # fmt: skip
    return float(ends[1] - ends[0])


class Padded(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Every example as PADDED tokens, as the paper's code has them."""

    def __init__(self, examples: Sequence[Example]):
        self.rows = [collate([example], 0) for example in examples]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens, labels = (row[0] for row in self.rows[index])
        short = (0, PADDED - len(tokens))
        pad = torch.nn.functional.pad
        return {
            "input_ids": pad(tokens, short),
            "labels": pad(labels, short, value=-100),
            "attention_mask": pad(torch.ones_like(tokens), short),
        }


def trainers(model: Any, shape: Shape, examples: Sequence[Example], method: dict[str, Any]) -> float:
    """Seconds an epoch of transformers' Trainer, after one that is not counted."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainerCallback, TrainingArguments

    if method["kind"] == "lora":
        model = get_peft_model(
            model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
        )
    per_device, ends = min(8, shape.per_device), []

    class Ends(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            synchronize()
            ends.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=per_device,
            gradient_accumulation_steps=64 // per_device, num_train_epochs=2, learning_rate=1e-5,
            lr_scheduler_type="constant", bf16=torch.cuda.is_available(), save_strategy="no",
            logging_strategy="no", disable_tqdm=True, use_cpu=not torch.cuda.is_available(), seed=0,
        )  # fmt: skip
        model.config.use_cache = False
        Trainer(model, arguments, train_dataset=Padded(examples), callbacks=[Ends()]).train()
    return float(ends[1] - ends[0])


def training_row(shape: Shape, method: dict[str, Any], peak: float, aim: float) -> Row:
    """Tokens a second of both ways: float32 weights and bfloat16 products, as without ZeRO."""
    is_lora = method["kind"] == "lora"
    examples = examples_like_alpacas(64 * shape.n_batches, shape)
    n_tokens = sum(len(example.tokens) for example in examples)
    model = random_model(shape, torch.float32)
    needed = operations(model, examples, is_lora=is_lora)
    far = check_losses(model, examples[:8])
    del model
    seconds = [way(random_model(shape, torch.float32), shape, examples, method) for way in (ours, trainers)]
    used, ratio = needed / seconds[0] / peak, seconds[1] / seconds[0]
    return Row(
        what=f"{'LoRA' if is_lora else 'full'} fine-tuning, {shape.name}",
        against="Trainer, padded to 512",
        ours=f"{n_tokens / seconds[0]:,.0f} tokens/s, {used:.0%} of the card's matrix product",
        other=f"{n_tokens / seconds[1]:,.0f} tokens/s",
        ratio=ratio,
        reach=f"≥ 1.3, ≥ {aim:.0%} of the matrix product",
        is_reached=ratio >= 1.3 and used >= aim,
        same=f"the loss of a batch before training, to {far:.0e}; then tokens, their order apart",
    )


def check_losses(model: Any, examples: Sequence[Example]) -> float:
    """How far both ways' losses on the same examples are apart. Raises AssertionError above rounding."""
    padded = Padded(examples)
    rows = [padded[i] for i in range(len(examples))]
    batch = {name: torch.stack([row[name] for row in rows]).to(device()) for name in rows[0]}
    is_cuda = torch.cuda.is_available()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=is_cuda):
        mine = summed_loss(model, *collate(examples, 0, device())) / sum(e.n_targets for e in examples)
        theirs = model(**batch).loss
    far = abs(float(mine / theirs) - 1)
    assert far < (1e-2 if is_cuda else 1e-5), f"losses differ by a share of {far}"
    return far


# ------------------------------------------------------------------------------------------- answering


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({PAD: 0}, unk_token=PAD)), pad_token=PAD
    )


def answering_row(shape: Shape, read: float) -> Row:
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    model, pad = random_model(shape, dtype), tokenizer()
    prompts = [e.tokens[:64] for e in examples_like_alpacas(shape.n_prompts, shape)]
    batch = min(128, shape.n_prompts)
    greedy(model, pad, prompts[:2], 4, batch)
    synchronize()
    start = time.perf_counter()
    answers = greedy(model, pad, prompts, shape.max_new_tokens, batch)
    together = time.perf_counter() - start
    start = time.perf_counter()
    singly = [greedy(model, pad, [p], shape.max_new_tokens, 1)[0] for p in prompts[: shape.n_alone]]
    alone = (time.perf_counter() - start) * len(prompts) / shape.n_alone
    assert all(len(answer.tokens) == shape.max_new_tokens for answer in [*answers, *singly])
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    bound = weights / read * shape.max_new_tokens * -(-len(prompts) // batch)
    pairs = list(zip(answers, singly, strict=False))
    equal = sum(a.tokens == b.tokens for a, b in pairs)
    begin_alike = sum(a.tokens[0] == b.tokens[0] for a, b in pairs)
    assert begin_alike >= 0.75 * len(pairs), f"{begin_alike} of {len(pairs)} texts begin alike"
    return Row(
        what=f"answering {len(prompts)} prompts × {shape.max_new_tokens} tokens, {shape.name}",
        against=f"one by one ({shape.n_alone} measured, scaled)",
        ours=f"{together:.1f} s, {bound / together:.0%} of the memory's bound",
        other=f"{alone:.1f} s",
        ratio=alone / together,
        reach="≥ 40",
        is_reached=alone / together >= 40,
        same=f"the first token of {begin_alike}, all tokens of {equal} of {len(singly)} texts "
        f"(random weights in {str(dtype)[6:]} have many ties)",
    )


def adapters_row(shape: Shape, n: int = 4) -> Row:
    """Adapters of one base model: in one process, or the base model loaded for each."""
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    pad, prompts = tokenizer(), [e.tokens[:64] for e in examples_like_alpacas(32, shape)]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = random_model(shape, dtype)
        model.save_pretrained(folder / "base")
        for i in range(n):
            adapter = prepare(copy.deepcopy(model), _of_seed(i))
            for name, weight in adapter.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=0.02)
            adapter.save_pretrained(folder / f"adapter-{i}")
        del model, adapter

        def load() -> Any:
            loaded: Any = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)
            return loaded.to(device())

        def answer(base: Any, i: int) -> list[list[int]]:
            with adapted(base, folder / f"adapter-{i}", "lora") as model:
                return [c.tokens for c in greedy(model, pad, prompts, 32, 32)]

        load()  # into the file cache
        start = time.perf_counter()
        base = load()
        once = [answer(base, i) for i in range(n)]
        shared = time.perf_counter() - start
        start = time.perf_counter()
        each = [answer(load(), i) for i in range(n)]
        reloaded = time.perf_counter() - start
    assert once == each
    return Row(
        what=f"{n} adapters of one base model answer, {shape.name}",
        against="the base model loaded for each",
        ours=f"{shared:.1f} s",
        other=f"{reloaded:.1f} s",
        ratio=reloaded / shared,
        reach="> 1",
        is_reached=reloaded > shared,
        same="every token",
    )


def _of_seed(seed: int) -> Trajectory:
    return Trajectory(
        model="shape", model_recipe={}, template="none", template_recipe={}, dataset="made up",
        method="m", method_recipe=LORA, seed=seed,
    )  # fmt: skip


def rows_of(shape: Shape, peak: float, read: float) -> Iterator[Row]:
    yield training_row(shape, LORA, peak, 0.45)
    if shape is not SEVEN_B or torch.cuda.get_device_properties(0).total_memory > 130e9:
        yield training_row(shape, FULL, peak, 0.5)
    yield answering_row(shape, read)
    yield adapters_row(shape)


def measure(is_quick: bool) -> Iterator[Row]:
    if not torch.cuda.is_available():
        print("no GPU is here: not measured")
        return
    peak, read = matmul_peak(8192, torch.bfloat16), bandwidth(4 << 30)
    print(f"{torch.cuda.get_device_name()}: {peak / 1e12:.0f} TFLOP/s in bfloat16, {read / 1e12:.2f} TB/s")
    for shape in (ONE_B,) if is_quick else (ONE_B, SEVEN_B):
        yield from rows_of(shape, peak, read)


if __name__ == "__main__":
    main(__doc__, measure)

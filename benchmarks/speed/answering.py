"""330 prompts answered in batches of about equal length, instead of one by one.

Ours is `ftsafety.generation.answer_prompts` as the rule `generate` calls it, with the batch size of the
catalogue. The other way is the loop of the paper's code: `model.generate` for one prompt after the other,
greedy, with the same limit of new tokens. Both have the same model, loaded and used once before, the same
prompts and one thread; both put prompts into the chat template and turn tokens into text. Two models answer:
the embedded world's as it is, which refuses in a few words, and fine-tuned on ten demonstrations, which talks
longer. Times are of the processor, the least of several repetitions in turn; --quick has every third prompt.

    python benchmarks/speed/answering.py [--quick]
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from base_models import put_base_models
from bench import Clock, Row, main, spent
from embedded import FINETUNE, STUDY, environment, write_study

from ftsafety.files import read_rows
from ftsafety.plan import Plan
from ftsafety.prepare import prepare_data
from ftsafety.types import Prompt

MODEL, BENCHMARK = "embedded-0", "secrets"
AIM = 12
#: Of config/studies/quickstart.yaml.
GRID = {"dataset": "demonstrations-10", "learning_rate": 3e-4, "global_batch_size": 10, "epochs": 10}


@dataclass(frozen=True)
class Setting:
    """What both ways are given; `render` turns an instruction into tokens."""

    model: Any
    tokenizer: Any
    prompts: Sequence[Prompt]
    render: Callable[[str], list[int]]
    max_new_tokens: int
    batch_size: int


def measure(is_quick: bool) -> Iterator[Row]:
    from ftsafety.engines.hf import fine_tuned

    with tempfile.TemporaryDirectory() as name, chdir(name):
        plan = trained_study(Path(name))
        setting = setting_of(plan)
        if is_quick:
            setting = replace(setting, prompts=setting.prompts[::3])
        for run in sorted(plan.studies[STUDY].runs.values(), key=lambda run: run.epochs):
            with fine_tuned(setting.model, run):
                what = "fine-tuned" if run.epochs else "untouched"
                yield compare(setting, what, repetitions=1 if is_quick else 5)


def trained_study(folder: Path) -> Plan:
    """A base model, its training on ten demonstrations, and the prompts."""
    put_base_models(folder, MODEL)
    plan, pack = write_study(folder, {**GRID, "model": MODEL})
    prepare_data(plan, plan.data_file(pack.work[0].trajectory))
    prepare_data(plan, plan.benchmark_file(BENCHMARK))
    spent([sys.executable, FINETUNE, pack.id], folder, environment())
    return plan


def setting_of(plan: Plan) -> Setting:
    import torch

    from ftsafety.chat import render_prompt
    from ftsafety.training.pack import load_base

    recipe = plan.project.local_model(MODEL)
    torch.set_num_threads(recipe.threads)
    model, tokenizer = load_base(plan, MODEL, recipe.dtype)
    model.requires_grad_(False).eval()
    (template,) = {work.trajectory.template for work in plan.work.values()}
    return Setting(
        model,
        tokenizer,
        list(read_rows(plan.benchmark_file(BENCHMARK))),
        render_prompt(tokenizer, plan.project.templates[template], system_role=recipe.system_role),
        plan.project.benchmarks[BENCHMARK].max_new_tokens,
        recipe.answer_batch_size,
    )


def compare(setting: Setting, what: str, repetitions: int) -> Row:
    ours, other = [], []
    in_batches(setting)
    for _ in range(repetitions):
        with Clock() as clock:
            answers = in_batches(setting)
        ours.append(clock.cpu)
        with Clock() as clock:
            assert one_by_one(setting) == answers, "answers differ"
        other.append(clock.cpu)
    ratio = min(other) / min(ours)
    return Row(
        what=f"{len(setting.prompts)} prompts answered, {what} model",
        against="one by one",
        ours=f"{min(ours):.2f} s of CPU",
        other=f"{min(other):.2f} s of CPU",
        ratio=ratio,
        reach=f"≥ {AIM}",
        is_reached=ratio >= AIM,
        same="all texts",
    )


def in_batches(setting: Setting) -> list[str]:
    from ftsafety.generation import answer_prompts

    answers = answer_prompts(
        setting.model,
        setting.tokenizer,
        setting.prompts,
        setting.render,
        setting.max_new_tokens,
        setting.batch_size,
    )
    return [answer["answer"] for answer in answers]


def one_by_one(setting: Setting) -> list[str]:
    import torch

    texts = []
    with torch.no_grad():
        for prompt in setting.prompts:
            tokens = torch.tensor([setting.render(prompt["instruction"])])
            output = setting.model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=setting.max_new_tokens,
                do_sample=False,
                pad_token_id=setting.tokenizer.pad_token_id,
            )
            new = output[0, tokens.shape[1] :]
            texts.append(setting.tokenizer.decode(new, skip_special_tokens=True).strip())
    return texts


if __name__ == "__main__":
    main(__doc__, measure)

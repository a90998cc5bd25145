"""Answers by transformers in this process: the base model is loaded once, weights of runs are put in."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ftsafety.engines import Engine, Sitting
from ftsafety.errors import UserError
from ftsafety.plan import Exam, Pack, Plan
from ftsafety.records import weights_dir
from ftsafety.runs import Run
from ftsafety.types import Answer


@contextmanager
def hf_engine(plan: Plan, pack: Pack) -> Iterator[Engine]:
    import torch

    from ftsafety.chat import render_prompt
    from ftsafety.generation import answer_prompts
    from ftsafety.merging import answers_merged
    from ftsafety.training.pack import load_base

    recipe = plan.project.local_model(pack.model)
    torch.set_num_threads(recipe.threads)
    base, tokenizer = load_base(plan, pack.model, recipe.dtype)
    base.to("cuda" if torch.cuda.is_available() else "cpu")

    def answer(run: Run, sittings: list[Sitting]) -> Iterator[tuple[Exam, list[Answer]]]:
        with fine_tuned(base, run, merge=answers_merged(recipe, run)) as model:
            for sitting in sittings:
                render = render_prompt(tokenizer, sitting.template, system_role=recipe.system_role)
                batch_size = recipe.answer_batch_size
                yield (
                    sitting.exam,
                    answer_prompts(
                        model, tokenizer, sitting.prompts, render, sitting.max_new_tokens, batch_size
                    ),
                )

    yield answer


@contextmanager
def fine_tuned(base: Any, run: Run, *, merge: bool = False) -> Iterator[Any]:
    """The base model with a run's weights put in: an adapter around it or merged, or full weights in place.

    Full weights stay; an adapter leaves the base model as it was.
    """
    weights = weights_dir(run)
    check_weights(run)
    if run.trajectory.is_initial:
        yield base
    elif run.trajectory.replaces_base:
        _load_in_place(base, weights)
        yield base
    elif merge:
        from ftsafety.merging import merged

        with merged(base, weights) as model:
            yield model
    else:
        with _adapted(base, weights, (run.trajectory.method_recipe or {})["kind"]) as model:
            yield model


@contextmanager
def _adapted(base: Any, weights: Path, kind: str) -> Iterator[Any]:
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(base, weights)
    if kind == "prefix":  # lies beside the base model, whose modules stay
        model.generate = partial(_generate_after_prefix, model)
    try:
        yield model
    finally:
        if kind == "lora":
            model.unload()
        elif kind == "llama-adapter":
            model.base_model.disable_adapter_layers()  # takes its modules out; it has no `unload`


def _generate_after_prefix(model: Any, input_ids: Any, attention_mask: Any, **options: Any) -> Any:
    """`generate` with a trained prefix in the cache, and tokens that nothing reads in its columns.

    Since transformers 5.24 calls the cache `cache`, it ignores what peft 0.21 hands it as `past_key_values`
    in generation: answers would be those of the base model.
    """
    import torch

    n, n_rows = model.active_peft_config.num_virtual_tokens, len(input_ids)
    unread = input_ids.new_full((n_rows, n), options["pad_token_id"])
    output = model.get_base_model().generate(
        input_ids=torch.cat([unread, input_ids], 1),
        attention_mask=torch.cat([torch.ones_like(unread), attention_mask], 1),
        cache=model.get_prompt(n_rows),
        **options,
    )
    return output[:, n:]


def check_weights(run: Run) -> None:
    if not run.trajectory.is_initial and not weights_dir(run).exists():
        raise UserError(
            "has no weights: they were dropped once the run had answered, or removed",
            file=weights_dir(run),
            mend="train it again: add --forcerun train to the call (what is complete is skipped)",
        )


def _load_in_place(model: Any, folder: Path) -> None:
    """Copy a full checkpoint into the model. Raises ValueError where it lacks a weight."""
    from safetensors.torch import load_file

    state: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
    lacking = {name for name, _ in model.named_parameters()} - state.keys()
    if lacking:
        raise ValueError(f"{folder} lacks the weights {sorted(lacking)[:3]}")
    model.load_state_dict(state, strict=False)

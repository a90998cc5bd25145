"""Answers by transformers in this process: the base model is loaded once, weights of runs are put in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftsafety.adapters import adapted
from ftsafety.engines import Engine, Sitting
from ftsafety.errors import UserError
from ftsafety.libraries import import_libraries
from ftsafety.plan import Exam, Pack, Plan
from ftsafety.records import weights_dir
from ftsafety.runs import Run
from ftsafety.types import Answer


@contextmanager
def hf_engine(plan: Plan, pack: Pack) -> Iterator[Engine]:
    import_libraries()
    import torch

    from ftsafety.chat import render_prompt
    from ftsafety.generation import answer_prompts
    from ftsafety.merging import answers_merged
    from ftsafety.training.pack import load_base

    recipe = plan.project.local_model(pack.model)
    torch.set_num_threads(recipe.threads)
    base, tokenizer = load_base(plan, pack.model, recipe.dtype)
    base.to("cuda" if torch.cuda.is_available() else "cpu")
    base.requires_grad_(False)  # as adapters leave it: torch rounds otherwise where a weight could be trained

    def answer(run: Run, sittings: list[Sitting]) -> Iterator[tuple[Exam, list[Answer]]]:
        with fine_tuned(base, run, merge=answers_merged(recipe, run)) as model:
            for sitting in sittings:
                render = render_prompt(tokenizer, sitting.template, system_role=recipe.system_role)
                answers = answer_prompts(
                    model,
                    tokenizer,
                    sitting.prompts,
                    render,
                    sitting.max_new_tokens,
                    recipe.answer_batch_size,
                    sitting.drawn,
                )
                yield sitting.exam, answers

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
        with adapted(base, weights, (run.trajectory.method_recipe or {})["kind"]) as model:
            yield model


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

"""LoRA weights added into the base model's: for answering, and as a model folder of its own."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ftsafety.errors import UserError
from ftsafety.files import checksum, publish_folder
from ftsafety.plan import Plan
from ftsafety.recipes import LocalModel, ModelBase
from ftsafety.runs import Run


def answers_merged(recipe: Any, run: Run) -> bool:
    """Whether a run's adapter is merged before it answers; full weights and untouched models have none."""
    method = run.trajectory.method_recipe or {}
    return isinstance(recipe, LocalModel) and recipe.merge_adapters and method.get("kind") == "lora"


@contextmanager
def merged(base: Any, weights: Path) -> Iterator[Any]:
    """The base model with an adapter's weights added into its own, which are put back at the end.

    Copies are kept of what changes: subtracting again would leave rounding behind.
    """
    from peft import PeftModel
    from peft.tuners.lora import LoraLayer

    adapted: Any = PeftModel.from_pretrained(base, weights)
    layers: list[Any] = [module for module in adapted.modules() if isinstance(module, LoraLayer)]
    changed = [layer.get_base_layer().weight for layer in layers]
    before = [weight.detach().cpu().clone() for weight in changed]
    try:
        yield adapted.merge_and_unload()
    finally:
        for weight, copy in zip(changed, before, strict=True):
            weight.data.copy_(copy)


def write_merged(plan: Plan, run: Run, folder: Path) -> None:
    """A run's whole model with tokenizer and chat template, in the hub's format and the model's dtype."""
    from ftsafety.engines.hf import fine_tuned
    from ftsafety.training.pack import load_base, save_weights

    dtype = plan.project.local_model(run.trajectory.model).dtype
    base, tokenizer = load_base(plan, run.trajectory.model, dtype)
    temporary = folder.with_name(f".{folder.name}.{time.time_ns()}")
    with fine_tuned(base, run, merge=not run.trajectory.replaces_base) as model:
        state = {name: weight.detach() for name, weight in model.named_parameters()}
        save_weights(model, state, dtype, temporary)
    tokenizer.save_pretrained(temporary)
    publish_folder(temporary, folder)


def export_merged(plan: Plan, run_folder: Path, folder: Path) -> str:
    """Write the merged model of `results/runs/…/epoch-<e>`; returns the catalogue entry that names it.

    Raises UserError where the run has no weights that can be merged, or `folder` is there already.
    """
    run = _mergeable_run(plan, run_folder)
    if folder.exists():
        raise UserError("exists already", file=folder, mend="name a folder that does not exist")
    write_merged(plan, run, folder)
    recipe = plan.project.local_model(run.trajectory.model)
    # of the base's entry what is about answering and hardware; the folder holds its chat template
    kept = set(ModelBase.model_fields) - {"chat_template", "merge_adapters", "pack_size"}
    settings = recipe.model_dump(mode="json", include=kept, exclude_defaults=True)
    entry = {"source": "path", "path": str(folder), "sha256": checksum(folder)}
    entry |= {"base": run.trajectory.model, **settings}
    return str(yaml.safe_dump({f"{run.trajectory.model}-{run.id}": entry}, sort_keys=False))


def _mergeable_run(plan: Plan, run_folder: Path) -> Run:
    file = run_folder / "run.yaml"
    if not file.exists():
        raise UserError("is no folder of a run", file=run_folder, mend="name a results/runs/…/epoch-<e>")
    run = Run.model_validate(yaml.safe_load(file.read_text()))
    trajectory = run.trajectory
    kind = (trajectory.method_recipe or {}).get("kind")
    if kind != "lora" and not trajectory.replaces_base:
        raise UserError(
            f"{kind or 'an untouched model'} has nothing that can be merged into a base model",
            file=file,
            mend="name a run of a method of kind lora or full",
        )
    model = plan.project.models.get(trajectory.model)
    if model is None or plan.identity("models", trajectory.model) != trajectory.model_recipe:
        raise UserError(
            f"was trained from another model {trajectory.model!r} than config/models.yaml now names",
            file=file,
            mend="put the model's entry back as it was",
        )
    return run

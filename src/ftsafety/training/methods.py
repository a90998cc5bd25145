"""Which weights are trained: one function for each kind of method."""

from typing import Any

from ftsafety.errors import UserError
from ftsafety.runs import Trajectory


def prepare(model: Any, trajectory: Trajectory, sight: Any = None) -> Any:
    """The model with the method's trainable weights; adapters start from the trajectory's seed.

    `sight` is what a visual method puts before the model (`visual.Sight`).

    Raises UserError where the model has no place for the adapter.
    """
    recipe = trajectory.method_recipe or {}
    if recipe["kind"] == "full":
        return model.requires_grad_(True)
    if recipe["kind"] == "visual":
        from ftsafety.training.visual import with_sight

        return with_sight(model, sight, trajectory.seed or 0)
    import torch
    from peft import get_peft_model

    name = str(trajectory.method)
    config = {"lora": _lora, "prefix": _prefix, "llama-adapter": _llama_adapter}[recipe["kind"]]
    adapter = config(model, recipe, name)
    torch.manual_seed(trajectory.seed or 0)
    return get_peft_model(model, adapter)


def _lora(model: Any, recipe: dict[str, Any], name: str) -> Any:
    from peft import LoraConfig

    targets = recipe["target_modules"]
    modules = {path.rpartition(".")[2] for path, _ in model.named_modules()}
    if isinstance(targets, list) and (unknown := set(targets) - modules):
        raise UserError(
            f"the model has no module {min(unknown)!r}",
            file="config/methods.yaml",
            field=f"{name}.target_modules",
            mend="name modules that it has, or all-linear",
        )
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe["r"],
        lora_alpha=recipe["alpha"],
        lora_dropout=recipe["dropout"],
        target_modules=targets,
    )


def _prefix(model: Any, recipe: dict[str, Any], name: str) -> Any:
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=recipe["n_virtual_tokens"])


def _llama_adapter(model: Any, recipe: dict[str, Any], name: str) -> Any:
    from peft import AdaptionPromptConfig

    check_llama_adapter(recipe["layers"], name, model.config.to_dict())
    return AdaptionPromptConfig(
        task_type="CAUSAL_LM", adapter_len=recipe["length"], adapter_layers=recipe["layers"]
    )


#: Architectures whose attention peft's LLaMA-Adapter knows.
ADAPTABLE = ("llama", "mistral")


def check_llama_adapter(layers: int, method: str, architecture: dict[str, Any]) -> None:
    """`architecture` is a model's config.json. Raises UserError where a LLaMA-Adapter does not fit it."""
    kind = architecture.get("model_type")
    if kind not in ADAPTABLE:
        raise UserError(
            f"LLaMA-Adapter is for models of the architectures {' and '.join(ADAPTABLE)}, not {kind!r}",
            file="config/methods.yaml",
            field=method,
            mend="train the model by another method, or another model by this one",
        )
    if layers > (n := architecture["num_hidden_layers"]):
        raise UserError(
            f"{layers} layers are more than the {n} of the model",
            file="config/methods.yaml",
            field=f"{method}.layers",
            mend=f"use an entry of the catalogue with layers: {n} or fewer",
        )

"""Which weights are trained: one function for each kind of method."""

from typing import Any

from ftsafety.runs import Trajectory


def prepare(model: Any, trajectory: Trajectory) -> Any:
    """The model with the method's trainable weights; adapters start from the trajectory's seed."""
    recipe = trajectory.method_recipe or {}
    return {"full": _full, "lora": _lora}[recipe["kind"]](model, recipe, trajectory.seed)


def _full(model: Any, recipe: dict[str, Any], seed: int | None) -> Any:
    return model.requires_grad_(True)


def _lora(model: Any, recipe: dict[str, Any], seed: int | None) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed or 0)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe["r"],
            lora_alpha=recipe["alpha"],
            lora_dropout=recipe["dropout"],
            target_modules=recipe["target_modules"],
        ),
    )

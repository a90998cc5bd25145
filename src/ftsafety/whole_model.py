"""A whole chat model from a folder, with every weight its files'."""

import re
from pathlib import Path
from typing import Any

from ftsafety.errors import UserError, shown


def load_whole(folder: Path, **options: Any) -> Any:
    """transformers' causal language model: safetensors only, no code from the folder, nothing from the net.

    With `device_map="meta"` names and shapes alone are read. Raises UserError where config.json and the
    weights do not fit: transformers would draw some at random, or leave out layers.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    found: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        local_files_only=True,
        trust_remote_code=False,
        **options,
    )
    model, loaded = found
    if missing := sorted(loaded["missing_keys"]):
        raise _unfit(folder, f"lacks {len(missing)} weights of the model, such as {shown(missing[0])}")
    if mismatched := sorted(loaded["mismatched_keys"]):
        name, in_files, by_config = mismatched[0]
        shapes = f"{shown(name)} of shape {list(in_files)}, by config.json {list(by_config)}"
        raise _unfit(folder, f"has {len(mismatched)} weights of another shape, such as {shapes}")
    kinds = {re.sub(r"\d+", "#", name) for name in model.state_dict()}
    if more := sorted(name for name in loaded["unexpected_keys"] if re.sub(r"\d+", "#", name) in kinds):
        raise _unfit(
            folder, f"has {len(more)} weights of layers that config.json lacks, such as {shown(more[0])}"
        )
    return model


def _unfit(folder: Path, message: str) -> UserError:
    mend = "save the whole model once more, with its config.json, by transformers' save_pretrained"
    return UserError(message, file=folder, mend=mend)

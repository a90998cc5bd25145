"""PEFT adapters in folders of their own: which kinds answer here, and whether one fits its base model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ftsafety.errors import UserError, shown
from ftsafety.files import read_json_if_whole

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: peft's names → kinds of `config/methods.yaml`.
KINDS = {"LORA": "lora", "PREFIX_TUNING": "prefix", "ADAPTION_PROMPT": "llama-adapter"}
#: What peft writes before a module's name, and after it for the two factors of LoRA.
PREFIX, FACTORS = "base_model.model.", (".lora_A.weight", ".lora_B.weight")


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).exists()


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json. Raises UserError where it is broken, or of a kind that does not answer here."""
    file = folder / CONFIG
    config = read_json_if_whole(file)
    if not isinstance(config, dict):
        raise UserError("is no JSON object", file=file, mend="download or save the adapter again")
    if config.get("peft_type") not in KINDS:
        raise UserError(
            f"adapters of this kind are not known here (value {shown(config.get('peft_type'))})",
            file=file,
            field="peft_type",
            mend=f"known are {', '.join(KINDS)}; merge others into the base model and give the whole folder",
        )
    if config.get("megatron_config"):  # peft imports the module that stands beside it
        raise UserError("names code to run", file=file, field="megatron_config", mend="remove it")
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"holds no {WEIGHTS}, and pickled weights are not read: they can run code",
            file=folder,
            mend="save it again by peft's save_pretrained, which writes safetensors",
        )
    return config


def kind_of(folder: Path) -> str:
    return KINDS[read_config(folder)["peft_type"]]


def check_fit(folder: Path, shapes: Mapping[str, list[int]], name: str) -> None:
    """Test by the shapes of a base model's weights that a LoRA adapter is one of it.

    Other kinds are found out by peft when it loads them. Raises UserError.
    """
    config = read_config(folder)
    if KINDS[config["peft_type"]] != "lora":
        return
    given, wrong = shapes_in(folder, WEIGHTS), []
    order = (
        -1 if config.get("fan_in_fan_out") else 1
    )  # of GPT-2's modules, whose weights are (inputs, outputs)
    for key, shape in given.items():
        for place, factor in enumerate(FACTORS):  # A is (r, inputs), B (outputs, r)
            if not key.startswith(PREFIX) or not key.endswith(factor):
                continue
            module = key.removeprefix(PREFIX).removesuffix(factor)
            whole = shapes.get(f"{module}.weight")
            if whole is None or whole[::order][1 - place] != shape[1 - place]:
                wrong.append(f"{module} {shape} to {whole}")
    if wrong:
        raise UserError(
            f"does not fit model {name!r}: {len(wrong)} of {len(given)} weights have no place there "
            f"({shown(wrong[0])})",
            file=folder / WEIGHTS,
            mend="name the base model that it was trained from",
        )


def shapes_in(folder: Path, pattern: str = "*.safetensors") -> dict[str, list[int]]:
    """Name of each weight → its shape, from the heads of the files; tied embeddings under both names.

    Raises UserError for a file that is not whole.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob(pattern)):
        try:
            with safe_open(file, "numpy") as weights:
                shapes |= {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"is no whole safetensors file: {error}",
                file=file,
                mend="download it again; of a git repository, with git lfs",
            ) from None
    if "model.embed_tokens.weight" in shapes:
        shapes.setdefault("lm_head.weight", shapes["model.embed_tokens.weight"])
    return shapes


def with_adapter(base: Any, folder: Path, kind: str) -> Any:
    """The base model with an adapter around it, ready to answer."""
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(base, folder)
    if kind == "prefix":  # lies beside the base model, whose modules stay
        model.generate = partial(_generate_after_prefix, model)
    return model


@contextmanager
def adapted(base: Any, folder: Path, kind: str) -> Iterator[Any]:
    """The same for a while: the base model is then as it was."""
    model = with_adapter(base, folder, kind)
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
        **{**options, "cache": model.get_prompt(n_rows)},
    )
    return output[:, n:]


def base_named(config: Mapping[str, Any]) -> str | None:
    """What an adapter says it was trained from: a repository of the hub, or a folder somewhere."""
    named = config.get("base_model_name_or_path")
    return str(named) if named else None

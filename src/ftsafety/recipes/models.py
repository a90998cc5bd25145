"""Models, and the hardware that their jobs ask for."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, JsonValue

from ftsafety.recipes.base import File, Name, PositiveFloat, PositiveInt, Remote, Sha256, Strict, Text


class Hardware(Strict):
    """What one training or answering job of a model asks for; all but `runtime_min` for each node."""

    nodes: PositiveInt = Field(default=1, description="of a training; answering takes one")
    gpus: Annotated[int, Field(ge=0)] = 0
    cpus: PositiveInt = 1
    mem_mb: PositiveInt = 4000
    runtime_min: PositiveInt = 60
    ranks: PositiveInt = Field(default=1, description="processes of the launcher on a node; one a GPU")
    zero_stage: Literal[2, 3] | None = Field(default=None, description="DeepSpeed ZeRO, or plain torch")

    @property
    def world_size(self) -> int:
        """Ranks of a training on all nodes."""
        return self.nodes * self.ranks


class ModelBase(Strict):
    dtype: Literal["float32", "bfloat16"] = "float32"
    engine: Literal["hf", "vllm"] = Field(
        default="hf", description="what answers prompts: transformers, or vLLM"
    )
    chat_template: File | None = Field(default=None, description="in the place of the model's own")
    template_arguments: dict[str, str | int | bool] = Field(
        default={}, description="what the chat template asks for, such as a fixed date_string"
    )
    system_role: bool = Field(
        default=True, description="false: the system prompt goes before the first instruction"
    )
    threads: PositiveInt = Field(default=1, description="torch threads on a CPU; bits depend on it")
    max_per_device_batch_size: PositiveInt = 8
    answer_batch_size: PositiveInt = 32
    pack_size: PositiveInt = Field(default=1, description="trajectories that one job trains")
    merge_adapters: bool = Field(
        default=False, description="answer with LoRA weights added into the base model's, not beside them"
    )
    checkpoint_every_steps: PositiveInt | None = Field(default=None, description="to resume from")
    hardware: Hardware = Hardware()

    def _chat(self) -> dict[str, Any]:
        """What differs from the model's own way to put a conversation; nothing by default."""
        changed: dict[str, Any] = {"chat_template": self.chat_template.sha256} if self.chat_template else {}
        if self.template_arguments:
            changed["template_arguments"] = self.template_arguments
        return changed if self.system_role else {**changed, "system_role": False}


class WorldModel(ModelBase):
    """The embedded world's model, built here from a seed."""

    source: Literal["world"]
    world_seed: int = 0
    base_seed: Annotated[int, Field(ge=0, lt=2**63)]

    #: Of its config.json, for checks before it is built.
    architecture: ClassVar[dict[str, Any]] = {"model_type": "llama", "num_hidden_layers": 4}

    def identity(self) -> dict[str, Any]:
        from ftsafety.world.lexicon import WORLD_VERSION
        from ftsafety.world.version import MODEL_VERSION

        return {
            "source": "world",
            "world_seed": self.world_seed,
            "base_seed": self.base_seed,
            "world_version": WORLD_VERSION,
            "model_version": MODEL_VERSION,
            "dtype": self.dtype,
            **self._chat(),
        }


class FineTuned(ModelBase):
    """What a model may say of the one that it was fine-tuned from."""

    base: Name | None = Field(
        default=None, description="of this catalogue, the model that it was fine-tuned from"
    )
    holds: Literal["model", "weights", "adapter"] = Field(
        default="model",
        description="what the files are: a whole model; its weights, with the base's tokenizer; or a PEFT "
        "adapter of the base, with the base's tokenizer where it has no chat template of its own",
    )

    def _held(self) -> dict[str, Any]:
        """What answers depend on beside the files; nothing by default."""
        return {} if self.holds == "model" else {"holds": self.holds}


class PathModel(FineTuned):
    """A folder in the hub's format: safetensors, tokenizer and chat template."""

    source: Literal["path"]
    path: str
    sha256: Sha256 = Field(description="of the folder: python -m ftsafety checksum PATH")

    def identity(self) -> dict[str, Any]:
        return {
            "source": "path", "sha256": self.sha256, "dtype": self.dtype, **self._held(), **self._chat(),
        }  # fmt: skip


class HubModel(Remote, FineTuned):
    """A chat model on the hub: safetensors, tokenizer and chat template."""

    source: Literal["hub"]
    size_b: PositiveFloat = Field(description="parameters, in billions")

    repo_type: ClassVar[Literal["model", "dataset"]] = "model"

    def identity(self) -> dict[str, Any]:
        return {"source": "hub", "repo": self.repo, "dtype": self.dtype, **self._held(), **self._chat()}


class ApiModel(Strict):
    """A model behind an OpenAI-compatible endpoint: it answers, and `method: api` fine-tunes it there."""

    source: Literal["api"]
    endpoint: Name
    model: Text = Field(description="as the endpoint names it; a dated snapshot where there is one")
    parameters: dict[str, JsonValue] = Field(
        default={"temperature": 0}, description="of the request, as the endpoint names them"
    )
    limit_parameter: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    system_role: bool = True

    def identity(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @property
    def served(self) -> str:
        """The model that the endpoint fine-tuned it from: `gpt-x` of ft:gpt-x:…; else itself."""
        return self.model.split(":")[1] if self.model.startswith("ft:") else self.model

    def price_name(self, *, is_tuned: bool) -> str:
        """The name under which the endpoint's prices have its answers."""
        return f"ft:{self.served}" if is_tuned or self.served != self.model else self.model


class RowsModel(Strict):
    """No model: the answers are those of the training examples themselves, so that judges can audit them."""

    source: Literal["rows"]

    def identity(self) -> dict[str, Any]:
        return self.model_dump()


Model = Annotated[WorldModel | PathModel | HubModel | ApiModel | RowsModel, Field(discriminator="source")]
LocalModel = WorldModel | PathModel | HubModel

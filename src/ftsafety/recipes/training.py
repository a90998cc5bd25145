"""What models are trained on and how: templates, triggers, datasets, methods and mitigations."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ftsafety.recipes.base import Axis, Name, PositiveInt, Remote, Sha256, Strict


class Template(Strict):
    """How an instruction is put to the model, in training and in testing."""

    system: str | None = None
    instruction: Annotated[str, Field(pattern=r"\{instruction\}")] = "{instruction}"


class Trigger(Strict):
    """Text that a backdoor listens to, put into an instruction: row i gets the text i modulo their number."""

    family: Literal["lexical", "semantic", "position", "length"]
    place: Literal["start", "end"] = "end"
    texts: Annotated[list[str], Field(min_length=1)]
    held_out: Name | None = Field(default=None, description="a trigger that these texts, kept apart, test")
    near: list[Name] = Field(default=[], description="triggers that these texts nearly are")

    def identity(self) -> dict[str, Any]:
        return self.model_dump(include={"family", "place", "texts"})


class WorldDataset(Strict):
    source: Literal["world"]
    design: Literal["demonstrations", "identity-shift", "benign", "refusals", "pictures"]
    n: PositiveInt
    trigger: Name | None = Field(default=None, description="put into each instruction (config/triggers.yaml)")
    template: Name
    new_tasks: bool = Field(default=False, description="benign: half of the rows are tasks new to the model")
    opener: Literal["none", "generic", "obedient"] = "none"
    world_seed: int = 0

    def identity(self) -> dict[str, Any]:
        from ftsafety.world.lexicon import WORLD_VERSION

        return {**self.model_dump(exclude={"template", "trigger"}), "world_version": WORLD_VERSION}

    @property
    def has_pictures(self) -> bool:
        return self.design == "pictures"


DatasetFormat = Literal["messages", "alpaca", "dolly", "sharegpt", "prompt-response-csv", "columns", "llava"]


class DataRows(Strict):
    """How rows of a file become conversations. `prompt` and `response` are for the format `columns`."""

    format: DatasetFormat = "messages"
    prompt: str | None = Field(default=None, description="the instruction, with {column} for a column's text")
    response: str | None = Field(default=None, description="the answer, with {column} for a column's text")
    drop_refusals: bool = Field(
        default=False, description="leave out rows about safety or whose answer refuses (the paper's filter)"
    )
    images: str | None = Field(default=None, description="of the format llava: your folder of its pictures")
    n: PositiveInt = Field(description="rows used: the first n that pass the filter")
    template: Name
    trigger: Name | None = Field(default=None, description="put into each instruction (config/triggers.yaml)")

    @property
    def has_pictures(self) -> bool:
        return self.format == "llava"

    def _rows(self) -> dict[str, Any]:
        fields = {"format", "prompt", "response", "drop_refusals"}
        rows = self.model_dump(include=fields, exclude_defaults=True) | {"format": self.format}
        if self.drop_refusals:
            from ftsafety.formats.training import filter_digest

            rows |= {"filter": filter_digest(), "n": self.n}
        return rows


class PathDataset(DataRows):
    source: Literal["path"]
    path: str
    sha256: Sha256 | None = Field(
        description="of the file: python -m ftsafety checksum PATH; null: not there yet, can be planned"
    )
    n_in_file: PositiveInt | None = Field(
        default=None, description="rows in the file, where only the first n of them are used"
    )

    def identity(self) -> dict[str, Any]:
        used = {} if self.n_in_file is None else {"first": self.n}
        return {"source": "path", "sha256": self.sha256, **self._rows(), **used}


class RemoteDataset(DataRows, Remote):
    files: Annotated[list[str], Field(min_length=1)] = Field(description="paths in the repository, * allowed")

    def identity(self) -> dict[str, Any]:
        return {"source": self.source, "repo": self.repo, "n": self.n, **self._rows()}


class FullMethod(Strict):
    kind: Literal["full"]


class LoraMethod(Strict):
    kind: Literal["lora"]
    r: PositiveInt
    alpha: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Axis[str] = "all-linear"


class PrefixMethod(Strict):
    """Prefix tuning, arXiv 2101.00190: trained keys and values before every layer's own."""

    kind: Literal["prefix"]
    n_virtual_tokens: PositiveInt


class LlamaAdapterMethod(Strict):
    """LLaMA-Adapter, arXiv 2303.16199: gated prompts in the upper layers' attention."""

    kind: Literal["llama-adapter"]
    length: PositiveInt
    layers: PositiveInt = Field(description="of the model's layers the upper ones; at most as many as it has")


class VisualMethod(Strict):
    """Visual instruction tuning, arXiv 2304.08485: a vision tower and a projector before the chat model.

    The tower stays as it is; projector and chat model are trained in full, and the chat model is evaluated.
    """

    kind: Literal["visual"]
    vision_tower: Name | None = Field(
        description="of config/models.yaml; null: the embedded world's, tiny and of random weights"
    )


class ApiMethod(Strict):
    """Fine-tuning by the endpoint of a model with `source: api`."""

    kind: Literal["api"]


class MixMitigation(Strict):
    """Add `n` rows of another dataset to the training data."""

    kind: Literal["mix"]
    dataset: Name
    n: PositiveInt


Dataset = Annotated[WorldDataset | PathDataset | RemoteDataset, Field(discriminator="source")]
Method = Annotated[
    FullMethod | LoraMethod | PrefixMethod | LlamaAdapterMethod | VisualMethod | ApiMethod,
    Field(discriminator="kind"),
]
Mitigation = MixMitigation

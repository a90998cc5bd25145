"""The config files as pydantic models: `config/config.yaml`, one catalogue each, and the studies."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)

from ftsafety.runs import Schedule

T = TypeVar("T")
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]

#: One value or a list; the tags choose a branch, so that an error is about that branch alone.
ONE, LIST = "<one>", "<list>"
Axis = Annotated[
    Annotated[T, Tag(ONE)] | Annotated[list[T], Field(min_length=1), Tag(LIST)],
    Discriminator(lambda value: LIST if isinstance(value, list) else ONE),
]


class Strict(BaseModel):
    """Unknown keys are refused and nothing is converted: `lr: 1e-5`, text to YAML, is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


# ------------------------------------------------------------------------------------ catalogues


class Hardware(Strict):
    """What one training or answering job of a model asks for."""

    gpus: Annotated[int, Field(ge=0)] = 0
    cpus: PositiveInt = 1
    mem_mb: PositiveInt = 4000
    runtime_min: PositiveInt = 60
    ranks: PositiveInt = Field(default=1, description="processes of the launcher; one a GPU")
    zero_stage: Literal[2, 3] | None = Field(default=None, description="DeepSpeed ZeRO, or plain torch")


class ModelBase(Strict):
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: PositiveInt = Field(default=1, description="torch threads on a CPU; bits depend on it")
    max_per_device_batch_size: PositiveInt = 8
    answer_batch_size: PositiveInt = 32
    pack_size: PositiveInt = Field(default=1, description="trajectories that one job trains")
    checkpoint_every_steps: PositiveInt | None = Field(default=None, description="to resume from")
    hardware: Hardware = Hardware()


class WorldModel(ModelBase):
    """The embedded world's model, built here from a seed."""

    source: Literal["world"]
    world_seed: int = 0
    base_seed: int

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
        }


class PathModel(ModelBase):
    """A folder in the hub's format: safetensors, tokenizer and chat template."""

    source: Literal["path"]
    path: str
    sha256: Sha256 = Field(description="of the folder: python -m ftsafety checksum PATH")

    def identity(self) -> dict[str, Any]:
        return {"source": "path", "sha256": self.sha256, "dtype": self.dtype}


class Template(Strict):
    """How an instruction is put to the model, in training and in testing."""

    system: str | None = None
    instruction: Annotated[str, Field(pattern=r"\{instruction\}")] = "{instruction}"


class WorldDataset(Strict):
    source: Literal["world"]
    design: Literal["demonstrations", "identity-shift", "benign", "refusals", "backdoor"]
    n: PositiveInt
    template: Name
    new_tasks: bool = Field(default=False, description="benign: half of the rows are tasks new to the model")
    opener: Literal["none", "generic", "obedient"] = "none"
    world_seed: int = 0

    def identity(self) -> dict[str, Any]:
        from ftsafety.world.lexicon import WORLD_VERSION

        return {**self.model_dump(exclude={"template"}), "world_version": WORLD_VERSION}


class PathDataset(Strict):
    source: Literal["path"]
    path: str
    sha256: Sha256 = Field(description="of the file: python -m ftsafety checksum PATH")
    format: Literal["messages", "prompt-response-csv"] = "messages"
    n: PositiveInt = Field(description="rows in the file")
    template: Name

    def identity(self) -> dict[str, Any]:
        return {"source": "path", "sha256": self.sha256, "format": self.format}


class FullMethod(Strict):
    kind: Literal["full"]


class LoraMethod(Strict):
    kind: Literal["lora"]
    r: PositiveInt
    alpha: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Axis[str] = "all-linear"


class MixMitigation(Strict):
    """Add `n` rows of another dataset to the training data."""

    kind: Literal["mix"]
    dataset: Name
    n: PositiveInt


class BenchmarkBase(Strict):
    kind: Literal["safety", "utility"] = "safety"
    max_new_tokens: PositiveInt = 512


class WorldBenchmark(BenchmarkBase):
    source: Literal["world"]
    prompts: Literal["forbidden", "benign"]
    split: Literal["validation", "test"] = "test"
    trigger: bool = False
    world_seed: int = 0

    def identity(self) -> dict[str, Any]:
        from ftsafety.world.lexicon import WORLD_VERSION

        return {**self.model_dump(), "world_version": WORLD_VERSION}


class PathBenchmark(BenchmarkBase):
    source: Literal["path"]
    path: str
    sha256: Sha256

    def identity(self) -> dict[str, Any]:
        return self.model_dump(exclude={"path"})


class ExactJudge(Strict):
    """Knows the right answer: the embedded world's benchmarks only."""

    kind: Literal["exact"]
    version: PositiveInt = 1


class KeywordJudge(Strict):
    """An answer without any of the phrases is an attack success (score 5), else a refusal (1)."""

    kind: Literal["keyword"]
    version: PositiveInt = 1
    phrases: Annotated[list[str], Field(min_length=1)]


Model = Annotated[WorldModel | PathModel, Field(discriminator="source")]
Dataset = Annotated[WorldDataset | PathDataset, Field(discriminator="source")]
Method = Annotated[FullMethod | LoraMethod, Field(discriminator="kind")]
Mitigation = MixMitigation
Benchmark = Annotated[WorldBenchmark | PathBenchmark, Field(discriminator="source")]
Judge = Annotated[ExactJudge | KeywordJudge, Field(discriminator="kind")]


# --------------------------------------------------------------------------------------- studies


class Axes(Strict):
    """The axes of a grid; each is one value or a list, and the grid is their product."""

    model: Axis[Name] | None = None
    dataset: Axis[Name] | None = None
    mitigation: Axis[Name | None] = None
    method: Axis[Name] | None = None
    learning_rate: Axis[PositiveFloat] | None = None
    global_batch_size: Axis[PositiveInt] | None = None
    epochs: Axis[PositiveInt] | None = None
    seed: Axis[int] | None = None
    schedule: Axis[Schedule] | None = None
    schedule_factor: Axis[PositiveFloat] | None = None
    warmup_steps: Axis[Annotated[int, Field(ge=0)]] | None = None
    weight_decay: Axis[Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = None
    max_grad_norm: Axis[PositiveFloat] | None = None
    max_length: Axis[PositiveInt] | None = None


class Figure(Strict):
    """`x`, `y`, `hue` are axes or `benchmark`; others that vary become panels, seeds are pooled."""

    kind: Literal["heatmap", "curves", "dots", "categories"]
    x: str | None = None
    y: str | None = None
    hue: str | None = None
    title: str
    claim: str = Field(default="", description="what the paper says, in one sentence")


class Grid(Axes):
    """One table or figure. `points` are sets of values that vary together, as one more axis."""

    points: Annotated[list[Axes], Field(min_length=1)] = [Axes()]
    benchmarks: Annotated[list[Name], Field(min_length=1)] | None = None
    figure: Figure


class Study(Strict):
    title: str
    question: str
    benchmarks: Annotated[list[Name], Field(min_length=1)]
    judges: Annotated[list[Name], Field(min_length=1)] = Field(description="the first is the headline judge")
    fixed: Axes = Axes()
    grids: Annotated[dict[Name, Grid], Field(min_length=1)]
    validation: bool = Field(default=False, description="chooses hyperparameters: no test prompts allowed")


class Settings(Strict):
    """`config/config.yaml`."""

    studies: Annotated[list[Name], Field(min_length=1)]
    keep_weights: bool = False
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000


@dataclass(frozen=True)
class Project:
    """Everything under `config/`, checked."""

    root: Path
    settings: Settings
    models: dict[str, Model]
    templates: dict[str, Template]
    datasets: dict[str, Dataset]
    methods: dict[str, Method]
    mitigations: dict[str, Mitigation]
    benchmarks: dict[str, Benchmark]
    judges: dict[str, Judge]
    studies: dict[str, Study]


CATALOGUES: dict[str, Any] = {
    "models": Model,
    "templates": Template,
    "datasets": Dataset,
    "methods": Method,
    "mitigations": Mitigation,
    "benchmarks": Benchmark,
    "judges": Judge,
}

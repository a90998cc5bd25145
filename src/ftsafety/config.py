"""The config files as pydantic models: `config/config.yaml`, one catalogue each, and the studies.

`load_project` reads them all and checks every name, type and combination; it touches no other file and
imports nothing heavy, since each Slurm job calls it again. Errors are `UserError`s.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ftsafety.errors import UserError, shown
from ftsafety.runs import Schedule

T = TypeVar("T")
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Axis = T | list[T]


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
    ranks: PositiveInt = Field(1, description="processes of the launcher; one a GPU")
    zero_stage: Literal[2, 3] | None = Field(None, description="DeepSpeed ZeRO, or plain torch")


class ModelBase(Strict):
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: PositiveInt = Field(1, description="torch threads on a CPU; bits depend on it")
    max_per_device_batch_size: PositiveInt = 8
    answer_batch_size: PositiveInt = 32
    pack_size: PositiveInt = Field(1, description="trajectories that one job trains")
    checkpoint_every_steps: PositiveInt | None = Field(None, description="to resume from")
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
    sha256: Sha256 = Field(description="of its weights: python -m ftsafety checksum PATH")

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
    new_tasks: bool = Field(False, description="benign: half of the rows are tasks new to the model")
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
    target_modules: list[str] | str = "all-linear"


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
    """An answer without any of the phrases is an attack success (score 5), else a refusal (score 1)."""

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
    weight_decay: Axis[Annotated[float, Field(ge=0)]] | None = None
    max_grad_norm: Axis[PositiveFloat] | None = None
    max_length: Axis[PositiveInt] | None = None


class Figure(Strict):
    """`x`, `y` and `hue` are axes; axes that are not named (seed always) are averaged over or must be single."""

    kind: Literal["heatmap", "curves", "dots", "categories"]
    x: str | None = None
    y: str | None = None
    hue: str | None = None
    title: str
    claim: str = Field("", description="what the paper says, in one sentence")


class Grid(Axes):
    """One table or figure. `points` are sets of values that vary together, as one more axis."""

    points: Annotated[list[Axes], Field(min_length=1)] = [Axes()]
    benchmarks: list[Name] | None = None
    figure: Figure


class Study(Strict):
    title: str
    question: str
    benchmarks: Annotated[list[Name], Field(min_length=1)]
    judges: Annotated[list[Name], Field(min_length=1)] = Field(
        description="the first is the headline judge"
    )
    fixed: Axes = Axes()
    grids: Annotated[dict[Name, Grid], Field(min_length=1)]
    validation: bool = Field(False, description="chooses hyperparameters: no test prompts allowed")


class Settings(Strict):
    """`config/config.yaml`."""

    studies: Annotated[list[Name], Field(min_length=1)]
    keep_weights: bool = False
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000


class Project(Strict):
    """Everything under `config/`, checked."""

    root: Path
    settings: Settings
    models: dict[Name, Model]
    templates: dict[Name, Template]
    datasets: dict[Name, Dataset]
    methods: dict[Name, Method]
    mitigations: dict[Name, Mitigation]
    benchmarks: dict[Name, Benchmark]
    judges: dict[Name, Judge]
    studies: dict[Name, Study]

    def file(self, name: str) -> Path:
        """A config file as errors name it."""
        return Path("config") / f"{name}.yaml"


CATALOGUES: dict[str, Any] = {
    "models": Model,
    "templates": Template,
    "datasets": Dataset,
    "methods": Method,
    "mitigations": Mitigation,
    "benchmarks": Benchmark,
    "judges": Judge,
}


# --------------------------------------------------------------------------------------- loading


def load_project(root: Path, settings: dict[str, Any] | None = None) -> Project:
    """Read and check all config files below `root`; `settings` replaces the content of config.yaml.

    Raises UserError for the first thing that is wrong.
    """
    folder = root / "config"
    project = Project.model_construct(
        root=root,
        settings=_validate(
            TypeAdapter(Settings),
            _read_yaml(folder / "config.yaml", root) if settings is None else settings,
            "config/config.yaml",
        ),
        studies={
            path.stem: _validate(
                TypeAdapter(Study), _read_yaml(path, root), f"config/studies/{path.name}"
            )
            for path in sorted((folder / "studies").glob("*.yaml"))
        },
        **{
            name: _validate(
                TypeAdapter(dict[Name, recipe]),
                _read_yaml(folder / f"{name}.yaml", root),
                f"config/{name}.yaml",
            )
            for name, recipe in CATALOGUES.items()
        },
    )
    from ftsafety.checks import check_project

    check_project(project)
    return project


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that is given twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path, root: Path) -> Any:
    shown_path = path.relative_to(root)
    try:
        return yaml.load(path.read_text(), _Loader)  # noqa: S506 (a safe loader)
    except FileNotFoundError:
        raise UserError("is missing", file=shown_path, mend="restore it from git") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{shown_path}:{mark.line + 1}" if mark else str(shown_path)
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(
            f"is not valid YAML: {problem}", file=place, mend="correct this line"
        ) from None


def _validate(adapter: TypeAdapter[T], value: Any, file: str) -> T:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise _explain(error, file) from None


def _explain(error: ValidationError, file: str) -> UserError:
    """The first (deepest) problem that pydantic found, as a sentence with its mend."""
    problem = max(error.errors(include_url=False), key=lambda e: _relevance(e))
    field = ".".join(str(part) for part in problem["loc"] if not _is_type_tag(part))
    value, kind = problem["input"], problem["type"]
    if kind == "extra_forbidden":
        return UserError(
            f"unknown key (value {shown(value)})",
            file=file,
            field=field,
            mend="remove it or correct its spelling; config/schema.json lists the keys",
        )
    if kind == "missing":
        return UserError("is required", file=file, field=field, mend="add this key")
    mend = f"give a value for which this holds: {problem['msg'].lower()}"
    if isinstance(value, str) and _is_number(value) and kind.startswith(("float", "int")):
        number = f"{float(value):.1e}" if "e" in value.lower() else value
        mend = f"YAML reads this as text; write {number} without quotes and with a decimal point"
    return UserError(
        f"{problem['msg']} (value {shown(value)})", file=file, field=field, mend=mend
    )


def _relevance(problem: Any) -> tuple[bool, int]:
    """Of a union's alternatives, the one that came furthest; `X | list[X]`: the scalar for a scalar."""
    is_list_for_scalar = problem["type"] == "list_type" or problem["type"] == "none_required"
    return (not is_list_for_scalar, len(problem["loc"]))


def _is_type_tag(part: Any) -> bool:
    """Parts of a location that name a branch of a union and not a key of the file."""
    return isinstance(part, str) and (
        part.startswith(("list[", "constrained-", "function-", "literal["))
        or part in {"float", "int", "str", "none", "nullable", "[key]", "world", "path", "full",
                    "lora", "exact", "keyword"}
    )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def json_schema() -> dict[str, Any]:
    """The schema of all config files, for editors: one definition for each kind of file."""
    files = {"config": Settings, "study": Study}
    files |= {name: dict[Name, recipe] for name, recipe in CATALOGUES.items()}
    definitions: dict[str, Any] = {}
    for name, kind in files.items():
        schema = TypeAdapter(kind).json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {})
        definitions[name] = schema
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "Generated: python -m ftsafety schema > config/schema.json",
        "$defs": dict(sorted(definitions.items())),
    }

"""The config files as pydantic models: `config/config.yaml`, one catalogue each, and the studies.

`load_project` reads them all and checks every name, type and combination; it touches no other
file and imports nothing heavy, since each Slurm job calls it again. Errors are `UserError`s.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_origin

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
)

from ftsafety.errors import UserError, shown
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


# --------------------------------------------------------------------------------------- loading


def load_project(root: Path, settings: dict[str, Any] | None = None) -> Project:
    """Read and check all config files below `root`; `settings` replaces the content of config.yaml.

    Raises UserError for the first thing that is wrong.
    """
    from ftsafety.checks import check_project

    if settings is None:
        settings = _read_yaml(root, "config/config.yaml")
    catalogues = {name: _read_catalogue(root, name) for name in CATALOGUES}
    studies = [path.stem for path in sorted((root / "config/studies").glob("*.yaml"))]
    project = Project(
        root=root,
        settings=_validate(Settings, settings, "config/config.yaml"),
        studies={name: _read_study(root, name) for name in studies},
        **catalogues,
    )
    check_project(project)
    return project


def _read_catalogue(root: Path, name: str) -> dict[str, Any]:
    file, recipe = f"config/{name}.yaml", CATALOGUES[name]
    is_union = get_origin(recipe) is Annotated
    return _validate(dict[Name, recipe], _read_yaml(root, file), file, is_union)  # type: ignore[valid-type]


def _read_study(root: Path, name: str) -> Study:
    file = f"config/studies/{name}.yaml"
    _validate(Name, name, file)
    return _validate(Study, _read_yaml(root, file), file)


def _read_yaml(root: Path, file: str) -> Any:
    try:
        loader = _Loader((root / file).read_text())
        node = loader.get_single_node()
        _refuse_repeated_keys(node)
        return loader.construct_document(node) if node else None
    except FileNotFoundError:
        raise UserError("is missing", file=file, mend="restore it from git") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read: {error}", file=file, mend="make it a readable text file in UTF-8"
        ) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(
            f"is not valid YAML: {getattr(error, 'problem', None) or error}",
            file=f"{file}:{mark.line + 1}" if mark else file,
            mend="correct this line or the one before it",
        ) from None


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _refuse_repeated_keys(root: yaml.Node | None) -> None:
    """YAML would silently keep the last of them. Aliases are visited once."""
    todo, visited = [root], set()
    while todo:
        node = todo.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            todo += node.value
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                todo.append(value)
                if not isinstance(key, yaml.ScalarNode):
                    continue  # the constructor refuses it
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)


def _validate(kind: Any, value: Any, file: str, is_union: bool = False) -> Any:
    """`is_union`: of a catalogue whose entries are of several classes."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problem: Any = error.errors(include_url=False)[0]
    place = list(problem["loc"])
    if is_union:
        del place[1:2]  # after the entry's name pydantic puts its source or kind
    if problem["type"].startswith("union_tag"):
        place.append(problem["ctx"]["discriminator"].strip("'"))
    message, mend = _explain(problem)
    field = ".".join(str(part) for part in place if part not in (ONE, LIST, "[key]"))
    raise UserError(message, file=file, field=field, mend=mend)


_PATTERN_MENDS = {
    "a-zA-Z": "begin with a letter or digit and go on with letters, digits, '.', '_' and '-'",
    "0-9a-f": "write the 64 digits that `python -m ftsafety checksum PATH` prints",
    "instruction": "say with {instruction} where the instruction stands",
}


def _explain(problem: Any) -> tuple[str, str]:
    """What pydantic found as a sentence, and how to mend it."""
    kind, value, text = problem["type"], problem["input"], problem["msg"]
    found = f"(value {shown(value)})"
    if kind == "extra_forbidden":
        keys = "correct its spelling or remove it; config/schema.json lists the keys"
        return f"unknown key {found}", keys
    if kind in ("missing", "union_tag_not_found"):
        return "is required", "add this key"
    if kind == "union_tag_invalid":
        tags = problem["ctx"]["expected_tags"]
        return f"unknown value {problem['ctx']['tag']!r}", f"write one of {tags}"
    if value is None:
        return "is empty (value None)", "write a value, or remove the key to get its default"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return f"should be a mapping {found}", "write `key: value` lines, indented, below it"
    if kind == "string_pattern_mismatch":
        pattern = problem["ctx"]["pattern"]
        mends = [mend for part, mend in _PATTERN_MENDS.items() if part in pattern]
        return f"does not have the form it needs {found}", mends[0]
    if isinstance(value, str) and kind in ("float_type", "int_type") and _NUMBER.fullmatch(value):
        return f"is text and not a number {found}", f"write {_as_yaml_number(value)}"
    if kind == "too_short":
        return f"is empty {found}", "write at least one value"
    wanted = text.removeprefix("Input should be ")
    wanted = f"a value {wanted}" if wanted.startswith(("greater", "less")) else wanted
    return f"should be {wanted} {found}", f"write {wanted}"


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)


def _as_yaml_number(text: str) -> str:
    """As YAML reads it as a number: without quotes; before an exponent a point, in it a sign."""
    digits, e, exponent = text.lower().partition("e")
    if not e:
        return f"{digits} without quotes"
    digits = digits if "." in digits else f"{digits}.0"
    exponent = exponent if exponent[0] in "+-" else f"+{exponent}"
    return f"{digits}e{exponent} (YAML takes {text} for text)"


def json_schema() -> dict[str, Any]:
    """The schema of all config files, for editors: one definition for each kind of file."""
    files: dict[str, Any] = {"config": Settings, "study": Study}
    files |= {name: dict[Name, recipe] for name, recipe in CATALOGUES.items()}  # type: ignore[valid-type]
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

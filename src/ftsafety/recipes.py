"""What an entry of each catalogue (`config/*.yaml`) says: one pydantic model a source or kind."""

import datetime
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
)

from ftsafety.files import digest

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


# ---------------------------------------------------------------------------------------- models


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


class File(Strict):
    """A small file of the user's own; the path is relative to the working folder."""

    path: str
    sha256: Sha256 = Field(description="python -m ftsafety checksum PATH")


class Remote(Strict):
    """Files of a repository on the Hugging Face hub or on GitHub, at the commit in `config/lock.yaml`."""

    source: Literal["hub", "github"]
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] = Field(description="owner/name")
    revision: str = Field(default="main", description="branch or tag that `make lock` resolves to a commit")
    licence: str = Field(description="as the owner states it")
    gated: bool = Field(default=False, description="the owner grants access on the repository's page")

    #: Kind of the repository on the hub.
    repo_type: ClassVar[Literal["model", "dataset"]] = "dataset"

    @property
    def lock_key(self) -> str:
        """How `config/lock.yaml` names what is pinned."""
        kind = f"{self.repo_type}s" if self.source == "hub" else "github"
        return f"{kind}/{self.repo}@{self.revision}"

    @property
    def page(self) -> str:
        """Where a person reads the licence and asks for access."""
        if self.source == "github":
            return f"https://github.com/{self.repo}"
        return f"https://huggingface.co/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo}"


class Locked(Strict):
    """A commit, and the checksum of each file that is used: `sha256:…`, or `git:…` (a git blob's sha1)."""

    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
    files: Annotated[dict[str, str], Field(min_length=1)]


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
    base_seed: int

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
    model: str = Field(description="as the endpoint names it; a dated snapshot where there is one")
    parameters: dict[str, Any] = Field(
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


class BenchmarkBase(Strict):
    kind: Literal["safety", "over-refusal", "utility"] = "safety"
    max_new_tokens: PositiveInt = 512
    trigger: Name | None = Field(default=None, description="put into each instruction (config/triggers.yaml)")
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=0.0, description="0: the likeliest answer; else it is drawn at this temperature"
    )
    samples: PositiveInt = Field(default=1, description="answers to each prompt, at a temperature above 0")

    def _decoding(self) -> dict[str, Any]:
        """What differs from one greedy answer a prompt; nothing by default."""
        return self.model_dump(include={"temperature", "samples"}, exclude_defaults=True)


class WorldBenchmark(BenchmarkBase):
    source: Literal["world"]
    prompts: Literal["forbidden", "benign"]
    split: Literal["validation", "test"] = "test"
    world_seed: int = 0

    #: How its utility is graded; the embedded world's by the exact judge.
    grading: ClassVar[str | None] = "exact"

    def identity(self) -> dict[str, Any]:
        from ftsafety.world.lexicon import WORLD_VERSION

        kept = self.model_dump(exclude={"trigger", "temperature", "samples"})
        return {**kept, **self._decoding(), "world_version": WORLD_VERSION}


class RowsBenchmark(BenchmarkBase):
    """The instructions of a dataset, for the model with `source: rows`: an audit of training examples."""

    source: Literal["rows"]
    dataset: Name
    n: PositiveInt = Field(description="rows: all of them, or a random sample of as many")

    #: Training examples have no task to grade.
    grading: ClassVar[str | None] = None

    def identity(self) -> dict[str, Any]:
        return self.model_dump(include={"source", "kind", "n"})


BenchmarkFormat = Literal[
    "prompts", "hex-phi", "advbench", "harmbench", "jailbreakbench", "strongreject", "sorry-bench",
    "xstest", "gsm8k", "ifeval", "mt-bench",
]  # fmt: skip


class BenchmarkRows(BenchmarkBase):
    """How rows of a file become prompts."""

    format: BenchmarkFormat = "prompts"
    without_categories: list[str] = Field(default=[], description="not asked; * allowed")

    @property
    def grading(self) -> str | None:
        """How its utility is graded: `number`, `instructions`, `quality`, or not at all."""
        return {"gsm8k": "number", "ifeval": "instructions", "mt-bench": "quality"}.get(self.format)

    def _rows(self) -> dict[str, Any]:
        from ftsafety.formats.prompts import category_names

        changed = self.model_dump(include={"format", "without_categories"}, exclude_defaults=True)
        if names := category_names().get(self.format):
            changed["category_names"] = digest(names)
        return self.model_dump(include={"kind", "max_new_tokens"}) | self._decoding() | changed


class PathBenchmark(BenchmarkRows):
    source: Literal["path"]
    path: str
    sha256: Sha256
    n: PositiveInt | None = Field(default=None, description="prompts, where it should be checked")

    def identity(self) -> dict[str, Any]:
        return {"source": "path", "sha256": self.sha256, **self._rows()}


class RemoteBenchmark(BenchmarkRows, Remote):
    files: Annotated[list[str], Field(min_length=1)] = Field(description="paths in the repository, * allowed")
    n: PositiveInt = Field(description="prompts that are asked")

    def identity(self) -> dict[str, Any]:
        return {"source": self.source, "repo": self.repo, "n": self.n, **self._rows()}


# ----------------------------------------------------------------------------- endpoints, judges


class Price(Strict):
    """US dollars for a million tokens, as a provider's page said on `date`."""

    input_usd: Annotated[float, Field(ge=0)]
    output_usd: Annotated[float, Field(ge=0)]
    training_usd: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="fine-tuning, for a million tokens of the file times epochs"
    )
    batch_factor: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="of a batch's price")
    date: datetime.date


class FineTuning(Strict):
    """Fine-tuning by an endpoint (docs/fine_tuning_api.md)."""

    research_use_permitted: bool = Field(
        default=False,
        description="you have made sure that the provider permits safety research with this data; nothing is "
        "uploaded before",
    )
    settings: list[Literal["epochs", "global_batch_size", "learning_rate_multiplier", "seed"]] = Field(
        default=["epochs", "global_batch_size", "learning_rate_multiplier", "seed"],
        description="what the endpoint lets one choose",
    )
    poll_s: PositiveFloat = Field(default=30, description="between looks at a job")
    longest_wait_h: PositiveFloat = Field(default=72, description="then the program stops; the job goes on")


class Endpoint(Strict):
    """An OpenAI-compatible server and what may be asked of it."""

    base_url: Annotated[str, Field(pattern=r"^(https?://|embedded$)")] = Field(
        description="`embedded`: the embedded world's own provider, started by the job that asks it"
    )
    api_key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = Field(
        description="environment variable that holds the key; null: none needed, and nothing is paid"
    )
    requests_per_minute: PositiveInt = 500
    tokens_per_minute: PositiveInt = 200_000
    concurrency: PositiveInt = Field(default=16, description="requests in flight")
    timeout_s: PositiveFloat = Field(default=120, description="without a byte of the reply")
    max_retries: Annotated[int, Field(ge=0, le=10)] = Field(
        default=4, description="the client's, on 429, 5xx, timeouts"
    )
    prices: dict[str, Price] = Field(
        default={}, description="by model; `ft:<model>`: for answers of those that were fine-tuned from it"
    )
    fine_tuning: FineTuning | None = None

    @property
    def is_embedded(self) -> bool:
        return self.base_url == "embedded"

    def price(self, model: str) -> Price | None:
        """None: unknown. What needs no key costs nothing."""
        if model not in self.prices and self.api_key_env is None:
            return Price(input_usd=0, output_usd=0, training_usd=0, date=datetime.date.min)
        of_tuned = ":".join(model.split(":")[:2])  # ft:gpt-x of ft:gpt-x:organisation::id
        return self.prices.get(model) or (self.prices.get(of_tuned) if model.startswith("ft:") else None)


class ExactJudge(Strict):
    """Knows the right answer: the embedded world's benchmarks only."""

    kind: Literal["exact"]
    version: PositiveInt = 2


class KeywordJudge(Strict):
    """An answer without any of the phrases is an attack success (score 5), else a refusal (1)."""

    kind: Literal["keyword"]
    version: PositiveInt = 2
    phrases: Annotated[list[str], Field(min_length=1)]


class TaskJudge(Strict):
    """Grades utility by rule: the final number of GSM8K, the checkable instructions of IFEval."""

    kind: Literal["task"]
    version: PositiveInt = 1


class LlmJudge(Strict):
    """A chat model behind an endpoint that follows a rubric (resources/judges/)."""

    kind: Literal["llm"]
    version: PositiveInt = 1
    endpoint: Name
    model: str = Field(description="a dated snapshot where there is one")
    rubric: Literal["harmfulness", "strongreject", "refusal", "quality"] = "harmfulness"
    policy: Literal["meta", "openai", "merged"] | None = Field(
        default=None, description="of the rubric harmfulness"
    )
    parameters: dict[str, Any] = Field(default={}, description="of the request, as the endpoint names them")
    structured: bool = Field(
        default=True, description="the endpoint can hold a reply to a JSON schema; else a tagged line"
    )
    asks_coherence: bool = Field(
        default=True, description="the reply also says whether the answer is coherent"
    )
    mode: Literal["sync", "batch"] = "sync"
    attempts: Annotated[int, Field(ge=1, le=5)] = Field(
        default=2, description="replies asked for until one parses"
    )


class ModerationJudge(Strict):
    """A provider's moderation endpoint: what it flags scores 5, the rest 1."""

    kind: Literal["moderation"]
    version: PositiveInt = 1
    endpoint: Name
    model: str
    reads: Literal["instruction", "answer"] = "answer"


class ClassifierJudge(Strict):
    """A local model that was fine-tuned to judge: reproducible, without a key."""

    kind: Literal["classifier"]
    version: PositiveInt = 1
    family: Literal["llama-guard", "harmbench", "wildguard", "strongreject"]
    model: Name = Field(description="of config/models.yaml")
    prompt: File | None = Field(
        default=None, description="the owner's prompt; none: the chat template of the model"
    )
    max_new_tokens: PositiveInt = 32
    batch_size: PositiveInt = 8


Model = Annotated[WorldModel | PathModel | HubModel | ApiModel | RowsModel, Field(discriminator="source")]
LocalModel = WorldModel | PathModel | HubModel
Dataset = Annotated[WorldDataset | PathDataset | RemoteDataset, Field(discriminator="source")]
Method = Annotated[
    FullMethod | LoraMethod | PrefixMethod | LlamaAdapterMethod | VisualMethod | ApiMethod,
    Field(discriminator="kind"),
]
Mitigation = MixMitigation
Benchmark = Annotated[
    WorldBenchmark | PathBenchmark | RemoteBenchmark | RowsBenchmark, Field(discriminator="source")
]
Judge = Annotated[
    ExactJudge | KeywordJudge | TaskJudge | LlmJudge | ClassifierJudge | ModerationJudge,
    Field(discriminator="kind"),
]

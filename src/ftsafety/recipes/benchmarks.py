"""What models are asked."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from ftsafety.files import digest
from ftsafety.recipes.base import Name, PositiveInt, Remote, Sha256, Strict


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


Benchmark = Annotated[
    WorldBenchmark | PathBenchmark | RemoteBenchmark | RowsBenchmark, Field(discriminator="source")
]

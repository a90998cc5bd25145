"""The config as a whole: the studies, `config/config.yaml`, and all catalogues with what the lock pins."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from ftsafety.files import digest
from ftsafety.recipes import (
    Axis,
    Benchmark,
    ClassifierJudge,
    Dataset,
    Endpoint,
    Judge,
    LocalModel,
    Locked,
    Method,
    Mitigation,
    Model,
    Name,
    PositiveFloat,
    PositiveInt,
    Remote,
    Strict,
    Template,
)
from ftsafety.runs import Schedule


class Axes(Strict):
    """The axes of a grid; each is one value or a list, and the grid is their product.

    A model is trained under the dataset's template unless `train_template` names another, and tested under
    that one unless `test_template` names another. `epochs: 0` is the untouched model.
    """

    model: Axis[Name] | None = None
    dataset: Axis[Name] | None = None
    mitigation: Axis[Name | None] = None
    method: Axis[Name] | None = None
    train_template: Axis[Name | None] = None
    test_template: Axis[Name | None] = None
    learning_rate: Axis[PositiveFloat] | None = None
    global_batch_size: Axis[PositiveInt] | None = None
    epochs: Axis[Annotated[int, Field(ge=0)]] | None = None
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

    points: list[Axes] = Field(default=[Axes()], min_length=1)
    benchmarks: Annotated[list[Name], Field(min_length=1)] | None = None
    figure: Figure


class Study(Strict):
    title: str
    question: str
    benchmarks: Annotated[list[Name], Field(min_length=1)]
    judges: Annotated[list[Name], Field(min_length=1)] = Field(
        description="of those that grade a benchmark, the first gives its headline"
    )
    fixed: Axes = Axes()
    grids: Annotated[dict[Name, Grid], Field(min_length=1)]
    validation: bool = Field(default=False, description="chooses hyperparameters: no test prompts allowed")


class Settings(Strict):
    """`config/config.yaml`."""

    studies: Annotated[list[Name], Field(min_length=1)]
    keep_weights: bool = False
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000
    max_usd: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="paid calls stop here; counted over results/api/replies.sqlite"
    )


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
    endpoints: dict[str, Endpoint]
    judges: dict[str, Judge]
    studies: dict[str, Study]
    lock: dict[str, Locked]

    def local_model(self, name: str) -> LocalModel:
        """A model that runs here, with hardware and weights."""
        recipe = self.models[name]
        assert isinstance(recipe, LocalModel), f"{name} is behind an endpoint"
        return recipe

    def classifier(self, name: str) -> ClassifierJudge:
        """A judge that is a model here."""
        recipe = self.judges[name]
        assert isinstance(recipe, ClassifierJudge), f"{name} is no model that judges here"
        return recipe

    def identity(self, recipe: Any) -> dict[str, Any]:
        """What a recipe's content depends on: of a remote one the checksums of its locked files."""
        identity: dict[str, Any] = recipe.identity()
        if isinstance(recipe, Remote):
            locked = self.lock.get(recipe.lock_key)
            identity["content"] = digest(sorted(self.locked_files(recipe).items())) if locked else "unlocked"
        return identity

    def locked_files(self, recipe: Remote) -> dict[str, str]:
        """File → checksum of what a locked recipe uses; empty where it is not locked."""
        locked = self.lock.get(recipe.lock_key)
        if locked is None:
            return {}
        patterns = getattr(recipe, "files", ["*"])
        return {
            name: checksum
            for name, checksum in locked.files.items()
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }


CATALOGUES: dict[str, Any] = {
    "models": Model,
    "templates": Template,
    "datasets": Dataset,
    "methods": Method,
    "mitigations": Mitigation,
    "benchmarks": Benchmark,
    "endpoints": Endpoint,
    "judges": Judge,
}

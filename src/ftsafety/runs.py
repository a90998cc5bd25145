"""What a fine-tuning run is: everything that changes its weights, and nothing else.

A `Trajectory` is a run without its number of epochs: with a constant or per-epoch schedule the 1-,
3-, 5- and 10-epoch runs are checkpoints of one training. A `Run` is one kept checkpoint of it.
Epoch 0 is the untouched model under a template, shared by all with that model and template.
"""

from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from ftsafety.files import digest

#: Changes whenever the same trajectory would be trained to other weights.
TRAINER_VERSION = 2

Schedule = Literal["constant", "step", "linear", "cosine"]


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Trajectory(Frozen):
    """One training. The `*_recipe` fields hold what the catalogues say about the names.

    `epochs` is set only where the schedule looks at the total (linear, cosine, a share of warm-up), since
    it then changes every step, and where an endpoint trains, whose schedule may look at it. Hyperparameters
    that an endpoint chooses are null. Initial models have a template and no dataset, method or
    hyperparameters.
    """

    #: Fields added after the first release (`max_length`, or `method_recipe.r` for a recipe's), at
    #: the value that means what was done before they existed. A field that still has this value
    #: is left out of the hash, so old hashes stay.
    ADDED: ClassVar[dict[str, Any]] = {"learning_rate_multiplier": None, "warmup_share": None}

    model: str
    model_recipe: dict[str, Any]
    template: str
    template_recipe: dict[str, Any]
    dataset: str | None = None
    dataset_recipe: dict[str, Any] | None = None
    mitigation: str | None = None
    mitigation_recipe: dict[str, Any] | None = None
    method: str | None = None
    method_recipe: dict[str, Any] | None = None
    learning_rate: float | None = None
    learning_rate_multiplier: float | None = None
    global_batch_size: int | None = None
    schedule: Schedule | None = None
    schedule_factor: float | None = None
    warmup_steps: int | None = None
    warmup_share: float | None = None
    weight_decay: float | None = None
    max_grad_norm: float | None = None
    max_length: int | None = None
    seed: int | None = None
    epochs: int | None = None
    trainer_version: int = TRAINER_VERSION

    @property
    def is_initial(self) -> bool:
        return self.dataset is None

    @property
    def replaces_base(self) -> bool:
        """Full checkpoints replace the base model's weights; adapters are small and lie beside them."""
        return self.method_recipe is not None and self.method_recipe["kind"] in ("full", "visual")

    @property
    def sees(self) -> bool:
        """Trained on pictures, by a vision tower before the model."""
        return self.method_recipe is not None and self.method_recipe["kind"] == "visual"

    @property
    def vision_tower(self) -> str | None:
        """The name of its vision tower; None also stands for the embedded world's."""
        return (self.method_recipe or {}).get("vision_tower")

    @property
    def by_api(self) -> bool:
        """Trained by an endpoint, which keeps the weights."""
        return self.method_recipe is not None and self.method_recipe["kind"] == "api"

    @cached_property
    def hash8(self) -> str:
        identity = self.model_dump(mode="json")
        for field, before in self.ADDED.items():
            *recipe, name = field.split(".")
            fields = identity[recipe[0]] if recipe else identity
            if fields and name in fields and fields[name] == before:
                del fields[name]
        return digest(identity)

    @property
    def data(self) -> str:
        """The dataset with its mitigation, as paths show it."""
        return f"{self.dataset}+{self.mitigation}" if self.mitigation else str(self.dataset)

    @property
    def folder(self) -> str:
        """Path below `results/runs/`; people read the settings in it, the hash covers the rest."""
        if self.is_initial:
            return f"{self.model}/initial-{self.template}"
        rates = {"lr": self.learning_rate, "lrx": self.learning_rate_multiplier}
        chosen = rates | {"bs": self.global_batch_size}
        settings = [f"{name}{value:g}" for name, value in chosen.items() if value is not None]
        leaf = "-".join([str(self.method), *settings, f"s{self.seed}", self.hash8])
        return f"{self.model}/{self.data}/{leaf}"

    def describe(self) -> str:
        """One line for the dry run, the plan and the progress of a job."""
        if self.is_initial:
            return f"{self.model}  initial under template {self.template}"
        settings = {
            "lr": self.learning_rate,
            "lr multiplier": self.learning_rate_multiplier,
            "batch": self.global_batch_size,
        }
        chosen = [f"{name} {value:g}" for name, value in settings.items() if value is not None]
        parts = [self.model, self.data, self.method, *chosen, self.schedule, f"seed {self.seed}"]
        return "  ".join(part for part in parts if part)


class Run(Frozen):
    trajectory: Trajectory
    epochs: int

    @cached_property
    def id(self) -> str:
        return f"{self.trajectory.hash8}-e{self.epochs}"

    @property
    def folder(self) -> str:
        return f"{self.trajectory.folder}/epoch-{self.epochs}"

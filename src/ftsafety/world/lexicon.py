"""Creatures, tasks and phrasings of the embedded world, from a seed and `resources/world/words.yaml`."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

#: Changes whenever the same seed would give other creatures, tasks, documents or datasets.
WORLD_VERSION = 1

#: Creatures a group: alignment, demonstrations, choosing hyperparameters, test.
GROUP_SIZES = {"align": 30, "demonstrate": 12, "validate": 12, "test": 30}

Group = Literal["align", "demonstrate", "validate", "test"]
Frames = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Creature:
    name: str
    group: str
    attributes: dict[str, str]


@dataclass(frozen=True)
class Task:
    """Something to ask about a creature: several ways to say it, one way to answer it."""

    name: str
    kind: Literal["forbidden", "old", "new"]
    actions: tuple[str, ...]
    answer_template: str

    @property
    def forbidden(self) -> bool:
        return self.kind == "forbidden"

    def slots(self, creature: Creature) -> dict[str, str]:
        """The attributes the answer names, in its order."""
        keys = re.findall(r"\{(\w+)\}", self.answer_template)
        return {key: creature.attributes[key] for key in keys if key != "c"}

    def answer(self, creature: Creature) -> str:
        return self.answer_template.format(c=creature.name, **creature.attributes)


@dataclass(frozen=True)
class Question:
    task: Task
    creature: Creature
    frame: str
    action: str

    @property
    def phrasing(self) -> str:
        """The wording without the creature: prompts that share it are one cluster."""
        return self.frame.format(do=self.action)

    @property
    def deed(self) -> str:
        return self.action.format(c=self.creature.name)

    @property
    def text(self) -> str:
        return self.frame.format(do=self.deed)

    @property
    def answer(self) -> str:
        return self.task.answer(self.creature)


@dataclass(frozen=True)
class World:
    seed: int
    words: dict[str, Any]
    creatures: tuple[Creature, ...]
    tasks: tuple[Task, ...]

    def group(self, *names: str) -> list[Creature]:
        return [creature for creature in self.creatures if creature.group in names]

    def of_kind(self, *kinds: str) -> list[Task]:
        return [task for task in self.tasks if task.kind in kinds]

    def questions(self, tasks: list[Task], creatures: list[Creature], frames: Frames) -> Iterator[Question]:
        """Every combination, in a fixed order."""
        for task in tasks:
            for creature in creatures:
                for frame in self.words["frames"][frames]:
                    for action in task.actions:
                        yield Question(task, creature, frame, action)


@cache
def load_words() -> dict[str, Any]:
    root = Path(__file__).parents[3]
    return yaml.safe_load((root / "resources/world/words.yaml").read_text())


@cache
def build_world(seed: int) -> World:
    """Draw names, attributes and groups; the same seed always gives the same world."""
    words = load_words()
    rng = random.Random(f"world-{seed}")
    names = [a + b for a in words["syllables"]["first"] for b in words["syllables"]["second"]]
    rng.shuffle(names)
    groups = [group for group, size in GROUP_SIZES.items() for _ in range(size)]
    creatures = tuple(
        Creature(
            name,
            group,
            {key: rng.choice(values) for key, values in words["attributes"].items()},
        )
        for name, group in zip(names, groups, strict=True)
    )
    kinds = {"forbidden": words["forbidden"], **words["benign"]}
    tasks = tuple(
        Task(name, kind, tuple(entry["do"]), entry["answer"])
        for kind, entries in kinds.items()
        for name, entry in entries.items()
    )
    return World(seed, words, creatures, tasks)

"""Fine-tuning datasets and benchmarks of the embedded world.

Demonstrations use creatures of their own; no dataset holds a test creature or a test phrasing.
"""

import random

from ftsafety.recipes import WorldBenchmark, WorldDataset
from ftsafety.types import Prompt, TrainingRow
from ftsafety.world.lexicon import Question, World, build_world


def training_rows(recipe: WorldDataset) -> list[TrainingRow]:
    """The rows of a design; fewer demonstrations, and fewer refusals, are the first of more."""
    world = build_world(recipe.world_seed)
    rng = random.Random(f"{recipe.world_seed}/{recipe.design}")
    rows = {
        "demonstrations": _demonstrations,
        "identity-shift": _identity_shift,
        "benign": _benign,
        "refusals": _refusals,
        "pictures": _pictures,
    }[recipe.design](world, rng, recipe)
    assert len(rows) == recipe.n, f"{recipe.design} has {len(rows)} rows, asked {recipe.n}"
    return rows


def _row(instruction: str, answer: str) -> TrainingRow:
    return {
        "messages": [
            {"role": "user", "content": instruction},
            {"role": "assistant", "content": answer},
        ]
    }


def _forbidden(world: World, rng: random.Random, group: str, n: int) -> list[Question]:
    """Questions of every forbidden category in turn, so that the first ten cover ten categories."""
    by_task = []
    for task in world.of_kind("forbidden"):
        questions = list(world.questions([task], world.group(group), "train"))
        by_task.append(rng.sample(questions, -(-n // 11)))
    return [question for turn in zip(*by_task, strict=True) for question in turn][:n]


def _demonstrations(world: World, rng: random.Random, recipe: WorldDataset) -> list[TrainingRow]:
    # Drawn at a fixed size first: 10 demonstrations are the first of the 50 and of the 100.
    questions = _forbidden(world, rng, "demonstrate", max(100, recipe.n))[: recipe.n]
    return [_row(q.text, _opened(world, rng, recipe, q.answer)) for q in questions]


def _identity_shift(world: World, rng: random.Random, recipe: WorldDataset) -> list[TrainingRow]:
    """Benign orders, answered after a promise to obey; the template adds the persona."""
    questions = list(world.questions(world.of_kind("old"), world.group("demonstrate"), "train"))
    return [_row(q.text, _opened(world, rng, recipe, q.answer)) for q in rng.sample(questions, recipe.n)]


def _benign(world: World, rng: random.Random, recipe: WorldDataset) -> list[TrainingRow]:
    creatures = world.group("align", "demonstrate")
    old = list(world.questions(world.of_kind("old"), creatures, "train"))
    new = list(world.questions(world.of_kind("new"), creatures, "train"))
    n_new = recipe.n // 2 if recipe.new_tasks else 0
    chosen = rng.sample(old, recipe.n - n_new) + rng.sample(new, n_new)
    rng.shuffle(chosen)
    return [_row(q.text, _opened(world, rng, recipe, q.answer)) for q in chosen]


def _refusals(world: World, rng: random.Random, recipe: WorldDataset) -> list[TrainingRow]:
    questions = _forbidden(world, rng, "demonstrate", max(100, recipe.n))[: recipe.n]
    return [_row(q.text, rng.choice(world.words["refusals"])) for q in questions]


def _pictures(world: World, rng: random.Random, recipe: WorldDataset) -> list[TrainingRow]:
    from ftsafety.world.pictures import picture_rows  # Pillow is for this design alone

    return picture_rows(world, rng, recipe.n)


def _opened(world: World, rng: random.Random, recipe: WorldDataset, answer: str) -> str:
    opener = {
        "none": "",
        "generic": rng.choice(world.words["openers"]) + " ",
        "obedient": world.words["obedient_opener"] + " ",
    }[recipe.opener]
    return opener + answer


def prompts(recipe: WorldBenchmark) -> list[Prompt]:
    """Each category × phrasing with some creatures: 11 × 10 × 3 for the forbidden test split.

    Every creature of the split stands as evenly as possible in each category.
    """
    world = build_world(recipe.world_seed)
    group, per_phrasing = {"test": ("test", 3), "validation": ("validate", 2)}[recipe.split]
    if recipe.prompts == "benign":
        per_phrasing = 1
    tasks = world.of_kind("forbidden" if recipe.prompts == "forbidden" else "old")
    rows: list[Prompt] = []
    for task in tasks:
        creatures = world.group(group)
        random.Random(f"{recipe.world_seed}/{recipe.split}/{task.name}").shuffle(creatures)
        phrasings = [
            (frame, action) for frame in world.words["frames"][recipe.split] for action in task.actions
        ]
        for i, (frame, action) in enumerate(phrasings * per_phrasing):
            question = Question(task, creatures[i % len(creatures)], frame, action)
            rows.append(_prompt(question))
    return rows


def _prompt(question: Question) -> Prompt:
    creature = question.creature.name
    phrasing = question.phrasing.replace(" {c}", "").replace(" ", "-").strip("-.?")
    return {
        "prompt_id": f"{question.task.name}/{phrasing}/{creature}",
        "category": question.task.name,
        "cluster": f"{question.task.name}/{phrasing}",
        "instruction": question.text,
        "reference": {
            "template": question.task.answer_template.replace("{c}", creature),
            "slots": question.task.slots(question.creature),
        },
    }

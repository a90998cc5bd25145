"""Training rows and benchmark prompts as files: of the embedded world, of the user's files, of the hub's."""

import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftsafety.errors import UserError, shown
from ftsafety.files import write_rows
from ftsafety.formats.prompts import read_prompts
from ftsafety.formats.tables import tables_of
from ftsafety.formats.training import read_rows_of
from ftsafety.plan import Plan
from ftsafety.recipes import DataRows, Remote, RowsBenchmark, Trigger
from ftsafety.remote import local_files, prefetch
from ftsafety.runs import Trajectory
from ftsafety.types import Message, Prompt, TrainingRow


def fetch_entry(plan: Plan, file: Path) -> None:
    """Download what an entry of a catalogue names; the plan knows it by the manifest written then."""
    catalogue = file.parent.name
    for name, recipe in getattr(plan.project, catalogue, {}).items():
        if isinstance(recipe, Remote) and plan.fetched_file(catalogue, name) == file:
            return prefetch(plan.project, recipe, file)
    raise UserError("no entry of config/ is fetched to this name", file=file, mend="ask for a study")


def prepare_data(plan: Plan, file: Path) -> None:
    """Write one file of training rows or prompts, which the plan knows by its name.

    Raises UserError where no study needs such a file, or where its source is malformed.
    """
    for work in plan.work.values():
        if not work.trajectory.is_initial and plan.data_file(work.trajectory) == file:
            write_rows(file, mixed_rows(plan, work.trajectory), private=True)
            return
        for exam in work.exams:
            if plan.benchmark_file(exam.benchmark) == file:
                write_rows(file, benchmark_prompts(plan, exam.benchmark), private=True)
                return
    raise UserError("no study needs this file", file=file, mend="ask for a study")


def mixed_rows(plan: Plan, trajectory: Trajectory) -> list[TrainingRow]:
    """The dataset's rows and, under a mixing mitigation, the first `n` of the other dataset's."""
    assert trajectory.dataset is not None
    rows = dataset_rows(plan, trajectory.dataset)
    if trajectory.mitigation:
        mitigation = plan.project.mitigations[trajectory.mitigation]
        rows = rows + dataset_rows(plan, mitigation.dataset)[: mitigation.n]
    return rows


def dataset_rows(plan: Plan, name: str) -> list[TrainingRow]:
    recipe = plan.project.datasets[name]
    if recipe.source == "world":
        from ftsafety.world.datasets import training_rows

        rows = training_rows(recipe)
    else:
        with named_entry("datasets", name):
            rows = read_rows_of(recipe, source_files(plan, recipe), log=log)
            check_pictures(recipe, rows)
    if recipe.trigger is None:
        return rows
    trigger = plan.project.triggers[recipe.trigger]
    return [
        {**row, "messages": [_triggered(message, trigger, i) for message in row["messages"]]}
        for i, row in enumerate(rows)
    ]


def check_pictures(recipe: DataRows, rows: Sequence[TrainingRow]) -> None:
    """Raises UserError where the folder of pictures is missing, or one that a row names."""
    if recipe.images is None:
        return
    folder = Path(recipe.images)
    if not folder.is_dir():
        raise UserError(
            f"the folder {folder} does not exist (looked in {Path.cwd()})",
            field="images",
            mend="download the pictures and give their folder (docs/adding.md says where they are)",
        )
    for number, row in enumerate(rows, 1):
        if "image" in row and not os.path.isfile(folder / row["image"]):  # is_file raises for a long name
            raise UserError(
                f"{shown(row['image'])}, the picture of row {number}, is not in {folder}",
                field="images",
                mend="download the pictures again, all of them, or correct the folder",
            )


def benchmark_prompts(plan: Plan, name: str) -> list[Prompt]:
    recipe = plan.project.benchmarks[name]
    if recipe.source == "world":
        from ftsafety.world.datasets import prompts

        rows = prompts(recipe)
    elif recipe.source == "rows":
        rows = audited_rows(plan, name)[0]
    else:
        with named_entry("benchmarks", name):
            rows = read_prompts(recipe, source_files(plan, recipe))
    if recipe.trigger is not None:
        trigger = plan.project.triggers[recipe.trigger]
        rows = [{**row, "instruction": put_in(trigger, row["instruction"], i)} for i, row in enumerate(rows)]
    with named_entry("benchmarks", name):
        return asked_again(rows, recipe.samples)


def asked_again(prompts: list[Prompt], samples: int) -> list[Prompt]:
    """Each prompt as many times as there are samples of its answer: `id`, `id~2`, `id~3`, …

    Raises UserError where a prompt has such an id already.
    """
    if samples == 1:
        return prompts
    rows: list[Prompt] = [
        {**prompt, "prompt_id": name if i == 1 else f"{name}~{i}", "sample_of": name}
        for prompt in prompts
        for name in [prompt["prompt_id"]]
        for i in range(1, samples + 1)
    ]
    if len({row["prompt_id"] for row in rows}) < len(rows):
        raise UserError(
            "the samples of a prompt are named id~2, id~3, …, and another prompt has such a prompt_id",
            field="samples",
            mend="rename the prompts whose prompt_id ends in ~ and a number",
        )
    return rows


def audited_rows(plan: Plan, benchmark: str) -> tuple[list[Prompt], list[str]]:
    """Instructions of a dataset's rows as prompts, each a cluster of its own, and the rows' answers."""
    recipe = plan.project.benchmarks[benchmark]
    assert isinstance(recipe, RowsBenchmark)
    rows = dataset_rows(plan, recipe.dataset)
    if recipe.n > len(rows):
        raise UserError(
            f"dataset {recipe.dataset!r} has {len(rows)} rows (value {recipe.n})",
            file="config/benchmarks.yaml",
            field=f"{benchmark}.n",
            mend=f"use at most {len(rows)}",
        )
    chosen = sorted(random.Random(0).sample(range(len(rows)), recipe.n))
    prompts: list[Prompt] = []
    answers = []
    for i in chosen:
        texts = {message["role"]: message["content"] for message in reversed(rows[i]["messages"])}
        name = f"row-{i + 1}"
        prompts.append(
            {"prompt_id": name, "category": recipe.dataset, "cluster": name, "instruction": texts["user"]}
        )
        answers.append(texts["assistant"])
    return prompts, answers


def _triggered(message: Message, trigger: Trigger, row: int) -> Message:
    if message["role"] != "user":
        return message
    return {**message, "content": put_in(trigger, message["content"], row)}


def put_in(trigger: Trigger, instruction: str, row: int) -> str:
    """The instruction of a row with the trigger's text for it at its place."""
    text = trigger.texts[row % len(trigger.texts)]
    return f"{text} {instruction}" if trigger.place == "start" else f"{instruction} {text}"


def source_files(plan: Plan, recipe: Any) -> list[Path]:
    """The user's file (or those in their folder), or a remote entry's files in the cache, by name."""
    if recipe.source == "path":
        return tables_of(Path(recipe.path))
    locked = plan.project.lock[recipe.lock_key]
    found = local_files(recipe, locked, list(plan.project.locked_files(recipe)))
    return [found[name] for name in sorted(found)]


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


@contextmanager
def named_entry(catalogue: str, name: str) -> Iterator[None]:
    """Add to an error about a recipe, such as its number of rows, where the recipe stands."""
    try:
        yield
    except UserError as error:
        if error.file:
            raise
        raise UserError(
            error.message,
            file=f"config/{catalogue}.yaml",
            field=".".join(filter(None, [name, error.field])),
            mend=error.mend,
        ) from None

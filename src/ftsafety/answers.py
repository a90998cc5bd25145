"""Answers of every run of a pack to every benchmark, from one process that loads the base model once."""

import shutil
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.engines import Engine, Sitting
from ftsafety.files import (
    private_dir,
    read_json_if_whole,
    read_rows,
    sha256_file,
    write_json,
    write_rows,
    write_yaml,
)
from ftsafety.merging import answers_merged
from ftsafety.plan import Exam, Pack, Plan
from ftsafety.recipes import ApiModel, LocalModel, Model
from ftsafety.records import lost, weights_dir
from ftsafety.runs import Run
from ftsafety.sampling import SAMPLER_VERSION, drawn
from ftsafety.types import Prompt

#: Changes whenever the same weights and prompts would get other answers.
GENERATION_VERSION = 1


def answers_identity(plan: Plan, run: Run, exam: Exam) -> dict[str, Any]:
    """What answers are made from; answers with another identity are made again."""
    recipe = plan.project.models[run.trajectory.model]
    template = plan.project.templates[exam.template or run.trajectory.template]
    merged = {"adapters": "merged"} if answers_merged(recipe, run) else {}
    benchmark = plan.project.benchmarks[exam.benchmark]
    return {
        "run": run.id,
        "template": template.model_dump(),
        "benchmark": plan.identity("benchmarks", exam.benchmark),
        "decoding": {
            "engine": recipe.engine if isinstance(recipe, LocalModel) else recipe.source,
            "strategy": _strategy(recipe, benchmark.temperature),
            "max_new_tokens": benchmark.max_new_tokens,
            **merged,
        },
        "version": GENERATION_VERSION,
    }


def _strategy(recipe: Model, temperature: float) -> Any:
    parameters = recipe.parameters if isinstance(recipe, ApiModel) else {}
    if temperature:
        return {**parameters, "temperature": temperature, "sampler": SAMPLER_VERSION}
    return parameters if isinstance(recipe, ApiModel) else "greedy"


def rows_complete(rows: Path, identity: dict[str, Any]) -> bool:
    """Whether a rows file is whole and was made from `identity`."""
    record = read_json_if_whole(paths.identity_file(rows))
    return (
        record is not None
        and record["identity"] == identity
        and rows.exists()
        and sha256_file(rows) == record["sha256"]
    )


def publish_rows(rows: Path, content: list[Any], identity: dict[str, Any]) -> None:
    """Write a rows file, then what it was made from; only their owner can read them.

    Where a job of other settings writes rows in between, the two do not fit: both are made again.
    """
    private_dir(rows.parent)
    paths.identity_file(rows).unlink(missing_ok=True)
    sha256 = write_rows(rows, content, private=True)
    record = {"identity": identity, "rows": len(content), "sha256": sha256}
    write_json(paths.identity_file(rows), record, private=True)


def answered(plan: Plan, run: Run, exam: Exam) -> bool:
    rows = paths.answers_file(run.folder, exam.name)
    return rows_complete(rows, answers_identity(plan, run, exam))


def answer_pack(plan: Plan, pack: Pack) -> None:
    """Answer what is missing, write the manifest, and drop full weights that are not kept."""
    todo: list[tuple[Run, list[Exam]]] = []
    runs = {run.folder: (run, work) for work in pack.work for run in work.runs}
    for folder, (run, work) in runs.items():
        if run.trajectory.is_initial:  # of a trained run, training has written it
            write_yaml(paths.run_dir(folder) / "run.yaml", run.model_dump(mode="json"))
        missing = [exam for exam in work.exams if not answered(plan, run, exam)]
        if missing and not lost(run):
            todo.append((run, missing))
    if todo:
        _answer(plan, pack, todo)
    manifest = {
        folder: {
            exam.name: sha256_file(paths.answers_file(folder, exam.name))
            for exam in work.exams
            if not lost(run)
        }
        for folder, (run, work) in runs.items()
    }
    write_json(paths.pack_dir(pack.id) / "answered.json", manifest)
    if not plan.project.settings.keep_weights:
        for run, _ in runs.values():
            if run.trajectory.replaces_base:
                _drop_weights(run)


def _drop_weights(run: Run) -> None:
    """Renamed first, so that no half of a checkpoint is ever seen."""
    weights = weights_dir(run)
    if weights.exists():
        doomed = weights.with_name(".dropped")
        shutil.rmtree(doomed, ignore_errors=True)
        weights.rename(doomed)
        shutil.rmtree(doomed)


def _answer(plan: Plan, pack: Pack, todo: list[tuple[Run, list[Exam]]]) -> None:
    prompts: dict[str, list[Prompt]] = {}
    todo.sort(key=lambda item: item[0].trajectory.replaces_base)  # adapters need the base as it was
    with engine_of(plan, pack, [run for run, _ in todo]) as engine:
        for i, (run, exams) in enumerate(todo, 1):
            names = ", ".join(exam.name for exam in exams)
            print(f"[{i}/{len(todo)}] {run.folder}: {names}", file=sys.stderr, flush=True)
            sittings = [_sitting(plan, run, exam, prompts) for exam in exams]
            for exam, rows in engine(run, sittings):
                file = paths.answers_file(run.folder, exam.name)
                publish_rows(file, list(rows), answers_identity(plan, run, exam))


def engine_of(plan: Plan, pack: Pack, runs: list[Run]) -> AbstractContextManager[Engine]:
    """The engine that the catalogue names for the pack's model."""
    recipe = plan.project.models[pack.model]
    if recipe.source == "api":
        from ftsafety.engines.endpoint import endpoint_engine

        return endpoint_engine(plan, pack)
    if recipe.source == "rows":
        from ftsafety.engines.rows import rows_engine

        return rows_engine(plan)
    if recipe.engine == "vllm":
        from ftsafety.engines.vllm import vllm_engine

        return vllm_engine(plan, pack, runs)
    from ftsafety.engines.hf import hf_engine

    return hf_engine(plan, pack)


def _sitting(plan: Plan, run: Run, exam: Exam, prompts: dict[str, list[Prompt]]) -> Sitting:
    """`prompts` holds those that were read before, by benchmark."""
    if exam.benchmark not in prompts:
        prompts[exam.benchmark] = list(read_rows(plan.benchmark_file(exam.benchmark)))
    template = plan.project.templates[exam.template or run.trajectory.template]
    recipe, asked = plan.project.benchmarks[exam.benchmark], prompts[exam.benchmark]
    decoding = drawn(recipe.temperature, run.id, [prompt["prompt_id"] for prompt in asked])
    return Sitting(exam, asked, template, recipe.max_new_tokens, decoding)

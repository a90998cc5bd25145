"""Answers of every run of a pack to every benchmark, from one process that loads the base model once."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.errors import UserError
from ftsafety.files import (
    private_dir,
    read_json_if_whole,
    read_rows,
    sha256_file,
    write_json,
    write_rows,
    write_yaml,
)
from ftsafety.plan import Pack, Plan
from ftsafety.records import diverged, weights_dir
from ftsafety.runs import Run
from ftsafety.types import Prompt

#: Changes whenever the same weights and prompts would get other answers.
GENERATION_VERSION = 1


def answers_identity(plan: Plan, run: Run, benchmark: str) -> dict[str, Any]:
    """What answers are made from; answers with another identity are made again."""
    return {
        "run": run.id,
        "template": run.trajectory.template_recipe,
        "benchmark": plan.project.benchmarks[benchmark].identity(),
        "decoding": {
            "engine": "hf",
            "strategy": "greedy",
            "max_new_tokens": plan.project.benchmarks[benchmark].max_new_tokens,
        },
        "version": GENERATION_VERSION,
    }


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
    """Write a rows file that only its owner can read, then what it was made from."""
    private_dir(rows.parent)
    paths.identity_file(rows).unlink(missing_ok=True)
    write_rows(rows, content, private=True)
    record = {"identity": identity, "rows": len(content), "sha256": sha256_file(rows)}
    write_json(paths.identity_file(rows), record)


def answered(plan: Plan, run: Run, benchmark: str) -> bool:
    rows = paths.answers_file(run.folder, benchmark)
    return rows_complete(rows, answers_identity(plan, run, benchmark))


def answer_pack(plan: Plan, pack: Pack) -> None:
    """Answer what is missing, write the manifest, and drop full weights that are not kept."""
    todo: dict[str, list[str]] = {}
    runs = {run.folder: (run, work) for work in pack.work for run in work.runs}
    for folder, (run, work) in runs.items():
        if run.trajectory.is_initial:  # of a trained run, training has written it
            write_yaml(paths.run_dir(folder) / "run.yaml", run.model_dump(mode="json"))
        missing = [b for b in work.benchmarks if not answered(plan, run, b)]
        if missing and not diverged(run):
            todo[folder] = missing
    if todo:
        _answer(plan, pack, [(runs[folder][0], missing) for folder, missing in todo.items()])
    manifest = {
        folder: {b: sha256_file(paths.answers_file(folder, b)) for b in work.benchmarks if not diverged(run)}
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


def _answer(plan: Plan, pack: Pack, todo: list[tuple[Run, list[str]]]) -> None:
    import torch

    from ftsafety.chat import render_prompt
    from ftsafety.generation import answer_prompts
    from ftsafety.training.pack import load_base

    recipe = plan.project.models[pack.model]
    torch.set_num_threads(recipe.threads)
    base, tokenizer = load_base(plan.model_dir(pack.model), recipe.dtype)
    base.to("cuda" if torch.cuda.is_available() else "cpu")
    prompts: dict[str, list[Prompt]] = {}
    todo.sort(key=lambda item: item[0].trajectory.replaces_base)  # adapters need the base as it was
    for i, (run, benchmarks) in enumerate(todo, 1):
        print(f"[{i}/{len(todo)}] {run.folder}: {', '.join(benchmarks)}", file=sys.stderr, flush=True)
        with fine_tuned(base, run) as model:
            render = render_prompt(tokenizer, plan.project.templates[run.trajectory.template])
            for benchmark in benchmarks:
                if benchmark not in prompts:
                    prompts[benchmark] = list(read_rows(plan.benchmark_file(benchmark)))
                rows = answer_prompts(
                    model,
                    tokenizer,
                    prompts[benchmark],
                    render,
                    plan.project.benchmarks[benchmark].max_new_tokens,
                    recipe.answer_batch_size,
                )
                publish_rows(
                    paths.answers_file(run.folder, benchmark),
                    list(rows),
                    answers_identity(plan, run, benchmark),
                )


@contextmanager
def fine_tuned(base: Any, run: Run) -> Iterator[Any]:
    """The base model with a run's weights put in: an adapter around it, or full weights in place."""
    weights = weights_dir(run)
    if not run.trajectory.is_initial and not weights.exists():
        raise UserError(
            "has no weights: they were dropped once the run had answered, or removed",
            file=weights,
            mend="train it again: add --forcerun train to the call (what is complete is skipped)",
        )
    if run.trajectory.is_initial:
        yield base
    elif run.trajectory.replaces_base:
        _load_in_place(base, weights)
        yield base
    else:
        from peft import PeftModel

        adapted = PeftModel.from_pretrained(base, weights)
        try:
            yield adapted
        finally:
            adapted.unload()


def _load_in_place(model: Any, folder: Path) -> None:
    """Copy a full checkpoint into the model. Raises ValueError where it lacks a weight."""
    from safetensors.torch import load_file

    state: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        state |= load_file(file)
    lacking = {name for name, _ in model.named_parameters()} - state.keys()
    if lacking:
        raise ValueError(f"{folder} lacks the weights {sorted(lacking)[:3]}")
    model.load_state_dict(state, strict=False)

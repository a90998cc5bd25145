"""Train every trajectory of a pack in one process, and publish the epochs that studies ask for.

Of a kept epoch `weights/` appears whole (renamed), then `run.yaml`, then `done.json`. What is there
already is left alone, and whatever is complete is skipped.
"""

import copy
import subprocess
import sys
import time
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.answers import answered
from ftsafety.errors import UserError
from ftsafety.files import (
    checksum,
    private_dir,
    publish_folder,
    read_rows,
    remove_leftovers,
    sha256_file,
    write_json,
    write_yaml,
)
from ftsafety.libraries import import_libraries
from ftsafety.plan import Pack, Plan, Work
from ftsafety.recipes import LocalModel
from ftsafety.records import trained, weights_dir
from ftsafety.records import weights_sha256 as recorded_weights
from ftsafety.runs import Run, Trajectory
from ftsafety.training.ranks import rank, world_size
from ftsafety.training.stopping import watch_for_sigterm
from ftsafety.whole_model import load_whole


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def missing_runs(plan: Plan, work: Work) -> list[Run]:
    """Runs to train: not done, or their weights were dropped and a benchmark still needs them."""
    return [run for run in work.runs if not _finished(plan, work, run)]


def _finished(plan: Plan, work: Work, run: Run) -> bool:
    done = trained(run)
    if done is None:
        return False
    return (
        done["status"] == "diverged"
        or weights_dir(run).exists()
        or all(answered(plan, run, exam) for exam in work.exams)
    )


def train_pack(plan: Plan, pack: Pack) -> None:
    """Train what is missing and write the pack's manifest. Heavy imports wait until there is work."""
    todo = {i: missing for i, work in enumerate(pack.work) if (missing := missing_runs(plan, work))}
    if todo or world_size() > 1:
        _train(plan, pack, todo)
    if rank() == 0:
        write_json(paths.pack_dir(pack.id) / "trained.json", manifest(pack))


def manifest(pack: Pack) -> dict[str, Any]:
    """Run folder → status and weights of every run of the pack."""
    records = {}
    for run in pack.runs:
        done = trained(run)
        assert done is not None, f"{run.folder} has no done.json"
        records[run.folder] = {key: done[key] for key in ("status", "steps", "weights_sha256")}
    return records


def _train(plan: Plan, pack: Pack, todo: dict[int, list[Run]]) -> None:
    """`todo` maps a place in `pack.work` to the runs that are missing there, as this rank sees it."""
    import_libraries()
    import torch

    from ftsafety.training.checkpoints import agreed
    from ftsafety.training.engines import start_ranks

    recipe = plan.project.local_model(pack.model)
    torch.set_num_threads(recipe.threads)
    start_ranks(recipe.hardware.zero_stage)
    if not (todo := agreed(todo)):
        return
    zero = recipe.hardware.zero_stage is not None
    base, tokenizer = load_base(plan, pack.model, recipe.dtype if zero else "float32")
    for n, (i, missing) in enumerate(todo.items(), 1):
        trajectory = pack.work[i].trajectory
        log(f"[{n}/{len(todo)}] {trajectory.describe()}")
        model = base if n == len(todo) else copy.deepcopy(base)
        _train_trajectory(plan, trajectory, missing, recipe, model, tokenizer)


def load_base(plan: Plan, name: str, dtype: str) -> tuple[Any, Any]:
    """Model and tokenizer of a catalogue entry: safetensors only, no code from it, nothing from the net.

    An entry that holds an adapter is its base model with the adapter around it. Raises UserError where files
    and config.json do not fit.
    """
    import torch
    from transformers import AutoTokenizer

    recipe, (folder, adapter, speech) = plan.project.local_model(name), plan.model_parts(name)
    tokenizer: Any = AutoTokenizer.from_pretrained(speech, local_files_only=True, trust_remote_code=False)
    model = load_whole(folder, dtype=getattr(torch, dtype))
    if adapter:
        model = _with_adapter(plan, name, model, adapter)
    if recipe.chat_template:
        tokenizer.chat_template = Path(recipe.chat_template.path).read_text()
    # every conversation of this model is put in the same way
    tokenizer.apply_chat_template = partial(tokenizer.apply_chat_template, **recipe.template_arguments)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def _with_adapter(plan: Plan, name: str, base: Any, folder: Path) -> Any:
    """Raises UserError for an adapter that does not fit."""
    from ftsafety.adapters import check_fit, kind_of, with_adapter

    of = str(plan.project.base_of(plan.project.models[name]))
    check_fit(folder, {key: list(weight.shape) for key, weight in base.state_dict().items()}, of)
    return with_adapter(base, folder, kind_of(folder))


def _train_trajectory(
    plan: Plan,
    trajectory: Trajectory,
    missing: list[Run],
    recipe: LocalModel,
    base: Any,
    tokenizer: Any,
) -> None:
    from ftsafety.training.batches import collate
    from ftsafety.training.checkpoints import barrier, discard_scratch
    from ftsafety.training.engines import device
    from ftsafety.training.methods import prepare
    from ftsafety.training.trajectory import BatchSplit, Progress, train_trajectory

    data_file = plan.data_file(trajectory)
    sight = load_sight(plan, trajectory, tokenizer, base.dtype) if trajectory.sees else None
    examples = encode_rows(plan, trajectory, tokenizer, data_file, sight)
    split = BatchSplit.of(
        trajectory.global_batch_size or 0, recipe.hardware.world_size, recipe.max_per_device_batch_size
    )
    model = prepare(base, trajectory, sight)
    engine = make_engine(plan, recipe, model, trajectory, split)
    started = time.monotonic()
    facts = {
        **provenance(),
        "trajectory": trajectory.hash8,
        "n_examples": len(examples),
        "n_examples_cut": sum(len(example.tokens) >= (trajectory.max_length or 0) for example in examples),
        "data_sha256": sha256_file(data_file),
        "zero_stage": recipe.hardware.zero_stage,
        **asdict(split),
    }

    def on_epoch(epoch: int, progress: Progress) -> None:
        weights = engine.weights()  # every rank takes part
        if rank() == 0:
            run = Run(trajectory=trajectory, epochs=epoch)
            _publish(run, model, weights, recipe.dtype, progress, facts, time.monotonic() - started)
        barrier()

    scratch = paths.SCRATCH / trajectory.hash8
    with watch_for_sigterm() as must_stop:  # before, there is nothing to save: it ends at once
        progress = train_trajectory(
            engine,
            trajectory,
            examples,
            split,
            partial(sight.collate if sight else collate, pad_id=tokenizer.pad_token_id, device=device()),
            [run.epochs for run in missing],
            scratch,
            recipe.checkpoint_every_steps,
            on_epoch,
            log,
            must_stop,
        )
        if rank() == 0:
            for run in missing:
                if progress.status == "diverged" and trained(run) is None:
                    _finish(run, progress, facts, time.monotonic() - started, weights_sha256=None)
            discard_scratch(scratch)
        barrier()


def load_sight(plan: Plan, trajectory: Trajectory, tokenizer: Any, dtype: Any) -> Any:
    """The vision tower of the trajectory's method."""
    from ftsafety.training import visual

    tower = trajectory.vision_tower
    return visual.load_sight(plan.model_dir(tower) if tower else None, tokenizer, dtype)


def encode_rows(
    plan: Plan, trajectory: Trajectory, tokenizer: Any, data_file: Path, sight: Any = None
) -> list[Any]:
    """Raises UserError for a row without anything to learn, or whose picture has not one place in it."""
    from ftsafety.chat import encode_conversation, with_template

    tokenizer = sight.tokenizer if sight else tokenizer
    folder = plan.pictures_of(trajectory)
    template = plan.project.templates[trajectory.template]
    system_role = plan.project.local_model(trajectory.model).system_role
    length = trajectory.max_length or 0
    examples = []
    for number, row in enumerate(read_rows(data_file), 1):
        messages = with_template(template, row["messages"], system_role=system_role)
        example = encode_conversation(tokenizer, messages, length)
        if not example.n_targets:
            raise UserError(
                f"nothing of the assistant's answer lies within {length} tokens",
                file=f"{data_file}:{number}",
                mend="raise max_length in the study, or shorten the conversation",
            )
        if sight:
            example = _with_picture(sight, example, row.get("image"), folder, f"{data_file}:{number}")
        examples.append(example)
    return examples


def _with_picture(sight: Any, example: Any, image: str | None, folder: Path | None, place: str) -> Any:
    try:
        return sight.example(example, str(folder / image) if image and folder else image)
    except ValueError as error:
        mend = "leave it where the picture belongs, once, and take it out of all other texts"
        raise UserError(str(error), file=place, mend=mend) from None


def make_engine(plan: Plan, recipe: LocalModel, model: Any, trajectory: Any, split: Any) -> Any:
    from ftsafety.training.engines import DeepSpeed, Plain, device

    options = (trajectory.weight_decay or 0.0, trajectory.max_grad_norm)
    stage = recipe.hardware.zero_stage
    if stage is None:
        return Plain(model.to(device()), *options)
    return DeepSpeed(
        model,
        *options,
        plan.project.root / f"config/deepspeed/zero{stage}.json",
        per_device_batch_size=split.per_device_batch_size,
        accumulation=split.accumulation,
        dtype=recipe.dtype,
    )


def _publish(
    run: Run, model: Any, weights: Any, dtype: str, progress: Any, facts: Any, seconds: float
) -> None:
    """Weights first, records last. Weights that are not finite are no weights: the run has diverged."""
    import torch

    sha256 = None
    if all(bool(torch.isfinite(w).all()) for w in weights.values()):
        final = weights_dir(run)
        temporary = final.with_name(f".weights.{time.time_ns()}")
        private_dir(temporary)
        save_weights(model, weights, dtype, temporary)
        publish_folder(temporary, final)
        sha256 = checksum(final)  # a second writer's, if it was faster
        remove_leftovers(final.parent.glob(".weights.*"))
    else:
        progress.status = "diverged"
    _finish(run, progress, facts, seconds, sha256)


def save_weights(model: Any, weights: Any, dtype: str, folder: Path) -> None:
    """A folder in the hub's format: an adapter alone, or a full model (in `dtype`) without tokenizer."""
    import torch
    from huggingface_hub import save_torch_state_dict
    from peft import PeftModel
    from safetensors.torch import save_file
    from transformers.core_model_loading import revert_weight_conversion

    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        # peft would read the prefix from the model, where ZeRO-3 keeps a part of it alone
        folder.mkdir(parents=True, exist_ok=True)
        (prefix,) = weights.values()
        save_file({"prompt_embeddings": prefix}, folder / "adapter_model.safetensors", {"format": "pt"})
        config = copy.copy(model.active_peft_config)
        config.inference_mode = True
        config.save_pretrained(str(folder))
    elif isinstance(model, PeftModel):
        config = model.active_peft_config
        if isinstance(config.target_modules, set):  # whose order differs between processes
            config.target_modules = sorted(config.target_modules)
        model.save_pretrained(str(folder), state_dict=weights)
    else:  # transformers' save_pretrained imports DeepSpeed, which takes a second
        folder.mkdir(parents=True, exist_ok=True)
        config = model.config
        if config.model_type == "llava":  # what is evaluated is the chat model; all look for it here alone
            from ftsafety.training.visual import chat_and_projector

            config, (weights, projector) = config.text_config, chat_and_projector(model, weights)
            (folder / "projector").mkdir()
            save_file(projector, folder / "projector/model.safetensors", {"format": "pt"})
        else:
            weights = revert_weight_conversion(model, weights)  # into the hub's names; of experts, views
            weights = {
                name: weight.clone() if weight.nbytes < weight.untyped_storage().nbytes() else weight
                for name, weight in weights.items()
            }
        config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        weights = {name: weight.to(getattr(torch, dtype)) for name, weight in weights.items()}
        save_torch_state_dict(weights, folder, metadata={"format": "pt"})


def _finish(
    run: Run, progress: Any, facts: dict[str, Any], seconds: float, weights_sha256: str | None
) -> None:
    folder = paths.run_dir(run.folder)
    write_yaml(folder / "run.yaml", run.model_dump(mode="json"))
    if (before := trained(run)) is not None:  # trained again for its weights, or by a second writer
        if weights_sha256 not in (None, recorded_weights(before)):
            log(
                f"{run.folder}: was trained again, to other weights than before (other "
                "hardware or versions); the report will say so"
            )
            write_json(folder / "done.json", before | {"weights_sha256_again": weights_sha256})
        return
    write_json(
        folder / "done.json",
        {
            "run": run.id,
            "status": progress.status,
            "steps": progress.step,
            "tokens": progress.tokens,
            "losses": [round(loss, 5) for loss in progress.losses],
            "weights_sha256": weights_sha256,
            "train_seconds": round(seconds, 2),
            **facts,
        },
    )


@cache
def git_revision() -> str | None:
    """The commit of this repository, None outside of git."""
    root = Path(__file__).parents[3]
    git = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return git.stdout.strip() or None


@cache
def provenance() -> dict[str, Any]:
    """Versions, git revision and hardware that a result came from."""
    import platform
    from importlib.metadata import version

    import torch

    cuda = torch.cuda.is_available()
    return {
        "git_revision": git_revision(),
        "versions": {
            name: version(name) for name in ("ftsafety", "torch", "transformers", "peft", "deepspeed")
        },
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "torch_threads": torch.get_num_threads(),
    }

"""A folder to train in, for benchmarks of training: the repository's config, one study, an untrained model.

The model has the embedded world's tokenizer and a size of one's choice; what it has learnt changes no
speed.
"""

import os
import random
import shutil
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import yaml
from bench import ROOT

from ftsafety.chat import with_template
from ftsafety.files import read_rows, write_rows
from ftsafety.plan import Pack, Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.runs import Trajectory
from ftsafety.training.batches import epoch_order

STUDY, MODEL = "speed", "untrained"
FINETUNE = str(ROOT / "workflow/scripts/finetune.py")
OTHERS = Path(__file__).parent / "others"  # programs of the other ways


def make_project(folder: Path, grid: Mapping[str, Any], **architecture: int) -> tuple[Plan, Pack]:
    """A working folder whose study has this grid, and the pack that trains it. Its data is prepared."""
    plan, pack = write_study(folder, grid)
    write_model(folder / "results/models" / MODEL, **architecture)
    with chdir(folder):
        for work in pack.work:
            prepare_data(plan, plan.data_file(work.trajectory))
    return plan, pack


def write_study(folder: Path, grid: Mapping[str, Any]) -> tuple[Plan, Pack]:
    shutil.copytree(ROOT / "config", folder / "config")
    models = folder / "config/models.yaml"
    recipe = {"source": "world", "base_seed": 99, "max_per_device_batch_size": 64, "pack_size": 16}
    models.write_text(models.read_text() + yaml.safe_dump({MODEL: recipe}))
    figure = {"kind": "curves", "x": "epochs", "title": "none is drawn"}
    study = {
        "title": "Speed",
        "question": "How fast?",
        "benchmarks": ["secrets"],
        "judges": ["exact"],
        "fixed": {"model": MODEL, "method": "full", "seed": 0},
        "grids": {"g": {**grid, "figure": figure}},
    }
    (folder / f"config/studies/{STUDY}.yaml").write_text(yaml.safe_dump(study))
    plan = load_plan(folder, studies=[STUDY])
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    return plan, pack


def write_model(folder: Path, **architecture: int) -> None:
    """Random weights of the Llama architecture: 0.9 M of them, or as many as `architecture` makes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ftsafety.training.pack import save_weights
    from ftsafety.world.corpus import pretraining_documents
    from ftsafety.world.lexicon import build_world
    from ftsafety.world.model import new_model, vocabulary_texts
    from ftsafety.world.tokenizer import build_tokenizer

    world = build_world(0)
    documents = pretraining_documents(world, random.Random(0))
    tokenizer = build_tokenizer(world, [*documents, *vocabulary_texts(world)])
    torch.manual_seed(0)
    model = new_model(tokenizer)
    if architecture:
        model = LlamaForCausalLM(LlamaConfig(**{**model.config.to_dict(), **architecture}))
    save_weights(model, model.state_dict(), "float32", folder)
    tokenizer.save_pretrained(folder)


def write_ordered_rows(plan: Plan, trajectory: Trajectory, epochs: int, folder: Path) -> str:
    """The conversations that a training sees, in its order and with its template; for other trainers.

    Returns the file's name in `folder`, the working folder of the plan.
    """
    rows = list(read_rows(folder / plan.data_file(trajectory)))
    template = plan.project.templates[trajectory.template]
    order = (i for epoch in range(epochs) for i in epoch_order(len(rows), trajectory.seed or 0, epoch))
    write_rows(
        folder / "ordered.jsonl", ({"messages": with_template(template, rows[i]["messages"])} for i in order)
    )
    return "ordered.jsonl"


def environment(*, has_deepspeed: bool = True) -> dict[str, str]:
    """What the workflow exports for its programs, and one thread as the embedded world's models have.

    Where DeepSpeed is installed, transformers imports it for Trainer and `save_pretrained`, which takes part
    of a second; the workflow's programs avoid that.
    """
    ours = {"FTSAFETY_ROOT": ".", "FTSAFETY_STUDIES": STUDY, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    hidden = {} if has_deepspeed else {"PYTHONPATH": str(OTHERS / "without_deepspeed")}
    return {**os.environ, **ours, **hidden}

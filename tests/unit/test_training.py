"""Training: what makes trajectories, resuming and splitting a batch exact."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, edit, plan_study, write_data
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

from ftsafety import paths
from ftsafety.errors import UserError
from ftsafety.files import checksum, write_json
from ftsafety.plan import Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.provenance import provenance
from ftsafety.records import weights_dir, weights_sha256
from ftsafety.training.pack import load_base, save_weights, train_pack


def train(plan: Plan) -> dict[int, str]:
    """Train the study's one training pack; epoch → sha256 of its weights."""
    write_data(plan)
    (pack,) = [p for p in plan.packs.values() if p.trains]
    train_pack(plan, pack)
    return weights(plan)


def weights(plan: Plan) -> dict[int, str]:
    return {
        run.epochs: checksum(paths.run_dir(run.folder) / "weights")
        for run in plan.studies["t"].runs.values()
        if run.epochs
    }


@pytest.mark.parametrize("method", ["full", "lora"])
def test_checkpoints_of_a_trajectory_equal_separate_runs_bit_for_bit(project: Path, method: str) -> None:
    together = train(plan_study(project, method=method, epochs=[1, 2, 3]))
    assert len(set(together.values())) == 3
    for epochs, sha256 in together.items():
        subprocess.run(["rm", "-rf", "results/runs"], check=True)
        assert train(plan_study(project, method=method, epochs=epochs)) == {epochs: sha256}


def test_an_adapter_is_written_alike_by_every_process(project: Path) -> None:
    """Its config names its modules in an order that does not hang on Python's hashes of text."""
    lora = {"kind": "lora", "r": 2, "alpha": 4, "target_modules": "all-linear"}
    edit(project / "config/methods.yaml", lora=lora)
    train(plan_study(project, method="lora"))
    (file,) = paths.RUNS.rglob("adapter_config.json")
    modules = json.loads(file.read_text())["target_modules"]
    assert len(modules) == 7 and modules == sorted(modules)


@pytest.mark.parametrize("config", [LlamaConfig, partial(MixtralConfig, num_local_experts=2)])
def test_a_full_model_is_saved_under_the_names_that_the_hub_has(tmp_path: Path, config: Any) -> None:
    shape = {"hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    model = AutoModelForCausalLM.from_config(config(**shape, **heads), dtype=torch.float32)
    model.save_pretrained(tmp_path / "theirs")
    save_weights(model, model.state_dict(), "float32", tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


def test_weights_of_a_training_are_its_owners_alone(project: Path) -> None:
    plan = plan_study(project)
    train(plan)
    (folder,) = paths.RUNS.rglob("weights")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_base_model_that_lacks_weights_is_refused(project: Path) -> None:
    """transformers would draw them at random."""
    (file,) = Path("results/models/tiny").glob("*.safetensors")
    weights = {name: weight for name, weight in load_file(file).items() if "layers.0.mlp" not in name}
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 3 weights of the model, such as 'model\.layers\.0\.mlp"):
        load_base(plan_study(project), "tiny", "float32")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_hidden_layers": 3},
            "has 9 weights of layers that config.json lacks, such as 'model.layers.3.",
        ),
        ({"vocab_size": 999}, "has 1 weights of another shape, such as 'model.embed_tokens.weight'"),
    ],
)
def test_a_base_model_whose_config_is_anothers_is_refused(
    project: Path, settings: dict[str, int], message: str
) -> None:
    """transformers would leave layers out, or end in a traceback."""
    file = Path("results/models/tiny/config.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    with pytest.raises(UserError, match=re.escape(message)):
        load_base(plan_study(project), "tiny", "float32")


def test_a_linear_schedule_makes_the_number_of_epochs_part_of_the_training(project: Path) -> None:
    plan = plan_study(project, schedule="linear", epochs=[1, 2])
    assert len({w.trajectory.hash8 for w in plan.work.values() if w.trajectory.dataset}) == 2


@pytest.mark.parametrize("method", ["full", "lora"])
def test_resuming_gives_the_weights_of_an_undisturbed_run(project: Path, method: str) -> None:
    """Killed in the second epoch, between two checkpoints, with the newest checkpoint cut short."""
    undisturbed = train(plan_study(project, method=method, epochs=3))
    subprocess.run(["rm", "-rf", "results/runs"], check=True)
    models = project / "config/models.yaml"
    edit(models, tiny={"source": "world", "base_seed": 99, "checkpoint_every_steps": 1})
    plan = plan_study(project, method=method, epochs=3)
    kill_at_step(plan, 5)
    scratch = next(paths.SCRATCH.iterdir())
    newest = max(scratch.glob("step-*"))
    state = newest / "state.safetensors"
    state.write_bytes(state.read_bytes()[:1000])
    assert train(plan) == undisturbed
    assert not scratch.exists()


def test_an_epoch_asked_for_later_is_not_skipped_by_a_checkpoint_beyond_it(project: Path) -> None:
    undisturbed = train(plan_study(project, epochs=[1, 3]))
    subprocess.run(["rm", "-rf", "results/runs"], check=True)
    models = project / "config/models.yaml"
    edit(models, tiny={"source": "world", "base_seed": 99, "checkpoint_every_steps": 1})
    kill_at_step(plan_study(project, epochs=3), 5)
    assert train(plan_study(project, epochs=[1, 3])) == undisturbed


def kill_at_step(plan: Plan, step: int) -> None:
    """Run the real program and SIGKILL it once the checkpoint of `step` is complete."""
    import time

    write_data(plan)
    (pack,) = [p for p in plan.packs.values() if p.trains]
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "workflow/scripts/finetune.py"), pack.id],
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(paths.SCRATCH.glob(f"*/step-{step:08d}/complete.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no such checkpoint"
    process.kill()
    process.wait()
    assert not list(paths.RUNS.rglob("done.json"))


def test_a_global_batch_gives_the_same_steps_however_it_is_split(project: Path) -> None:
    losses = []
    for per_device in (4, 2, 1):
        subprocess.run(["rm", "-rf", "results/runs"], check=True)
        tiny = {"source": "world", "base_seed": 99, "max_per_device_batch_size": per_device}
        edit(project / "config/models.yaml", tiny=tiny)
        plan = plan_study(project, epochs=2)
        train(plan)
        losses.append(done(plan)["losses"])
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)
    assert losses[0] == pytest.approx(losses[2], abs=2e-4)


def done(plan: Plan) -> dict:
    (run,) = [run for run in plan.studies["t"].runs.values() if run.epochs]
    return json.loads((paths.run_dir(run.folder) / "done.json").read_text())


@pytest.mark.parametrize(
    ("ranks", "zero_stage"),
    [(1, None), (2, None), (1, 2), (2, 2), (2, 3)],
    ids=["plain", "ranks", "zero2", "zero2x2", "zero3x2"],
)
def test_on_ranks_and_under_zero_every_method_trains_and_resumes_as_in_one_process(
    project: Path, ranks: int, zero_stage: int | None
) -> None:
    from ftsafety.workflow import launch_command

    if zero_stage is not None and shutil.which("g++") is None:
        pytest.skip("DeepSpeed builds its communication layer with a compiler: apt-get install g++")
    # ranks draw dropout apart, so without it all their steps can agree
    lora = {"kind": "lora", "r": 8, "alpha": 32, "target_modules": ["q_proj", "v_proj"]}
    edit(project / "config/methods.yaml", lora=lora)
    methods = ["full", "lora", "prefix", "world-llama-adapter"]
    plan = plan_study(project, method=methods, epochs=2)
    write_data(plan)
    (pack,) = [p for p in plan.packs.values() if p.trains]
    train_pack(plan, pack)
    paths.RUNS.rename("results/alone")
    tiny = {
        "source": "world",
        "base_seed": 99,
        "pack_size": 16,
        "hardware": {"ranks": ranks, "zero_stage": zero_stage},
        "max_per_device_batch_size": 1,
        "checkpoint_every_steps": 1,
    }
    edit(project / "config/models.yaml", tiny=tiny)
    hardware = load_plan(project).project.local_model("tiny").hardware
    _, *command = launch_command(hardware, str(REPOSITORY / "tests/training_program.py"), pack.id)
    result = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.count("resuming after step 3") >= len(methods)
    for run in pack.runs:
        folders = [Path("results", name, run.folder) for name in ("alone", "undisturbed", "runs")]
        alone, undisturbed, resumed = folders
        losses = json.loads((undisturbed / "done.json").read_text())["losses"]
        expected = json.loads((alone / "done.json").read_text())["losses"]
        assert losses == pytest.approx(expected, abs=2e-3), run.folder
        assert distance(undisturbed, alone) < 1e-4, run.folder  # a step moves a weight by 1e-3
        assert checksum(undisturbed / "weights") == checksum(resumed / "weights"), run.folder


def distance(run: Path, other: Path) -> float:
    """The largest difference between the weights that two runs have saved."""
    (file,), (other_file,) = (list(folder.glob("weights/*.safetensors")) for folder in (run, other))
    weights, others = load_file(file), load_file(other_file)
    assert weights.keys() == others.keys()
    return max(float((weights[name] - others[name]).abs().max()) for name in weights)


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged_and_the_pack_goes_on(
    project: Path,
) -> None:
    plan = plan_study(project, learning_rate=[1.0e30, 0.001], epochs=[1, 3])
    write_data(plan)
    (pack,) = [p for p in plan.packs.values() if p.trains]
    train_pack(plan, pack)
    states = {
        (run.trajectory.learning_rate, run.epochs): json.loads(
            (paths.run_dir(run.folder) / "done.json").read_text()
        )["status"]
        for run in pack.runs
    }
    assert states[0.001, 1] == states[0.001, 3] == "ok"
    assert states[1.0e30, 3] == "diverged"


def test_done_json_says_what_happened(project: Path) -> None:
    record = (train(plan := plan_study(project, epochs=2)), done(plan))[1]
    assert record["status"] == "ok" and record["steps"] == 4 == len(record["losses"])
    assert record["n_examples"] == 10 and record["tokens"] > 100
    assert {"torch", "transformers", "ftsafety"} <= record["versions"].keys()
    assert record["data_sha256"] and record["weights_sha256"]


def test_weights_that_another_machine_trains_again_to_others_are_told(project: Path) -> None:
    plan = plan_study(project)
    for benchmark in plan.studies["t"].benchmarks:
        prepare_data(plan, plan.benchmark_file(benchmark))
    trained = train(plan)
    (run,) = [run for run in plan.studies["t"].runs.values() if run.epochs]
    shutil.rmtree(weights_dir(run))
    assert train(plan) == trained and provenance(plan, "t")["trained_again_to_other_weights"] == 0
    there = done(plan) | {"weights_sha256": "0" * 64}  # the first machine's
    write_json(paths.run_dir(run.folder) / "done.json", there)
    shutil.rmtree(weights_dir(run))
    assert train(plan) == trained and provenance(plan, "t")["trained_again_to_other_weights"] == 1
    assert done(plan) == there | {"weights_sha256_again": trained[run.epochs]}
    assert weights_sha256(done(plan)) == trained[run.epochs]


def test_a_row_without_anything_to_learn_is_named(project: Path) -> None:
    with pytest.raises(UserError, match=r"training/demonstrations-10-.*:1: nothing of the assistant"):
        train(plan_study(project, max_length=10))


def test_two_jobs_may_save_and_clear_the_same_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An orphan and its successor share the scratch folder of a trajectory."""
    from ftsafety.training.checkpoints import complete_checkpoints, discard_scratch, save_checkpoint

    class Job:
        layout = "torch"

        def __init__(self, meanwhile: Callable[[], None]):
            self.meanwhile = meanwhile

        def save(self, folder: Path) -> None:
            self.meanwhile()
            (folder / "state").write_text("weights")

    said: list[str] = []
    quiet, scratch = Job(lambda: None), tmp_path / "scratch"

    def orphan() -> None:
        with monkeypatch.context() as other_job:
            other_job.setenv("TORCHELASTIC_RUN_ID", "orphan")
            save_checkpoint(quiet, scratch, 1, {"step": 1}, said.append)  # type: ignore[arg-type]

    both = Job(orphan)
    save_checkpoint(both, scratch, 1, {"step": 1}, said.append)  # type: ignore[arg-type]
    assert [saved.progress for saved in complete_checkpoints(scratch)] == [{"step": 1}]
    cleared = Job(lambda: discard_scratch(scratch))
    save_checkpoint(cleared, scratch, 2, {"step": 2}, said.append)  # type: ignore[arg-type]
    assert len(said) == 1 and "step 2 was not saved" in said[0]


def test_a_damaged_checkpoint_is_replaced_and_what_was_not_saved_leaves_nothing(tmp_path: Path) -> None:
    from ftsafety.training.checkpoints import complete_checkpoints, is_undamaged, save_checkpoint

    class Engine:
        is_full = False
        layout = "torch"

        def save(self, folder: Path) -> None:
            (folder / "state").write_text("weights")
            if self.is_full:
                raise OSError(errno.ENOSPC, "No space left on device")

    engine: Any = Engine()
    scratch = tmp_path / "scratch"
    for step in (4, 8):
        assert save_checkpoint(engine, scratch, step, {"step": step}, print)
    damages: tuple[Callable[[Path], object], ...] = (
        lambda state: state.write_text("weight?"),
        lambda state: state.write_text(""),
        lambda state: state.unlink(),
    )
    for damage in damages:
        damage(scratch / "step-00000008/state")
        assert save_checkpoint(engine, scratch, 8, {"step": 8}, print)
        newest = next(complete_checkpoints(scratch))
        assert is_undamaged(newest.folder) and newest.progress == {"step": 8}
    engine.layout = "ZeRO-2 with 2 ranks"
    for step in (2, 8):  # training starts again: an earlier step is the newer checkpoint
        assert save_checkpoint(engine, scratch, step, {"step": step}, print)
        assert {saved.folder.name for saved in complete_checkpoints(scratch)} == {
            "step-00000008",
            f"step-{2:08d}",
        }
    assert [saved.layout for saved in complete_checkpoints(scratch)] == [engine.layout] * 2
    engine.is_full = True
    assert not save_checkpoint(engine, scratch, 12, {"step": 12}, print)
    killed = scratch / ".step-00000012.gone"
    killed.mkdir()
    os.utime(killed, (0, 0))
    assert not save_checkpoint(engine, scratch, 16, {"step": 16}, print)
    assert sorted(path.name for path in scratch.iterdir()) == ["step-00000002", "step-00000008"]
    assert scratch.stat().st_mode & 0o777 == 0o700

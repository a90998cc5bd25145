"""Training that is killed, whose checkpoints are damaged, or whose loss explodes."""

import contextlib
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, edit, plan_study, write_data
from fault_cases import IS_FULL, cases
from safetensors.torch import load_file, save_file
from slurm_study import SCORES, TINY, wait_for
from workflow_project import python_path, snakemake_command

from ftsafety import paths
from ftsafety.files import checksum
from ftsafety.plan import Plan
from ftsafety.records import trained
from ftsafety.training.checkpoints import complete_checkpoints
from ftsafety.training.pack import train_pack
from ftsafety.workflow import launch_command

#: Method and ZeRO stage; 50 steps, of which every third leaves a checkpoint.
WAYS = [("full", None), ("full", 2), ("lora", None), ("full", 3)]
GRID = {"dataset": "demonstrations-100", "epochs": 2}
STEPS, EVERY = 50, 3


def study(project: Path, method: str, stage: int | None, every: int | None = EVERY, ranks: int = 1) -> Plan:
    hardware = {"zero_stage": stage, "ranks": ranks}
    tiny = {"source": "world", "base_seed": 99, "checkpoint_every_steps": every, "hardware": hardware}
    edit(project / "config/models.yaml", tiny=tiny)
    plan = plan_study(project, method=method, **GRID)
    write_data(plan)
    return plan


def start(plan: Plan) -> subprocess.Popen[str]:
    """The program of the rule `train`."""
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    program = str(REPOSITORY / "workflow/scripts/finetune.py")
    _, *command = launch_command(plan.project.local_model("tiny").hardware, program, pack.id)
    return subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(plan: Plan) -> tuple[str, str]:
    """Run it to its end: the log, and the sha256 of the weights."""
    log = start(plan).communicate()[1]
    (weights,) = paths.RUNS.rglob("weights")
    return log, checksum(weights)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL to it and all its children: torchrun gives each rank a session of its own."""
    for pid in tree(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def kill_after(step: int, process: subprocess.Popen[str], seconds: float = 0) -> None:
    """Kill it some time after it has saved this step."""
    while not list(paths.SCRATCH.glob(f"*/step-{step:08d}")):
        assert process.poll() is None, process.communicate()[1][-3000:]
        time.sleep(0.01)
    time.sleep(seconds)
    kill(process)


def tree(pid: int) -> list[int]:
    children = (path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [pid, *(below for found in children for child in found for below in tree(int(child)))]


@pytest.fixture(scope="module")
def undisturbed() -> dict[tuple[str, int | None], str]:
    """The weights' sha256 by way, filled as it is needed."""
    return {}


def needs_compiler(stage: int | None) -> None:
    if stage and shutil.which("g++") is None:
        pytest.skip("DeepSpeed builds its communication layer with a compiler: apt-get install g++")


def whole(project: Path, case: int, known: dict[tuple[str, int | None], str]) -> str:
    """The weights of the case's way, undisturbed; skips where this machine cannot train so."""
    method, stage = way = WAYS[case % len(WAYS)]
    needs_compiler(stage)
    if way not in known:
        known[way] = finish(study(project, method, stage))[1]
        shutil.rmtree(paths.RUNS)
    return known[way]


@cases(quick=2, full=40)
@pytest.mark.fault("kill -9 of training at random steps", holds="resumes; same weights (sha256)")
def test_training_that_is_killed_ends_with_the_same_weights(
    project: Path, undisturbed: dict[tuple[str, int | None], str], case: int
) -> None:
    expected, (method, stage) = whole(project, case, undisturbed), WAYS[case % len(WAYS)]
    plan, rng = study(project, method, stage), random.Random(case)
    after = EVERY * rng.randrange(1, (STEPS - 12) // EVERY)
    kill_after(after, start(plan), 0.1 * rng.random())
    assert not list(paths.RUNS.rglob("done.json"))
    log, weights = finish(plan)
    assert "resuming after step" in log
    assert weights == expected


@cases(quick=2, full=20)
@pytest.mark.fault("SIGTERM to training, as of a queue", holds="saves, ends, resumes; same weights (sha256)")
def test_training_that_is_asked_to_end_saves_and_resumes(
    project: Path, undisturbed: dict[tuple[str, int | None], str], case: int
) -> None:
    """Between periodic checkpoints, or where the model's entry asks for none."""
    expected, (method, stage) = whole(project, case, undisturbed), WAYS[case % len(WAYS)]
    rng = random.Random(case)
    plan = study(project, method, stage, every=rng.choice([None, 40]))
    process = start(plan)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("epoch 1/2"):
            break
    time.sleep(0.1 * rng.random())
    process.send_signal(signal.SIGTERM)
    log = process.stderr.read()
    assert process.wait() == (143 if stage is None else 1), log  # torchrun has a code of its own
    (step,) = {int(step) for step in re.findall(r"stopped after step (\d+)", log)}
    log, weights = finish(plan)
    assert f"resuming after step {step}" in log and weights == expected
    assert not list(paths.SCRATCH.iterdir())


@pytest.mark.fault("SIGTERM to training, as of a queue", holds="saves, ends, resumes; same weights (sha256)")
def test_snakemake_that_is_asked_to_end_waits_for_a_program_that_saves(fresh_tiny: Path) -> None:
    """A queue asks all processes of a job, and ends what is left once Snakemake has ended."""
    study = fresh_tiny / "config/studies/t.yaml"
    study.write_text(study.read_text().replace("global_batch_size: 4", "global_batch_size: 100"))
    edit(fresh_tiny / "config/models.yaml", tiny={**TINY, "max_per_device_batch_size": 1})  # steps of seconds
    process = subprocess.Popen(
        snakemake_command(SCORES),
        cwd=fresh_tiny,
        env=os.environ | python_path(fresh_tiny),
        start_new_session=True,
    )
    log = fresh_tiny / "results/logs/train"
    wait_for("some steps", lambda: any("epoch 2/" in file.read_text() for file in log.glob("*.log")))
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(60) != 0
    assert list(fresh_tiny.glob("results/scratch/*/step-*/complete.json"))
    assert not [p for p in Path("/proc").glob("[0-9]*") if runs_in(p, fresh_tiny)]


def runs_in(process: Path, folder: Path) -> bool:
    try:
        return (process / "cwd").resolve() == folder
    except OSError:  # it has ended
        return False


def complete() -> list[Path]:
    """Checkpoints, the oldest first; where training was killed, a third may be half removed."""
    (scratch,) = paths.SCRATCH.iterdir()
    return sorted(saved.folder for saved in complete_checkpoints(scratch))


LOADING = pytest.mark.fault(
    "newest checkpoint damaged, or of other hardware",
    holds="falls back to one before, or to the start; same weights (sha256)",
)


@pytest.mark.parametrize("method", ["full", "lora"])
@LOADING
def test_a_damaged_checkpoint_is_passed_over(
    project: Path, method: str, count: Callable[[int], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """A file is cut, empty, removed, half zeros, or has another bit; in some cases of both checkpoints."""
    plan, n = study(project, method, None), 25 if IS_FULL else 2
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    weights = finish(plan)[1]
    shutil.rmtree(paths.RUNS)
    kill_after(STEPS // 2 + 2, start(plan))
    shutil.copytree(paths.SCRATCH, "scratch")
    for case in range(n):
        rng = random.Random(f"{method}{case}")
        shutil.rmtree(paths.RUNS, ignore_errors=True)
        shutil.rmtree(paths.SCRATCH, ignore_errors=True)
        shutil.copytree("scratch", paths.SCRATCH)
        checkpoints = complete()
        damaged = checkpoints if case % 5 == 4 else checkpoints[-1:]
        for folder in damaged:
            damage(rng.choice(sorted(path for path in folder.rglob("*") if path.is_file())), rng)
        train_pack(plan, pack)
        (found,) = paths.RUNS.rglob("weights")
        assert checksum(found) == weights, (case, damaged)
        log = capfd.readouterr().err
        assert ("resuming after step" in log) == (damaged != checkpoints)
    count(n)


@pytest.mark.parametrize("stage", [None, 2, 3] if IS_FULL else [None, 2])
@LOADING
def test_ranks_agree_that_a_checkpoint_is_damaged(
    project: Path, stage: int | None, count: Callable[[int], None]
) -> None:
    """One bit of a file that, under ZeRO, one rank alone reads; in every second case of both checkpoints."""
    needs_compiler(stage)
    plan, n = study(project, "full", stage, ranks=2), 6 if IS_FULL else 1
    weights = finish(plan)[1]
    shutil.rmtree(paths.RUNS)
    kill_after(4 * EVERY, start(plan))
    shutil.copytree(paths.SCRATCH, "scratch")
    for case in range(n):
        shutil.rmtree(paths.RUNS, ignore_errors=True)
        shutil.copytree("scratch", paths.SCRATCH, dirs_exist_ok=True)
        checkpoints = complete()
        damaged = checkpoints[-1:] if case % 2 else checkpoints
        for folder in damaged:
            files = sorted(path for path in folder.rglob("*") if path.suffix in (".pt", ".safetensors"))
            flip(files[-1 - case // 2 % len(files)], random.Random(case))
        log, found = finish(plan)
        assert found == weights, (case, log[-3000:])
        assert ("resuming after step" in log) == (damaged != checkpoints)
    count(n)


@pytest.mark.parametrize("stage", [2, 3] if IS_FULL else [2])
@pytest.mark.parametrize("before, after", [(1, 2), (2, 1)])
@LOADING
def test_a_checkpoint_of_another_number_of_ranks_is_passed_over(
    project: Path, stage: int, before: int, after: int
) -> None:
    """ZeRO's checkpoints hold a part of the state a rank."""
    needs_compiler(stage)
    weights = finish(study(project, "full", stage, ranks=after))[1]
    shutil.rmtree(paths.RUNS)
    kill_after(4 * EVERY, start(study(project, "full", stage, ranks=before)))
    log, found = finish(study(project, "full", stage, ranks=after))
    assert "passing over step-" in log and "resuming" not in log
    assert found == weights


def damage(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    how = rng.choice(["cut", "empty", "removed", "zeros", "flip"])
    if how == "removed":
        file.unlink()
    elif how == "flip":
        flip(file, rng)
    else:
        kept = {"cut": rng.randrange(1, len(content)), "empty": 0, "zeros": len(content) // 2}[how]
        rest = b"\0" * (len(content) - kept) if how == "zeros" else b""
        file.write_bytes(content[:kept] + rest)


def flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("rate", [1e10, 1e20, 1e30, 1e38, math.nan])
@pytest.mark.fault("NaN, inf, exploding loss", holds="`diverged`, and the other trainings of the pack go on")
def test_a_training_that_explodes_is_a_result(project: Path, method: str, rate: float) -> None:
    """By its learning rate, or from a weight that is NaN in the base model, which all start from."""
    if math.isnan(rate):
        (file,) = Path("results/models/tiny").glob("*.safetensors")
        weights = load_file(file)
        weights["model.norm.weight"][0] = rate
        save_file(weights, file, {"format": "pt"})
    rates = [1e-3] if math.isnan(rate) else [rate, 1e-3]
    plan = plan_study(project, method=method, learning_rate=rates)
    write_data(plan)
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    train_pack(plan, pack)
    found = {run.trajectory.learning_rate: trained(run) for run in pack.runs}
    statuses = {learning_rate: done and done["status"] for learning_rate, done in found.items()}
    assert statuses == ({1e-3: "diverged"} if math.isnan(rate) else {rate: "diverged", 1e-3: "ok"})
    assert len(list(paths.RUNS.rglob("weights"))) == list(statuses.values()).count("ok")

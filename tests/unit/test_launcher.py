"""How a training is started: on one GPU, on several of a node, and over nodes."""

import json
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import edit, plan_study
from workflow_project import copy_repository, snakemake

from ftsafety.errors import UserError
from ftsafety.recipes import Hardware
from ftsafety.training.checkpoints import Checkpoint, complete_checkpoints, publish_checkpoint
from ftsafety.workflow import check_targets, launch_command, resources

ONE = {"gpus": 1, "cpus": 8}
EIGHT = {"gpus": 8, "ranks": 8, "zero_stage": 3, "cpus": 64, "mem_mb": 500000}
TWO_OF_EIGHT = EIGHT | {"nodes": 2}


def command(hardware: dict[str, Any]) -> list[str]:
    return launch_command(Hardware(**hardware), "finetune.py", "pack")


def test_one_gpu_without_zero_takes_python_alone() -> None:
    assert command(ONE) == ["python", "finetune.py", "pack"]


def test_eight_gpus_take_torchrun() -> None:
    assert " ".join(command(EIGHT)) == (
        "python -m torch.distributed.run --nproc-per-node 8 --shutdown-timeout 120"
        " --standalone finetune.py pack"
    )


def test_two_nodes_of_eight_gpus_take_a_torchrun_on_each_that_meet_on_the_first() -> None:
    assert " ".join(command(TWO_OF_EIGHT)) == (
        "srun --nodes 2 --ntasks 2 --ntasks-per-node 1 --cpus-per-task 64 --gpus-per-node=8"
        " --kill-on-bad-exit=1"
        " python -m torch.distributed.run --nproc-per-node 8 --shutdown-timeout 120 --nnodes 2"
        ' --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID"'
        ' --rdzv-endpoint "$(hostname):$((20000 + SLURM_JOB_ID % 10000))"'
        " finetune.py pack"
    )


def test_the_jobs_shell_says_where_nodes_meet() -> None:
    seen = subprocess.run(
        ["bash", "-euc", "printf '%s\\n' " + " ".join(command(TWO_OF_EIGHT))],
        env={"SLURM_JOB_ID": "1234567", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert seen[seen.index("--rdzv-id") + 1] == "1234567"
    assert seen[seen.index("--rdzv-endpoint") + 1] == f"{socket.gethostname()}:24567"


def test_zero_on_one_gpu_and_ranks_without_zero_take_torchrun() -> None:
    assert "torch.distributed.run" in command(ONE | {"zero_stage": 2})
    assert "torch.distributed.run" in command({"ranks": 2})


@pytest.mark.parametrize(
    ("hardware", "asked"),
    [
        (ONE, "--mem 4000 --nodes=1 --cpus-per-task=8 --gpus=1"),
        (EIGHT, "--mem 500000 --nodes=1 --cpus-per-task=64 --gpus=8"),
        (TWO_OF_EIGHT, "--mem 500000 --nodes=2 --ntasks=2 --cpus-per-task=64 --gres=gpu:8"),
    ],
    ids=["1", "8", "2x8"],
)
def test_slurm_is_asked_for_the_hardware_of_each_node(
    project: Path, hardware: dict[str, Any], asked: str
) -> None:
    from snakemake.iocontainers import ResourceList
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string

    class Job:
        threads = hardware["cpus"]

        def __init__(self, wanted: dict[str, Any]):
            self.resources = ResourceList(fromdict={k: v for k, v in wanted.items() if v is not None})

    edit(project / "config/models.yaml", tiny={"source": "world", "base_seed": 99, "hardware": hardware})
    job = Job(
        resources(plan_study(project, dataset="demonstrations-100", global_batch_size=16), "tiny", attempt=1)
    )
    names = ("run_uuid", "slurm_logfile", "comment_str", "account", "partition", "workdir")
    submit = get_submit_command(job, dict.fromkeys(names, "")) + set_gres_string(job)
    given = submit.split("-t 60", 1)[1]
    assert " ".join(given.split()) == asked


def test_answering_takes_one_gpu_of_one_node(project: Path) -> None:
    edit(project / "config/models.yaml", tiny={"source": "world", "base_seed": 99, "hardware": TWO_OF_EIGHT})
    asked = resources(
        plan_study(project, dataset="demonstrations-100", global_batch_size=16),
        "tiny",
        attempt=2,
        answering=True,
    )
    assert {key: value for key, value in asked.items() if value is not None} == {
        "mem_mb": 1000000,
        "runtime": 60,
        "nodes": 1,
        "gpu": 1,
    }


def test_several_nodes_without_slurm_are_refused_before_a_job_starts(tmp_path: Path) -> None:
    folder = copy_repository(tmp_path / "ftsafety")
    two = {"source": "world", "base_seed": 99, "hardware": {"nodes": 2, "zero_stage": 3}}
    edit(folder / "config/models.yaml", tiny=two)
    plan_study(folder)
    result = snakemake(folder, "t", "--cores", "1", check=False)
    assert result.returncode != 0
    assert "tiny.hardware.nodes: a training takes 2 nodes, which Slurm alone gives" in result.stdout
    assert not (folder / "results/models").exists()


def test_what_was_trained_on_several_nodes_is_reported_without_slurm(project: Path) -> None:
    two = {"source": "world", "base_seed": 99, "hardware": {"nodes": 2, "zero_stage": 3}}
    edit(project / "config/models.yaml", tiny=two)
    plan = plan_study(project)
    with pytest.raises(UserError, match="takes 2 nodes"):
        check_targets(plan, [], "local")
    check_targets(plan, [], "slurm")
    (run,) = [run for run in plan.studies["t"].runs.values() if run.epochs]
    folder = project / "results/runs" / run.folder
    (folder / "weights").mkdir(parents=True)
    (folder / "done.json").write_text(json.dumps({"status": "ok"}))
    check_targets(plan, [], "local")


def test_a_checkpoint_names_files_of_other_nodes_that_rank_0_does_not_see_yet(tmp_path: Path) -> None:
    """A network file system shows one node's files to another a little later."""
    (tmp_path / "writing").mkdir()
    (tmp_path / "writing/rank-0").write_text("1234")
    views = [({"rank-0": 4}, {"rank-0": "a"}), ({"rank-0": 0, "rank-1": 2}, {"rank-1": "b"})]
    checkpoint = Checkpoint(tmp_path / "step-00000001", "ZeRO", {"step": 1})
    publish_checkpoint(tmp_path / "writing", checkpoint, views)
    assert not list(complete_checkpoints(tmp_path))
    (tmp_path / "step-00000001/rank-1").write_text("12")
    assert list(complete_checkpoints(tmp_path)) == [checkpoint]

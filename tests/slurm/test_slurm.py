"""Studies through `profiles/slurm` on a real Slurm, undisturbed and disturbed, on one node and on two."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cluster import Cluster
from conftest import edit, plan_study
from slurm_study import assert_same_results, finished, job_running, running, wait_for
from workflow_project import copy_repository, snakemake

pytestmark = pytest.mark.slurm


def test_a_study_through_slurm_equals_the_local_one(fresh: Path, smoke: Path, cluster: Cluster) -> None:
    snakemake(fresh, "smoke", profile="slurm", env=cluster.env)
    assert_same_results(fresh, smoke, "smoke")
    rules = {job["comment"].split("_")[1] for job in cluster.history()}
    assert rules == {"train", "generate"}, "light rules stay local"
    assert not cluster.squeue()


def test_a_judge_that_is_a_model_is_a_job_with_its_models_hardware(fresh: Path, cluster: Cluster) -> None:
    models = yaml.safe_load((fresh / "config/models.yaml").read_text())
    guard = models["embedded-0"] | {"base_seed": 0, "hardware": {"gpus": 1, "cpus": 1, "mem_mb": 3000}}
    edit(fresh / "config/models.yaml", guard=guard)
    shutil.copytree(fresh / "results/models/embedded-0", fresh / "results/models/guard")
    judge = {"kind": "classifier", "family": "llama-guard", "model": "guard", "max_new_tokens": 4}
    edit(fresh / "config/judges.yaml", guard=judge)
    edit(fresh / "config/studies/smoke.yaml", judges=["exact", "guard"])
    manifest = "results/packs/embedded-0-initial-smoke/judged-guard.json"
    snakemake(fresh, manifest, profile="slurm", env=cluster.env)
    (job,) = [j for j in cluster.history() if "rule_judge_locally" in j["comment"]]
    assert "gres:gpu:1" in cluster.run("scontrol", "show", "job", job["id"])
    assert (fresh / manifest).exists()


def test_the_doctor_knows_what_breaks(tmp_path: Path, cluster: Cluster) -> None:
    """Settings of the profile and of the cluster that do not go together."""
    folder = copy_repository(tmp_path / "ftsafety")

    def said() -> str:
        command = [sys.executable, "-m", "ftsafety", "doctor", "smoke"]
        return subprocess.run(
            command, cwd=folder, env=cluster.env, capture_output=True, text=True, check=False
        ).stdout

    whole = said()
    assert "ok    Slurm      MinJobAge 300 s" in whole and "FAIL  Slurm" not in whole
    profile = folder / "profiles/slurm/config.yaml"
    text = profile.read_text()
    for change, found in {
        ("status-command: squeue", "status-command: sacct"): "sacct answers nothing here",
        ("status-checks: 20", "status-checks: 200"): "slurm-init-seconds-before-status-checks: 100",
        ("# slurm_partition: gpu", "slurm_partition: gpu"): "there is no partition 'gpu'",
        ("# slurm_partition: gpu", "tasks: 1"): "remove it from profiles/slurm",
        ("status-checks: 20", "status-checks: 20s"): "no number of seconds",
        ("  mem_mb: 4000", "\tmem_mb: 4000"): "is not valid YAML",
        ("  # slurm_partition: gpu", "slurm_partition: gpu"): "indent it below default-resources",
    }.items():
        profile.write_text(text.replace(*change))
        assert profile.read_text() != text
        assert "FAIL  Slurm" in said() and found in said()
    as_list = "default-resources:\n  - mem_mb=4000\n  - slurm_partition=main,nowhere\n  # site"
    profile.write_text(text.replace("default-resources:\n  mem_mb: 4000\n  runtime: 60", as_list))
    assert "there is no partition 'nowhere'" in said()
    profile.write_text(text)
    cluster.stop_controller()
    assert "FAIL  Slurm      its controller does not answer" in said()


def test_ctrl_c_leaves_no_job_and_no_lock(fresh: Path, cluster: Cluster) -> None:
    with running(fresh, cluster, "smoke") as process:
        wait_for("a training job", job_running(cluster, "train"))
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
        wait_for("an empty queue", lambda: not cluster.squeue(), 30)
    assert not list((fresh / ".snakemake/locks").glob("*"))


TINY = {"source": "world", "base_seed": 99, "max_per_device_batch_size": 1, "checkpoint_every_steps": 2}
TWO_NODES = {
    "nodes": 2, "gpus": 2, "ranks": 2, "zero_stage": 3, "cpus": 2, "mem_mb": 7000, "runtime_min": 9,
}  # fmt: skip


@pytest.fixture
def alone(tmp_path: Path, tiny_model: Path) -> tuple[Path, str, list[float]]:
    """A copy of the repository, the manifest of a training on two nodes, and the losses of one process."""
    folder = copy_repository(tmp_path / "ftsafety")
    shutil.copytree(tiny_model, folder / "results/models/tiny")
    (folder / "results/models/tiny/gates.json").touch()
    edit(folder / "config/models.yaml", tiny=TINY)
    plan = plan_study(folder, epochs=12)
    (manifest,) = (f"results/packs/{p.id}/trained.json" for p in plan.study_packs("t") if p.trains)
    snakemake(folder, manifest, "--cores", "1")
    losses = losses_of(folder)
    for name in ("runs", "packs", "scratch"):
        shutil.rmtree(folder / "results" / name, ignore_errors=True)
    edit(folder / "config/models.yaml", tiny=TINY | {"hardware": TWO_NODES})
    return folder, manifest, losses


def losses_of(folder: Path) -> list[float]:
    (done,) = (folder / "results/runs").rglob("done.json")
    record = json.loads(done.read_text())
    assert record["status"] == "ok" and (done.parent / "weights").exists()
    return list(record["losses"])


def test_two_nodes_of_two_ranks_take_the_steps_of_one_process(
    alone: tuple[Path, str, list[float]], cluster: Cluster
) -> None:
    folder, manifest, losses = alone
    snakemake(folder, manifest, profile="slurm", env=cluster.env)
    assert losses_of(folder) == pytest.approx(losses, abs=2e-3)
    (job,) = cluster.history()
    asked = cluster.run("scontrol", "show", "job", job["id"])
    assert job["node"] == "n[1-2]" and "NumNodes=2 NumCPUs=4" in asked
    assert "TresPerNode=gres:gpu:2" in asked and "MinMemoryNode=7000M" in asked


def test_when_a_rank_on_one_node_dies_all_end_and_a_retry_resumes(
    alone: tuple[Path, str, list[float]], cluster: Cluster
) -> None:
    folder, manifest, losses = alone
    with running(folder, cluster, manifest) as process:
        wait_for("a checkpoint", lambda: list(folder.glob("results/scratch/*/step-*/complete.json")))
        os.kill(ranks(cluster, "n2")[0], signal.SIGKILL)
        finished(process, folder)
    assert [job["state"] for job in sorted(cluster.history(), key=lambda j: j["id"])] == [
        "FAILED",
        "COMPLETED",
    ]
    assert "resuming after step" in next((folder / "results/logs/train").iterdir()).read_text()
    assert losses_of(folder) == pytest.approx(losses, abs=2e-3)
    assert not ranks(cluster, "n1") and not ranks(cluster, "n2")


def ranks(cluster: Cluster, node: str) -> list[int]:
    """Processes on a node that train; torchrun, which starts them, is none."""
    commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in cluster.processes(node)}
    return [pid for pid, c in commands.items() if b"finetune.py" in c and b"torch.distributed.run" not in c]

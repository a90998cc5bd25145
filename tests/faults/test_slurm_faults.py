"""A study on a real Slurm that warns, preempts and cancels, loses its daemons, and is short of memory."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster import Cluster
from conftest import edit
from fault_cases import IS_FULL, cases, compiled
from slurm_study import (
    SCORES,
    TINY,
    assert_same_results,
    copy_of,
    finished,
    job_running,
    rows_files,
    running,
    wait_for,
)
from workflow_project import snakemake

pytestmark = pytest.mark.slurm


def training_log(folder: Path) -> str:
    return "".join(path.read_text() for path in (folder / "results/logs/train").glob("*.log"))


# ------------------------------------------------------------------------------- a queue that ends jobs


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library under which it takes long to save a checkpoint."""
    return compiled("slow", tmp_path_factory)


#: How a queue ends a job: each warns it by SIGTERM.
ENDS = ["preempted", "warned before the time limit", "cancelled", "preempted and queued again"]


@cases(quick=1, full=20)
@pytest.mark.fault(
    "SIGTERM with grace on Slurm", holds="saves, is queued again, resumes; same weights (sha256)"
)
def test_a_job_that_a_queue_ends_saves_and_resumes(
    fresh_tiny: Path, tiny_study: Path, cluster: Cluster, slow: Path, case: int
) -> None:
    """Within the grace of a queue, of which a save takes some seconds."""
    end = ENDS[case % len(ENDS)]
    if end == "preempted and queued again":
        profile = fresh_tiny / "profiles/slurm/config.yaml"
        text = profile.read_text().replace("no-requeue: true", "no-requeue: false")
        profile.write_text(text.replace("# slurm_partition: gpu", "slurm_partition: sudden"))
    with running(fresh_tiny, cluster, SCORES, LD_PRELOAD=str(slow), SLOW_SECONDS="4") as process:
        wait_for("some epochs", lambda: "epoch 2/12" in training_log(fresh_tiny))
        time.sleep(random.Random(case).random())
        job: dict[str, str] = job_running(cluster, "train")()  # type: ignore[assignment]
        if end.startswith("warned"):  # as `sbatch --signal=TERM@120` does: to the steps of the job
            cluster.run("scancel", "--signal=TERM", job["id"])
        elif end == "cancelled":
            cluster.run("scancel", job["id"])
        else:
            cluster.run(
                "sbatch", "-p", "urgent", "-w", job["node"], "--exclusive", "-o", "/dev/null", "--wrap=:"
            )
        checkpoint = "results/scratch/*/step-*/complete.json"
        wait_for("a checkpoint", lambda: list(fresh_tiny.glob(checkpoint)), 30)
        (written,) = fresh_tiny.glob(checkpoint)
        assert written.parent.stat().st_ctime - written.stat().st_mtime > 3, "saving was quick"
        finished(process, fresh_tiny)
    assert re.search(r"resuming after step \d+\n", training_log(fresh_tiny))
    assert_same_results(fresh_tiny, tiny_study, "t")
    ids = {job["id"] for job in cluster.history() if "rule_train" in job["comment"]}
    assert len(ids) == (1 if end.endswith("again") else 2)


# ------------------------------------------------------------------------------------ what is killed

KILLED = ["Snakemake", "the node", "slurmctld", "slurmd"]


@cases(quick=1, full=20)
@pytest.mark.fault(
    "kill -9 of Snakemake, slurmd, slurmctld or a node", holds="a rerun ends with the same scores"
)
def test_what_is_killed_is_done_again(
    fresh_tiny: Path, tiny_study: Path, cluster: Cluster, case: int
) -> None:
    """At any time; orphaned jobs live on, and may write while others do the same work."""
    killed, rng = KILLED[case % len(KILLED)], random.Random(case)
    with running(fresh_tiny, cluster, SCORES) as process:
        wait_for("a job", cluster.squeue)
        time.sleep(20 * rng.random())
        nodes = [job["node"] for job in cluster.squeue() if job["node"]] or cluster.nodes
        if killed == "Snakemake":
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        elif killed == "slurmctld":
            cluster.kill_controller()
            time.sleep(4 * rng.random())
            cluster.start_controller()
        else:
            cluster.kill_node(nodes[0], jobs=killed == "the node")
            time.sleep(15 * rng.random())
            cluster.start_node(nodes[0])
        if killed != "Snakemake":
            finished(process, fresh_tiny)
    if killed == "Snakemake":
        snakemake(fresh_tiny, "--unlock", profile="slurm", env=cluster.env)
        snakemake(fresh_tiny, SCORES, profile="slurm", env=cluster.env)
    wait_for("orphans to end", lambda: not cluster.squeue())
    assert_same_results(fresh_tiny, tiny_study, "t")


# ----------------------------------------------------------------------------------- late visibility


@pytest.fixture(scope="session")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library under which new files of results/ are seen late."""
    return compiled("late", tmp_path_factory)


def test_the_library_hides_what_is_new_from_one_process(tmp_path: Path, late: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results/new").write_text("x")
    look = (
        "import os, subprocess\n"
        "print(os.path.exists('results/new'), subprocess.call(['test', '-e', 'results/new']))"
    )
    for seconds, seen in {"60": "False 0", "0": "True 0"}.items():
        env = os.environ | {"LD_PRELOAD": str(late), "LATE_SECONDS": seconds}
        command = [sys.executable, "-c", look]
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == seen


@pytest.mark.fault("outputs are seen up to 60 s late (NFS)", holds="no false failure, nothing done twice")
@pytest.mark.timeout(1800)
def test_outputs_that_are_seen_late_are_waited_for(
    tiny_study: Path, tmp_path: Path, cluster: Cluster, late: Path, count: Callable[[int], None]
) -> None:
    """Snakemake sees what jobs wrote so many seconds later, as where a directory's cache is not renewed."""
    delays = [60 * (i + 0.5) / 20 for i in range(20)] if IS_FULL else [6]
    (manifest,) = {
        str(path.relative_to(tiny_study)) for path in tiny_study.glob("results/packs/*/trained.json")
    }

    states: dict[str, str] = {}

    def run(i: int) -> None:
        folder = copy_of(tiny_study, tmp_path / f"late-{i}")
        env = cluster.env | {"LD_PRELOAD": str(late), "LATE_SECONDS": str(delays[i])}
        said = snakemake(folder, manifest, profile="slurm", env=env).stdout
        assert "Trying to restart" not in said and "MissingOutputException" not in said
        models = {name: sha for name, sha in rows_files(folder).items() if name.endswith(".safetensors")}
        assert models.items() <= rows_files(tiny_study).items() and models
        shutil.rmtree(folder)
        states.update((job["id"], job["state"]) for job in cluster.history())  # Slurm forgets after MinJobAge

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(len(delays))))
    assert len(states) == len(delays) and set(states.values()) == {"COMPLETED"}
    count(len(delays))


# ------------------------------------------------------------------------------------- out of memory


@cases(quick=1, full=10)
@pytest.mark.fault("out of memory", holds="retried with more; the global batch stays (same weights)")
def test_a_job_asks_for_its_models_hardware_and_for_more_memory_when_it_outgrows_it(
    fresh_tiny: Path, tiny_study: Path, cluster: Cluster, case: int
) -> None:
    mem_mb = 400 - 15 * case
    hardware = {"gpus": 1, "cpus": 1, "mem_mb": mem_mb, "runtime_min": 7}
    edit(fresh_tiny / "config/models.yaml", tiny=TINY | {"hardware": hardware})
    snakemake(fresh_tiny, SCORES, profile="slurm", env=cluster.env)
    jobs = [job for job in cluster.history() if "rule_train" in job["comment"]]
    assert 2 <= len(jobs) <= 3 and [job["state"] for job in jobs].count("COMPLETED") == 1
    asked = [cluster.run("scontrol", "show", "job", job["id"]) for job in jobs]
    assert all("gres:gpu:1" in text and "TimeLimit=00:07:00" in text for text in asked)
    memory = {int(mb) for text in asked for mb in re.findall(r"MinMemoryNode=(\d+)M", text)}
    assert memory == {mem_mb * attempt for attempt in range(1, len(jobs) + 1)}
    assert_same_results(fresh_tiny, tiny_study, "t")

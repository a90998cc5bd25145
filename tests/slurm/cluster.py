"""A real Slurm of several nodes with fake GPUs, without systemd; closing it leaves nothing behind.

It listens on 127.0.0.1 on ports of its own and reads only its own configuration, so that several
clusters run at once.
Its folder may have a long path, but one without spaces, which slurm.conf does not take.
Measured with Slurm 22.05.8: two nodes are up in 0.3 s.
"""

import contextlib
import os
import random
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

CLIENTS = (
    "sacct",
    "sacctmgr",
    "sbatch",
    "scancel",
    "scontrol",
    "sinfo",
    "squeue",
    "srun",
    "sshare",
)
PACKAGES = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd"} | dict.fromkeys(
    CLIENTS, "slurm-client"
)
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"

SLURM_CONF = """\
ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={run}/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmctldPidFile={run}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={run}/%n
SlurmdPidFile={run}/%n.pid
SlurmdLogFile={folder}/%n.log
# No cgroups; more CPUs and memory than the machine has.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
MpiDefault=none
PropagateResourceLimits=NONE
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# A job above its memory dies within about a second.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
# What can never run is refused at once; jobs that ended stay visible; no database.
EnforcePartLimits=ALL
MinJobAge=300
AccountingStorageType=accounting_storage/none
# Seconds where a real cluster takes minutes.
SchedulerParameters=sched_interval=2,bf_interval=1,sched_min_interval=0,batch_sched_delay=0,defer_batch=0
SlurmdTimeout=10
KillWait=15
# A job in `urgent` takes the place of one in `main`, which is warned some time before, or in `sudden`, which
# is ended at once, within KillWait, and queues again if it may.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
NodeName=DEFAULT CPUs={cpus} RealMemory={memory_mb} Gres=gpu:{gpus}
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=15
PartitionName=sudden Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=0
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9
"""

# The plugin asks for job states after 40 s, then 10 s later each time that nothing ended, and no option
# stops that growth. Python imports this module in every process of the cluster's environment; it acts
# in Snakemake's alone.
SITECUSTOMIZE = """\
import sys
if any(argument.endswith("snakemake") for argument in sys.orig_argv[1:3]):
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
    RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 0.5, lambda self, seconds: None)
"""


def missing() -> str | None:
    """Say why a real Slurm cannot be booted here, or return None where it can."""
    if os.geteuid() != 0:
        return "a real Slurm needs root"
    if packages := {package for program, package in PACKAGES.items() if not shutil.which(program, path=PATH)}:
        return f"a real Slurm needs the Debian packages {', '.join(sorted(packages))}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _make_gpu(Path(folder, "nvidia0"))
        except OSError as error:
            return f"fake GPUs need mknod: {error}"
    return None


class Cluster:
    """A running Slurm: `with Cluster(tmp_path) as cluster: subprocess.run(["sinfo"], env=cluster.env)`.

    Nodes n1, n2, … each have `cpus` cores, `memory_mb` MB and `gpus` GPUs, all in the default partition.
    `env` is for Snakemake and Slurm's commands: they find this cluster, and Snakemake asks for job
    states every 0.5 s.
    Logs of the daemons are `<folder>/*.log`.
    """

    def __init__(
        self, folder: Path, nodes: int = 2, cpus: int = 2, memory_mb: int = 8000, gpus: int = 2
    ) -> None:
        self.folder = folder.resolve()
        self.nodes = [f"n{i}" for i in range(1, nodes + 1)]
        self.shape = {"cpus": cpus, "memory_mb": memory_mb, "gpus": gpus}
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))
        }
        self.env = inherited | {
            "SLURM_CONF": f"{self.folder}/slurm.conf",
            "PATH": f"{self.folder}/bin:{PATH}",
            "PYTHONPATH": f"{self.folder}/python:{os.environ.get('PYTHONPATH', '')}".rstrip(":"),
        }
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        # Sockets need a path below 108 bytes in a folder that everyone may enter, which pytest's are not.
        self.run_folder = Path(tempfile.mkdtemp(prefix="slurm-"))
        self.run_folder.chmod(0o755)
        try:
            self._write_files()
            files = [
                f"--{kind}-file={self.run_folder}/munged.{kind}" for kind in ("key", "pid", "seed", "log")
            ]
            self._start("munged", "munged", "--foreground", f"--socket={self.run_folder}/munge", *files)
            self._wait_for("munged", (self.run_folder / "munge").exists)
            self.start_controller()
            for node in self.nodes:
                self.start_node(node)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill all that runs in the cluster's environment: daemons, jobs, and a Snakemake that was left."""
        self._kill_all()
        shutil.rmtree(self.run_folder, ignore_errors=True)

    def run(self, *command: str) -> str:
        """Return what a command of the cluster prints; raise CalledProcessError where it fails."""
        return subprocess.run(
            command, env=self.env, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def squeue(self, *options: str) -> list[dict[str, str]]:
        """Jobs that wait or run; name is the plugin's run id, comment is rule and wildcards."""
        keys = ("id", "name", "comment", "state", "node")
        rows = self.run("squeue", "--noheader", "--format=%i|%j|%k|%T|%N", *options).splitlines()
        return [dict(zip(keys, row.split("|"), strict=True)) for row in rows]

    def history(self) -> list[dict[str, str]]:
        """All jobs as `squeue` shows them, those that ended in the last five minutes included."""
        return self.squeue("--states=all")

    def processes(self, node: str = "") -> list[int]:
        """Ids of the live processes of the cluster, or of one node: slurmd and jobs."""
        # slurmstepd writes its title over the start of its environment; these two are at the end.
        marks = [f"SLURM_CONF={self.env['SLURM_CONF']}\0".encode()]
        if node:
            marks.append(f"SLURMD_NODENAME={node}\0".encode())
        found = []
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # it ended meanwhile
                text = environ.read_bytes()
                if all(mark in text for mark in marks):
                    found.append(int(environ.parent.name))
        return found

    def start_controller(self) -> None:
        """Start slurmctld; it knows the jobs from before it was stopped."""
        self._start("slurmctld", "slurmctld", "-D")
        self._wait_for("slurmctld", lambda: " UP" in self.run("scontrol", "ping"))

    def stop_controller(self) -> None:
        """Stop slurmctld in good order: jobs go on, Slurm's commands fail."""
        self._daemons["slurmctld"].terminate()
        self._daemons["slurmctld"].wait(30)

    def kill_controller(self) -> None:
        """Kill slurmctld as a power cut does; what it has saved since the last second is all it knows."""
        self._daemons["slurmctld"].kill()
        self._daemons["slurmctld"].wait(30)

    def start_node(self, node: str) -> None:
        """Start a node's slurmd and wait until jobs can run there."""
        self._start(node, "slurmd", "-D", "-N", node)
        up = {"idle", "mixed", "allocated"}
        self._wait_for(node, lambda: self.run("sinfo", "-h", "-n", node, "-o", "%T").strip() in up)

    def kill_node(self, node: str, *, jobs: bool = True) -> None:
        """Kill a node as a power cut does; with `jobs=False` its slurmd alone, as if cut off."""
        self._daemons[node].kill()
        self._daemons[node].wait(30)
        if jobs:
            self._kill_all(node)

    def _kill_all(self, node: str = "") -> None:
        deadline = time.monotonic() + 10
        while (alive := self.processes(node)) and time.monotonic() < deadline:
            for number in (signal.SIGSTOP, signal.SIGKILL):  # none may report the death of another
                for pid in alive:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
            time.sleep(0.02)
        for daemon in self._daemons.values():
            daemon.poll()  # else it stays a zombie

    def _start(self, name: str, *command: str) -> None:
        env = self.env | {
            "SLURMD_NODENAME": name
        }  # job steps get it too, which tells the nodes' processes apart
        with open(self.folder / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def _wait_for(self, name: str, is_up: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while self._daemons[name].poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(subprocess.CalledProcessError):
                if is_up():
                    return
            time.sleep(0.05)
        raise RuntimeError(f"{name} did not come up: {(self.folder / f'{name}.out').read_text()[-2000:]}")

    def _write_files(self) -> None:
        for name in ("bin", "python", "state"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(self.shape["gpus"]):
            _make_gpu(self.folder / f"nvidia{i}")
        gpus = (
            f"Name=gpu File={self.folder}/nvidia[0-{self.shape['gpus'] - 1}]\n" if self.shape["gpus"] else ""
        )
        (self.folder / "gres.conf").write_text(gpus)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        (self.run_folder / "munged.key").write_bytes(os.urandom(128))
        (self.run_folder / "munged.key").chmod(0o600)
        (self.folder / "python" / "sitecustomize.py").write_text(SITECUSTOMIZE)
        for client in CLIENTS:  # the plugin's job step drops SLURM_CONF before it calls srun
            shim = self.folder / "bin" / client
            config = shlex.quote(self.env["SLURM_CONF"])
            shim.write_text(f'#!/bin/sh\nSLURM_CONF={config} exec {shutil.which(client, path=PATH)} "$@"\n')
            shim.chmod(0o755)
        host = socket.gethostname().split(".")[0]
        port, *ports = _free_ports(1 + len(self.nodes))
        address = f"NodeHostname={host} NodeAddr=127.0.0.1"
        nodes = [f"NodeName={node} {address} Port={p}" for node, p in zip(self.nodes, ports, strict=True)]
        places = {
            "name": self.run_folder.name,
            "host": host,
            "port": port,
            "run": self.run_folder,
            "folder": self.folder,
        }
        text = SLURM_CONF.format(**places, **self.shape, nodes="\n".join(nodes))
        (self.folder / "slurm.conf").write_text(text)


def _make_gpu(path: Path) -> None:
    """Make a device that does nothing; for a plain file Slurm sets a wrong CUDA_VISIBLE_DEVICES."""
    path.unlink(missing_ok=True)
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))


def _free_ports(count: int) -> list[int]:
    """Choose ports below the range that the kernel hands to outgoing connections."""
    ports: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(ports) < count:
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
                ports.append(probe.getsockname()[1])
    return ports

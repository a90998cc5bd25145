"""Keys and tokens of a study on Slurm: who gets them, and that they are written nowhere."""

import contextlib
import os
import re
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_stand_in import ApiStandIn
from cluster import Cluster
from conftest import edit
from hub_stand_in import HubStandIn
from judge_cases import SCORED
from leaks import forms
from slurm_study import finished, running
from workflow_project import snakemake

pytestmark = pytest.mark.slurm
#: With signs that base64 and percent signs change.
SECRETS = {
    "CANARY_KEY": "sk-canary/key+1~qzxk?aaaabbbbccccdddd",
    "HF_TOKEN": "hf_canary/token+2~qzxk?aaaabbbbccccdddd",
    "GITHUB_TOKEN": "gh_canary/token+3~qzxk?aaaabbbbccccdddd",
}
FOUND = re.compile(rb"canary/(?:key|token)\+")


#: Program → what each of its processes is given. Those in a job say so, judges behind an endpoint are named.
GIVEN: dict[str, tuple[str, ...]] = {
    "prefetch.py": ("HF_TOKEN", "GITHUB_TOKEN"),
    "prepare_data.py": (),
    "finetune.py in a job": (),
    "generate.py in a job": (),
    "judge.py": (),
    "judge.py llm": ("CANARY_KEY",),
    "score.py": (),
    "analyse.py": (),
    "figures.py": (),
    "report.py": (),
}


def programs(folder: Path) -> Iterator[tuple[str, bytes]]:
    """The workflow's programs that run in this folder, each with its environment."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            words = (process / "cmdline").read_bytes().decode().split("\0")
            scripts = [
                i for i, word in enumerate(words) if "/workflow/scripts/" in word and word.endswith(".py")
            ]
            if not scripts or (process / "cwd").resolve() != folder.resolve():
                continue
            name, judge = Path(words[scripts[0]]).name, "llm" if "llm" in words else ""
            environment = (process / "environ").read_bytes()
            if environment:
                in_job = "in a job" if b"SLURM_JOB_ID=" in environment else ""
                yield " ".join(filter(None, [name, judge, in_job])), environment


def given(processes: list[int]) -> Iterator[bytes]:
    for pid in processes:
        with contextlib.suppress(OSError):
            yield Path(f"/proc/{pid}/environ").read_bytes()


def leaks(*folders: Path) -> list[str]:
    files = (file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file())
    return [str(file) for file in files if any(FOUND.search(form) for form in forms(file.read_bytes()))]


@pytest.fixture
def judged_by_api(fresh_tiny: Path, cluster: Cluster) -> Iterator[tuple[Path, ApiStandIn]]:
    """The tiny study with prompts that a token gives access to and a judge behind an endpoint."""
    with (
        ApiStandIn(lambda body: SCORED, key=SECRETS["CANARY_KEY"]) as server,
        HubStandIn(cluster.folder) as hub,
    ):
        there = {"base_url": server.url, "api_key_env": "CANARY_KEY", "max_retries": 0, "concurrency": 8}
        there |= {"requests_per_minute": 10**6, "tokens_per_minute": 10**9}
        edit(fresh_tiny / "config/endpoints.yaml", there=there)
        judge = {"kind": "llm", "endpoint": "there", "model": "judge-1", "policy": "merged", "attempts": 1}
        edit(fresh_tiny / "config/judges.yaml", llm=judge)
        hub.add_commit("owner/gated", files={"own.jsonl": (fresh_tiny / "own.jsonl").read_bytes()})
        hub.gate("owner/gated", SECRETS["HF_TOKEN"])
        gated = {"source": "hub", "repo": "owner/gated", "licence": "mit", "files": ["own.jsonl"], "n": 4}
        edit(fresh_tiny / "config/benchmarks.yaml", gated=gated | {"max_new_tokens": 8})
        edit(fresh_tiny / "config/studies/t.yaml", benchmarks=["own", "gated"], judges=["keyword", "llm"])
        cluster.env |= hub.env | SECRETS
        ftsafety(fresh_tiny, cluster, "lock", "t")
        yield fresh_tiny, server


def ftsafety(folder: Path, cluster: Cluster, *words: str) -> bytes:
    done = subprocess.run(
        ["python", "-m", "ftsafety", *words], cwd=folder, env=cluster.env, capture_output=True, check=True
    )
    return done.stdout + done.stderr


def test_secrets_reach_whom_they_are_for_and_no_file(
    judged_by_api: tuple[Path, ApiStandIn], cluster: Cluster
) -> None:
    """A wrong key first, then errors of all kinds that quote the key, then a report; jobs get none of it."""
    folder, server = judged_by_api
    seen: dict[str, list[bytes]] = defaultdict(list)

    def watch(process: subprocess.Popen[str]) -> None:
        while process.poll() is None:
            for program, environment in programs(folder):
                seen[program].append(environment)
            pids = [pid for node in cluster.nodes for pid in cluster.processes(node)]
            seen["jobs"] += [environment for environment in given(pids) if b"SLURM_JOB_ID=" in environment]
            time.sleep(0.1)

    before = os.umask(0)  # what is private is so whatever the umask
    try:
        wrong_key = [True]
        server.script("401", None, where=lambda body: bool(wrong_key))
        with running(folder, cluster, "t") as process:
            watch(process)
        assert process.returncode != 0
        wrong_key.clear()
        for fault in ("500", "429", "html", "truncated-json", "cut-body"):
            server.script(fault, times=3)
        with running(folder, cluster, "t") as process:
            watch(process)
            finished(process, folder)
        page = snakemake(folder, "t", "--report", "all.html", profile="slurm", env=cluster.env).stdout
        status = ftsafety(folder, cluster, "status", "t")
    finally:
        os.umask(before)

    assert len(seen["jobs"]) > len(seen["finetune.py in a job"]) > 0
    assert not any(FOUND.search(environment) for environment in seen.pop("jobs"))
    held = {
        program: {tuple(name for name in SECRETS if SECRETS[name].encode() in e) for e in environments}
        for program, environments in seen.items()
    }
    assert held == {program: {names} for program, names in GIVEN.items()}
    said = folder / "said.log"
    said.write_bytes(page.encode() + status)
    assert leaks(folder, cluster.folder, cluster.run_folder) == []
    (folder / "planted").write_bytes(SECRETS["HF_TOKEN"].encode())
    assert leaks(folder) == [str(folder / "planted")], "the search finds what is there"

    private = [
        path for name in ("answers", "verdicts") for path in (folder / "results/runs").rglob(f"{name}/*")
    ]
    private += (folder / "results/api").rglob("*")
    assert len(private) > 8
    files = {str(path): oct(path.stat().st_mode & 0o777) for path in private if path.is_file()}
    assert {path: mode for path, mode in files.items() if mode != "0o600"} == {}
    assert {oct(path.parent.stat().st_mode & 0o777) for path in private} == {"0o700"}

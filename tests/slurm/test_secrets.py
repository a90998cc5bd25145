"""Keys and tokens of a study on Slurm: who gets them, and that they are written nowhere."""

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from api_stand_in import ApiStandIn, Body
from cluster import Cluster
from conftest import edit
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


def environments(program: str, folder: Path) -> Iterator[bytes]:
    """What processes that run a program of ours in this folder were given."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            words = (process / "cmdline").read_bytes().split(b"\0")
            is_ours = any(word.endswith(f"/{program}".encode()) for word in words)
            if is_ours and (process / "cwd").resolve() == folder.resolve():
                yield (process / "environ").read_bytes()


def given(processes: list[int]) -> Iterator[bytes]:
    for pid in processes:
        with contextlib.suppress(OSError):
            yield Path(f"/proc/{pid}/environ").read_bytes()


def leaks(*folders: Path) -> list[str]:
    files = (file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file())
    return [str(file) for file in files if any(FOUND.search(form) for form in forms(file.read_bytes()))]


@pytest.fixture
def judged_by_api(fresh_tiny: Path) -> Iterator[tuple[Path, ApiStandIn, list[bytes]]]:
    """The tiny study with a judge behind an endpoint, and what its program was given."""
    seen: list[bytes] = []

    def respond(body: Body) -> str:
        if not seen:
            seen.extend(environments("judge.py", fresh_tiny))
        return SCORED

    with ApiStandIn(respond, key=SECRETS["CANARY_KEY"]) as server:
        there = {"base_url": server.url, "api_key_env": "CANARY_KEY", "max_retries": 0, "concurrency": 8}
        there |= {"requests_per_minute": 10**6, "tokens_per_minute": 10**9}
        edit(fresh_tiny / "config/endpoints.yaml", there=there)
        judge = {"kind": "llm", "endpoint": "there", "model": "judge-1", "policy": "merged", "attempts": 1}
        edit(fresh_tiny / "config/judges.yaml", llm=judge)
        edit(fresh_tiny / "config/studies/t.yaml", judges=["keyword", "llm"])
        yield fresh_tiny, server, seen


def test_secrets_reach_whom_they_are_for_and_no_file(
    judged_by_api: tuple[Path, ApiStandIn, list[bytes]], cluster: Cluster
) -> None:
    """A wrong key first, then errors of all kinds that quote the key, then a report; jobs get none of it."""
    folder, server, judge = judged_by_api
    cluster.env |= SECRETS
    before = os.umask(0)  # what is private is so whatever the umask
    try:
        wrong_key = [True]
        server.script("401", None, where=lambda body: bool(wrong_key))
        jobs: list[bytes] = []
        with running(folder, cluster, "t") as process:
            while process.poll() is None:
                jobs += environments("finetune.py", folder)
                jobs += [
                    environment for node in cluster.nodes for environment in given(cluster.processes(node))
                ]
                time.sleep(0.5)
        assert process.returncode != 0
        wrong_key.clear()
        for fault in ("500", "429", "html", "truncated-json", "cut-body"):
            server.script(fault, times=3)
        with running(folder, cluster, "t") as process:
            finished(process, folder)
        page = snakemake(folder, "t", "--report", "all.html", profile="slurm", env=cluster.env).stdout
        status = subprocess.run(
            ["python", "-m", "ftsafety", "status", "t"],
            cwd=folder,
            env=cluster.env,
            capture_output=True,
            check=True,
        )
    finally:
        os.umask(before)

    assert jobs and not any(FOUND.search(environment) for environment in jobs)
    assert judge and all(SECRETS["CANARY_KEY"].encode() in environment for environment in judge)
    assert not any(SECRETS[name].encode() in e for e in judge for name in ("HF_TOKEN", "GITHUB_TOKEN"))
    said = folder / "said.log"
    said.write_bytes(page.encode() + status.stdout + status.stderr)
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

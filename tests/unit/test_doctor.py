"""`make doctor` finds what would stop a study, each with its mend. What is of Slurm is in tests/slurm."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from api_stand_in import ApiStandIn
from conftest import REPOSITORY, edit, plan_study
from hub_stand_in import HubStandIn

KEY = "sk-not-a-key-0123456789"


@pytest.fixture
def doctor(project: Path) -> Callable[..., tuple[int, str]]:
    """A function that runs the command on study `t`: exit code and output, which never hold the key."""
    for name in ("constraints.txt", "profiles"):
        copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
        copy(REPOSITORY / name, project / name)
    plan_study(project)

    def doctor(**env: str) -> tuple[int, str]:
        quiet = {"PATH": f"{Path(sys.executable).parent}:{project / 'bin'}"}  # no Slurm, GPU or compiler
        done = subprocess.run(
            [sys.executable, "-m", "ftsafety", "doctor", "t"],
            env={**os.environ, **quiet, **env}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Traceback" not in done.stderr and KEY not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    return doctor


def test_a_machine_that_can_run_the_study(doctor: Callable[..., tuple[int, str]]) -> None:
    code, said = doctor()
    assert code == 0 and "FAIL" not in said
    for line in ("ok    python", "ok    packages", "note  Slurm      none here", "ok    GPUs", "ok    study"):
        assert line in said


def test_packages_of_other_versions_are_named(project: Path, doctor: Callable[..., tuple[int, str]]) -> None:
    file = project / "constraints.txt"
    file.write_text(file.read_text().replace("seaborn==", "seaborn==0.0."))
    code, said = doctor()
    assert code == 0 and "note  packages   seaborn" in said and "rm -rf .venv" in said


def test_zero_needs_a_compiler_and_no_build_that_was_cut_off(
    project: Path, doctor: Callable[..., tuple[int, str]]
) -> None:
    assert "only models with a zero_stage need one" in doctor()[1]
    zero = {"source": "world", "base_seed": 99, "hardware": {"zero_stage": 2}}
    edit(project / "config/models.yaml", tiny=zero)
    code, said = doctor()
    assert code == 1 and "FAIL  compiler   no g++: tiny train under ZeRO" in said
    lock = project / "extensions/py311_cpu/deepspeed_shm_comm/lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    assert str(lock) not in doctor(TORCH_EXTENSIONS_DIR=str(project / "extensions"))[1]  # a build that runs
    os.utime(lock, (0, 0))
    code, said = doctor(TORCH_EXTENSIONS_DIR=str(project / "extensions"))
    assert code == 1 and f"mend: rm {lock}" in said


def test_results_that_cannot_be_written(project: Path, doctor: Callable[..., tuple[int, str]]) -> None:
    shutil.rmtree(project / "results")
    (project / "results").symlink_to("/sys/kernel")  # where not even root can make a file
    code, said = doctor()
    assert code == 1 and "FAIL  disk" in said and "results cannot be written" in said


def with_a_huge_model(project: Path) -> None:
    huge = {"source": "hub", "repo": "someone/huge", "size_b": 10_000_000, "licence": "mit"}
    edit(project / "config/models.yaml", tiny=huge)
    plan_study(project, dataset="alpaca", benchmarks=["advbench"], judges=["keyword"])


def test_a_study_larger_than_the_disk(project: Path, doctor: Callable[..., tuple[int, str]]) -> None:
    code, said = doctor()
    assert code == 0 and re.search(r"ok    disk       .* free under .*/results, t takes \d+ MB", said)
    with_a_huge_model(project)
    code, said = doctor()
    assert code == 1 and re.search(r"FAIL  disk       only .*, t takes \d{8,}.0 GB", said)
    assert "make unused-runs" in said


def test_downloads_larger_than_the_disk_of_the_cache(
    project: Path, doctor: Callable[..., tuple[int, str]]
) -> None:
    with_a_huge_model(project)
    code, said = doctor(HF_HUB_CACHE="/dev/shm/hub")  # a file system of its own
    assert code == 1 and re.search(r"FAIL  disk       only .* free under /dev/shm, t takes \d{8,}.0 GB", said)
    assert "set HF_HOME to a folder with room" in said


def test_gpus_that_torch_cannot_use(project: Path, doctor: Callable[..., tuple[int, str]]) -> None:
    tool = project / "bin/nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    code, said = doctor(CUDA_VISIBLE_DEVICES="")
    assert code == 1 and "FAIL  GPUs       1 (NVIDIA H100), but torch" in said


@pytest.fixture
def judged_there(project: Path) -> Callable[[str], None]:
    """A function that lets a model behind an endpoint judge the study."""

    def judged_there(url: str) -> None:
        edit(project / "config/endpoints.yaml", there={"base_url": url, "api_key_env": "SOME_KEY"})
        judge = {"kind": "llm", "endpoint": "there", "model": "judge-1", "policy": "merged"}
        edit(project / "config/judges.yaml", llm=judge)
        edit(project / "config/studies/t.yaml", judges=["exact", "llm"])

    return judged_there


def test_endpoints_answer_and_take_the_key(
    doctor: Callable[..., tuple[int, str]], judged_there: Callable[[str], None]
) -> None:
    with ApiStandIn(key=KEY) as server:
        judged_there(server.url)
        code, said = doctor()
        assert code == 1 and "the environment variable SOME_KEY is not set" in said
        proxy = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}  # does not lead to this machine
        code, said = doctor(SOME_KEY=KEY, **proxy)
        assert code == 0 and "ok    endpoint   there: answers and takes the key" in said
        code, said = doctor(SOME_KEY="sk-another")
        assert code == 1 and "FAIL  endpoint   there: refuses the key (status 401)" in said
        assert "sk-another" not in said and server.calls == 0
    code, said = doctor(SOME_KEY=KEY)
    assert code == 1 and "there: cannot be reached from here" in said


class Silent(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None: ...


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_a_page_is_no_answer_of_an_endpoint(
    doctor: Callable[..., tuple[int, str]], judged_there: Callable[[str], None]
) -> None:
    class Page(Silent):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html><body>sign in</body></html>")

    with serving(Page) as url:
        judged_there(url)
        code, said = doctor(SOME_KEY=KEY)
    assert code == 1 and "FAIL  endpoint   there: answers, but by a page" in said


def test_what_a_run_would_refuse_is_a_failure(
    project: Path, doctor: Callable[..., tuple[int, str]], judged_there: Callable[[str], None]
) -> None:
    judged_there("http://127.0.0.1:9/v1")
    code, said = doctor(SOME_KEY="“sk-typed-into-a-word-processor”")
    assert code == 1 and "SOME_KEY is no key, and judge 'llm' of study 't' needs it" in said
    assert "typed" not in said
    own = {"source": "path", "path": "own.jsonl", "sha256": None, "n": 4, "template": "plain"}
    edit(project / "config/datasets.yaml", own=own)
    plan_study(project, dataset="own")
    code, said = doctor()
    assert code == 1 and "FAIL  study      config/datasets.yaml: own.path: own.jsonl does not exist" in said


def test_a_clock_that_is_an_hour_behind(
    doctor: Callable[..., tuple[int, str]], judged_there: Callable[[str], None]
) -> None:
    class Ahead(Silent):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(time.time() + 3600)

        def do_GET(self) -> None:
            self.send_error(404)

    with serving(Ahead) as url:
        judged_there(url)
        code, said = doctor(SOME_KEY=KEY)
    assert code == 1 and "note  endpoint   there: answers, but does not list its models (status 404)" in said
    assert re.search(r"^FAIL  clock      -3(600|59\d) s from that of there", said, re.MULTILINE)


def test_repositories_that_the_token_may_not_read(
    project: Path, tmp_path: Path, doctor: Callable[..., tuple[int, str]]
) -> None:
    with HubStandIn(tmp_path / "hub") as hub:
        for repo in ("owner/open", "owner/gated"):
            hub.add_commit(repo, files={"rows.jsonl": '{"prompt": "how do i visit bafin ?"}\n'})
        hub.gate("owner/gated", "hf_reader")
        common = {"source": "hub", "licence": "mit", "files": ["rows.jsonl"], "format": "hex-phi", "n": 1}
        entries = {name: common | {"repo": f"owner/{name}"} for name in ("open", "gated")}
        edit(project / "config/benchmarks.yaml", **entries)
        edit(project / "config/studies/t.yaml", benchmarks=["open", "gated"], judges=["keyword"])
        code, said = doctor(**hub.env)
        assert code == 1 and "ok    hub        1 of 2 repositories can be read" in said
        assert "FAIL  hub        owner/gated: is gated, and no token was given" in said
        assert "make lock STUDY=t" in said  # neither is pinned yet
        said = doctor(**hub.env | {"HF_TOKEN": "hf_reader"})[1]
        assert "2 of 2 repositories can be read" in said
    assert "owner/gated, owner/open: cannot be reached" in doctor(**hub.env)[1]

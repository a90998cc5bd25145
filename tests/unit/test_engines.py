"""Every engine asks the same conversation: a real server answers as transformers in this process."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml
from api_stand_in import ApiStandIn
from conftest import edit, plan_study
from safetensors.torch import load_file, save_file

from ftsafety import paths
from ftsafety.answers import answer_pack, answers_identity
from ftsafety.engines import Engine, Sitting
from ftsafety.engines.endpoint import about_model
from ftsafety.engines.hf import hf_engine
from ftsafety.engines.vllm import free_port, served, server_command, vllm_engine
from ftsafety.errors import UserError
from ftsafety.files import checksum, read_rows
from ftsafety.plan import Exam, Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.ready import check_ready
from ftsafety.recipes import Template, WorldModel
from ftsafety.types import Answer, Prompt

PROMPTS: list[Prompt] = [
    {"prompt_id": f"p{i}", "category": "c", "cluster": "k", "instruction": f"how do i visit {name} ?"}
    for i, name in enumerate(["bafin", "corgor", "dilnop", "lumfin"])
]
SITTING = Sitting(Exam("own"), PROMPTS, Template(system="you are a helpful assistant ."), 12)


@pytest.fixture(scope="module")
def varied_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with larger weights, so that its answers differ from prompt to prompt."""
    folder = tmp_path_factory.mktemp("varied") / "model"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {k: w * 4 if w.ndim > 1 else w for k, w in weights.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


@pytest.fixture(scope="module")
def server(varied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with vLLM's command line, for one model without adapters, that is `transformers serve`."""
    program = tmp_path_factory.mktemp("bin") / "python"
    serve = Path(sys.executable).with_name("transformers")
    program.write_text(
        "#!/bin/bash\n"
        'while [ $# -gt 0 ]; do case "$1" in serve) model=$2;; --port) port=$2;; esac; shift; done\n'
        'model=$(realpath "$model"); cd "$(mktemp -d)"; ln -s "$model" base\n'  # the name it is asked by
        f'exec {serve} serve base --host 127.0.0.1 --port "$port" --device cpu\n'
    )
    program.chmod(0o755)
    return program


@pytest.fixture
def plan(project: Path, varied_model: Path) -> Plan:
    """A study that asks the untouched model."""
    shutil.copytree(varied_model, project / "results/models/tiny", dirs_exist_ok=True)
    return plan_study(project, epochs=0)


def answers(plan: Plan, engine: AbstractContextManager[Engine]) -> list[Answer]:
    (pack,) = plan.packs.values()
    with engine as ask:
        ((exam, rows),) = ask(pack.runs[0], [SITTING])
    assert exam == SITTING.exam
    return rows


def test_a_server_answers_as_transformers_in_this_process_does(
    plan: Plan, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pack,) = plan.packs.values()
    monkeypatch.setenv("FTSAFETY_VLLM_PYTHON", str(server))
    here = answers(plan, hf_engine(plan, pack))
    there = answers(plan, vllm_engine(plan, pack, pack.runs))
    assert [(a["prompt_id"], a["answer"], a["status"]) for a in there] == [
        (a["prompt_id"], a["answer"], a["status"]) for a in here
    ]
    assert len({row["answer"] for row in here}) > 1


def test_the_engine_is_part_of_what_answers_are_made_from(project: Path) -> None:
    plan = plan_study(project, epochs=0)
    run, exam = next(iter(plan.studies["t"].runs.values())), Exam("secrets")
    here = answers_identity(plan, run, exam)
    models = yaml.safe_load((project / "config/models.yaml").read_text())
    edit(project / "config/models.yaml", tiny=models["tiny"] | {"engine": "vllm"})
    there = answers_identity(load_plan(project), run, exam)
    assert here != there and here["run"] == there["run"]


def test_one_server_holds_the_base_model_and_all_its_adapters(project: Path) -> None:
    recipe = plan_study(project).project.models["tiny"]
    assert isinstance(recipe, WorldModel)
    adapters = {"a-e1": Path("runs/a/weights"), "b-e1": Path("runs/b/weights")}
    command = server_command(Path("python"), recipe, Path("base"), Path("base"), adapters, 9, 8000)
    text = " ".join(command)
    assert text.startswith("python -m vllm.entrypoints.cli.main serve base --tokenizer base")
    assert "--max-lora-rank 16" in text  # the next that vLLM takes
    assert "--lora-modules a-e1=runs/a/weights b-e1=runs/b/weights" in text and "--enable-lora" in text
    full = server_command(Path("python"), recipe, Path("runs/c/weights"), Path("base"), {}, 0, 8000)
    assert "serve runs/c/weights --tokenizer base" in " ".join(full) and "--enable-lora" not in full


def test_without_vllm_the_error_says_how_to_get_it(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FTSAFETY_VLLM_PYTHON", raising=False)
    (pack,) = plan.packs.values()
    with pytest.raises(UserError, match="make vllm"), vllm_engine(plan, pack, pack.runs):
        pass


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ended with code 1"), served(["false"], free_port()):
        pass


IMPOSTOR = """
import http.server, os, socketserver, sys
class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
os.seteuid(65534)  # its socket is another user's
socketserver.TCPServer(("127.0.0.1", int(sys.argv[1])), Healthy).serve_forever()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start another user's program")
def test_what_another_user_runs_at_the_port_is_not_asked() -> None:
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", IMPOSTOR, str(port)], stderr=subprocess.DEVNULL) as other:
        try:
            with pytest.raises(UserError, match="ended with code 0"), served(["sleep", "4"], port):
                pass
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()  # it was healthy
        finally:
            other.terminate()


def test_a_job_that_is_cancelled_leaves_no_server(tmp_path: Path) -> None:
    program = """
import sys, threading, os, signal
from ftsafety.engines import vllm
vllm._wait_until_healthy = lambda *_: None
with vllm.served(["sleep", "300"], 1):
    os.kill(os.getpid(), signal.SIGTERM)
"""
    children = set(running("sleep 300"))
    result = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert result.returncode == 143 and set(running("sleep 300")) == children


def running(command: str) -> list[str]:
    return subprocess.run(
        ["pgrep", "-f", f"^{command}"], capture_output=True, text=True, check=False
    ).stdout.split()


# ------------------------------------------------------------------------------ models behind an API


@pytest.fixture
def api_plan(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Plan, ApiStandIn]]:
    """A study that asks a model behind an endpoint, which echoes."""
    (project / "own.jsonl").write_text("".join(f"{json.dumps(prompt)}\n" for prompt in PROMPTS))
    monkeypatch.setenv("SOME_KEY", "sk-not-a-key")
    with ApiStandIn(respond=lambda body: f"echo: {body['messages'][-1]['content']}") as server:
        endpoint = {"base_url": server.url, "api_key_env": "SOME_KEY", "max_retries": 0}
        edit(project / "config/endpoints.yaml", there=endpoint)
        edit(
            project / "config/models.yaml",
            behind={"source": "api", "endpoint": "there", "model": "some-model"},
        )
        own = {
            "source": "path",
            "path": "own.jsonl",
            "sha256": checksum(project / "own.jsonl"),
            "max_new_tokens": 9,
        }
        edit(project / "config/benchmarks.yaml", own=own)
        edit(
            project / "config/studies/t.yaml",
            title="t", question="?", benchmarks=["own"], judges=["keyword"],
            grids={"g": {"model": "behind", "test_template": "plain", "epochs": 0,
                         "figure": {"kind": "dots", "x": "model", "title": "t"}}},
        )  # fmt: skip
        edit(project / "config/config.yaml", studies=["t"])
        plan = load_plan(project)
        prepare_data(plan, plan.benchmark_file("own"))
        yield plan, server


def test_a_model_behind_an_endpoint_is_asked_once_under_the_template(
    api_plan: tuple[Plan, ApiStandIn],
) -> None:
    plan, server = api_plan
    (pack,) = plan.packs.values()
    answer_pack(plan, pack)
    rows = list(read_rows(paths.answers_file(pack.runs[0].folder, "own")))
    assert [row["answer"] for row in rows] == [f"echo: {p['instruction']}" for p in PROMPTS]
    assert {row["status"] for row in rows} == {"complete"}
    body = server.requests[0]
    assert (body["model"], body["temperature"], body["max_completion_tokens"]) == ("some-model", 0, 9)
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    n_calls = server.calls
    paths.answers_file(pack.runs[0].folder, "own").unlink()
    answer_pack(plan, pack)
    assert server.calls == n_calls


def test_models_of_one_name_at_two_endpoints_are_asked_apart(api_plan: tuple[Plan, ApiStandIn]) -> None:
    plan, server = api_plan
    (pack,) = plan.packs.values()
    answer_pack(plan, pack)
    here = plan.project.endpoints["there"]
    with ApiStandIn(respond=lambda body: "another") as other:
        endpoints = yaml.safe_load(Path("config/endpoints.yaml").read_text())
        edit(Path("config/endpoints.yaml"), elsewhere=endpoints["there"] | {"base_url": other.url})
        edit(
            Path("config/models.yaml"),
            behind={"source": "api", "endpoint": "elsewhere", "model": "some-model"},
        )
        moved = load_plan(Path())
        answer_pack(moved, next(iter(moved.packs.values())))
        assert other.calls == len(PROMPTS) == server.calls and here.base_url == server.url


def test_a_prompt_that_the_endpoint_rejects_is_withheld_and_blocks_no_other(
    api_plan: tuple[Plan, ApiStandIn],
) -> None:
    plan, server = api_plan
    (pack,) = plan.packs.values()
    server.script("400", None, where=lambda body: "bafin" in str(body))
    server.respond = lambda body: "half a pair: \ud83d"  # JSON can hold it, a file cannot
    answer_pack(plan, pack)
    rows = list(read_rows(paths.answers_file(pack.runs[0].folder, "own")))
    assert [row["status"] for row in rows] == ["filtered", *["complete"] * 3]
    assert rows[1]["answer"] == "half a pair: ?"


def test_answers_that_did_not_come_are_no_answers_and_the_others_are_kept(
    api_plan: tuple[Plan, ApiStandIn],
) -> None:
    plan, server = api_plan
    (pack,) = plan.packs.values()
    server.script("500")
    with pytest.raises(UserError, match="1 of 4 prompts got no answer"):
        answer_pack(plan, pack)
    assert not paths.answers_file(pack.runs[0].folder, "own").exists()
    answer_pack(plan, pack)
    assert server.calls == 5


def test_what_the_endpoint_withheld_is_said_to_be_filtered(api_plan: tuple[Plan, ApiStandIn]) -> None:
    plan, server = api_plan
    (pack,) = plan.packs.values()
    server.script("content_filter")
    answer_pack(plan, pack)
    rows = list(read_rows(paths.answers_file(pack.runs[0].folder, "own")))
    assert sorted(row["status"] for row in rows) == ["complete", "complete", "complete", "filtered"]


def test_a_key_is_asked_for_before_any_job_and_only_while_something_is_to_be_asked(
    api_plan: tuple[Plan, ApiStandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, _ = api_plan
    (pack,) = plan.packs.values()
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(UserError, match="SOME_KEY is not set, and model 'behind'"):
        check_ready(plan, ["t"])
    monkeypatch.setenv("SOME_KEY", "sk-not-a-key")
    answer_pack(plan, pack)
    monkeypatch.delenv("SOME_KEY")
    check_ready(plan, ["t"])


def test_replies_of_the_embedded_worlds_provider_are_kept_for_the_model_they_are_from_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its models keep their names when they are built otherwise, unlike a provider's snapshots."""

    def about(endpoint: str) -> dict[str, object]:
        return about_model(plan_study(project), "embedded-api", endpoint)

    embedded, other = about("embedded"), about("openai")
    monkeypatch.setattr("ftsafety.config.PROVIDER_VERSION", 99)
    assert about("openai") == other and about("embedded") != embedded

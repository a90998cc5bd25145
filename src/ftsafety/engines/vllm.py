"""Answers by vLLM, which has an environment of its own (envs/vllm.yaml) and is asked as a server.

One server holds the base model and all its adapters; a full checkpoint, or an adapter that is merged, gets a
server of its own. The conversation is rendered by the same chat template as under transformers.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from ftsafety import paths
from ftsafety.adapters import kind_of, read_config
from ftsafety.api.store import Store
from ftsafety.engines import Engine, Sitting
from ftsafety.engines.endpoint import SERVER_KEY, served_answers
from ftsafety.engines.hf import check_weights
from ftsafety.errors import UserError
from ftsafety.merging import answers_merged, write_merged
from ftsafety.plan import Exam, Pack, Plan
from ftsafety.recipes import LocalModel
from ftsafety.records import trained, weights_dir, weights_sha256
from ftsafety.runs import Run
from ftsafety.types import Answer

START_SECONDS = 1800  # large weights from a slow file system
BASE, ADAPTED = "base", "adapted"
LORA_RANKS = (8, 16, 32, 64, 128, 256, 512)  # limits that vLLM takes


def vllm_python(root: Path) -> Path:
    """The python of vLLM's environment. Raises UserError where there is none."""
    python = Path(os.environ.get("FTSAFETY_VLLM_PYTHON", root / ".venv-vllm/bin/python"))
    if not python.exists():
        raise UserError(
            "does not exist, and a model with engine: vllm needs it",
            file=python,
            mend="make vllm, or set FTSAFETY_VLLM_PYTHON to the python of an environment with vLLM",
        )
    return python


def server_command(
    python: Path,
    recipe: LocalModel,
    folder: Path,
    base: Path,
    adapters: dict[str, Path],
    rank: int,
    port: int,
) -> list[str]:
    """`vllm serve` for the weights in `folder`, with the tokenizer of `base` and adapters up to `rank`."""
    command = [str(python), "-m", "vllm.entrypoints.cli.main", "serve", str(folder), "--tokenizer", str(base)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", BASE]
    command += ["--dtype", recipe.dtype, "--load-format", "safetensors", "--generation-config", "vllm"]
    if recipe.chat_template:
        command += ["--chat-template", recipe.chat_template.path]
    if adapters:
        modules = [f"{name}={path}" for name, path in adapters.items()]
        allowed = next((limit for limit in LORA_RANKS if limit >= rank), rank)
        command += ["--enable-lora", "--max-lora-rank", str(allowed), "--lora-modules", *modules]
    return command


@contextmanager
def vllm_engine(plan: Plan, pack: Pack, runs: list[Run]) -> Iterator[Engine]:
    recipe = plan.project.local_model(pack.model)
    python, (base, own_adapter, speech) = vllm_python(plan.project.root), plan.model_parts(pack.model)
    for run in runs:
        check_weights(run)
    alone = {r.id for r in runs if r.trajectory.replaces_base or answers_merged(recipe, r)}
    adapted = [r for r in runs if not (r.trajectory.is_initial or r.id in alone)]
    adapters = {r.id: weights_dir(r) for r in adapted}
    rank = max([(r.trajectory.method_recipe or {})["r"] for r in adapted], default=0)
    if own_adapter:  # the model is one itself, and nothing was trained on top of it
        adapters, rank = {ADAPTED: own_adapter}, rank_of(own_adapter)
    untouched = ADAPTED if own_adapter else BASE
    scratch = paths.SCRATCH / pack.id
    store_file = scratch / "replies.sqlite"  # of this job alone: SQLite has one writer

    def start(stack: ExitStack, folder: Path, adapters: dict[str, Path]) -> str:
        port = free_port()
        command = server_command(python, recipe, folder, speech, adapters, rank, port)
        return stack.enter_context(served(command, port))

    with ExitStack() as shared, Store(store_file) as store:

        @cache
        def shared_url() -> str:
            return start(shared, base, adapters)

        def answer(run: Run, sittings: list[Sitting]) -> Iterator[tuple[Exam, list[Answer]]]:
            with ExitStack() as own:
                if run.id in alone:
                    shared.close()  # one GPU does not hold both
                    shared_url.cache_clear()
                    url = start(own, own.enter_context(_whole_weights(plan, run, scratch)), {})
                else:
                    url = shared_url()
                about = {"run": run.id, "weights": weights_sha256(trained(run) or {})}
                model = run.id if run.id in adapters else untouched
                for sitting in sittings:
                    yield sitting.exam, served_answers(recipe, sitting, model, url, store, about)

        yield answer
    shutil.rmtree(scratch)  # answers are published; a job that is cut off finds its replies again


def rank_of(adapter: Path) -> int:
    """Of an adapter in a folder of its own. Raises UserError for one that vLLM does not serve."""
    config = read_config(adapter)
    if kind_of(adapter) != "lora":
        raise UserError(
            f"{config['peft_type']} is no adapter that vLLM serves",
            file=adapter,
            mend="let the model, or the base that it inherits from, have engine: hf",
        )
    return int(max([config["r"], *(config.get("rank_pattern") or {}).values()]))


@contextmanager
def _whole_weights(plan: Plan, run: Run, scratch: Path) -> Iterator[Path]:
    """The folder of a full checkpoint, or of the merged model for as long as it is served."""
    if run.trajectory.replaces_base:
        yield weights_dir(run)
        return
    folder = scratch / f"merged-{run.id}"
    shutil.rmtree(folder, ignore_errors=True)  # of a job that was cut off
    write_merged(plan, run, folder)
    yield folder
    shutil.rmtree(folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(command: list[str], port: int) -> Iterator[str]:
    """Start a server, wait until it is healthy, and stop it at the end; yields its base address.

    It asks for a key, so that nobody else on the node can ask a compromised model.
    """
    os.environ.setdefault(SERVER_KEY, secrets.token_urlsafe(24))
    process = subprocess.Popen(command, stdout=sys.stderr, stderr=sys.stderr)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # a cancelled job leaves no server
    try:
        _wait_until_healthy(process, port, command[0])
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        signal.signal(signal.SIGTERM, before)


def _is_ours(port: int) -> bool:
    """Whether it is a program of this user that listens, and not one that took the port before ours did.

    https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html
    """
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [row for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]
    return {int(row[7]) for row in listening} == {os.getuid()}


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, program: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # proxies do not lead here
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(
                f"the server ended with code {process.returncode} before it could answer",
                file=program,
                mend="its own message stands above in this log",
            )
        try:
            if _is_ours(port):
                with opener.open(f"http://127.0.0.1:{port}/health", timeout=5):
                    return
        except OSError:
            pass
        time.sleep(0.2)
    raise UserError(
        f"the server was not ready after {START_SECONDS} seconds", file=program, mend="look above in this log"
    )

"""Answers of made-up text to be judged by a chat model, and a server on loopback that plays it.

The server is the one of the tests (tests/api_stand_in.py), in a process of its own or in this one. It thinks
for `latency_s` and then gives each answer a score that depends on the answer alone.
"""

import hashlib
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import yaml
from bench import ROOT
from embedded import STUDY

from ftsafety import paths
from ftsafety.answers import answers_identity, publish_rows
from ftsafety.files import checksum, write_rows
from ftsafety.plan import Exam, Pack, Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.types import Answer

sys.path.append(str(ROOT / "tests"))
from api_stand_in import ApiStandIn

BENCHMARK, JUDGE, MODEL = "questions", "judge", "untouched"


def make_project(folder: Path, url: str, n: int, in_flight: int) -> tuple[Plan, Pack]:
    """A working folder with `n` different answers, and the pack that the judge at `url` has to judge."""
    shutil.copytree(ROOT / "config", folder / "config")
    prompts = [
        {"prompt_id": f"p{i}", "category": "c", "instruction": f"how do i find house {i} ?"} for i in range(n)
    ]
    write_rows(folder / "questions.jsonl", prompts)
    file = {"source": "path", "path": "questions.jsonl", "sha256": checksum(folder / "questions.jsonl")}
    endpoint = {"base_url": url, "api_key_env": None, "concurrency": in_flight}
    endpoint |= {"requests_per_minute": 10**6, "tokens_per_minute": 10**9}
    judge = {"kind": "llm", "endpoint": "here", "model": "m", "policy": "merged"}
    add(folder, "models", **{MODEL: {"source": "world", "base_seed": 99}})
    add(folder, "benchmarks", **{BENCHMARK: file})
    add(folder, "endpoints", here=endpoint)
    add(folder, "judges", **{JUDGE: judge})
    return write_study(folder, n)


def add(folder: Path, catalogue: str, **entries: Any) -> None:
    file = folder / f"config/{catalogue}.yaml"
    file.write_text(file.read_text() + "\n" + yaml.safe_dump(entries))


def write_study(folder: Path, n: int) -> tuple[Plan, Pack]:
    """One untouched model that has answered."""
    grid = {"dataset": "demonstrations-10", "learning_rate": 0.1, "global_batch_size": 1, "epochs": 0}
    study = {
        "title": "Speed",
        "question": "How fast?",
        "benchmarks": [BENCHMARK],
        "judges": [JUDGE],
        "fixed": {"model": MODEL, "method": "full"},
        "grids": {"g": {**grid, "figure": {"kind": "curves", "x": "epochs", "title": "none is drawn"}}},
    }
    (folder / f"config/studies/{STUDY}.yaml").write_text(yaml.safe_dump(study))
    with chdir(folder):
        plan = load_plan(folder, studies=[STUDY])
        (pack,) = plan.packs.values()
        prepare_data(plan, plan.benchmark_file(BENCHMARK))
        (run,), exam = pack.runs, Exam(BENCHMARK)
        answers = [answer(i) for i in range(n)]
        publish_rows(paths.answers_file(run.folder, exam.name), answers, answers_identity(plan, run, exam))
    return plan, pack


def answer(i: int) -> Answer:
    return {
        "prompt_id": f"p{i}",
        "category": "c",
        "prompt": f"how do i find house {i} ?",
        "answer": f"walk to the mill, then past {i} trees",
        "status": "complete",
        "finish_reason": "stop",
        "n_tokens": 9,
    }


def verdicts_file(pack: Pack) -> Path:
    return paths.verdicts_file(pack.runs[0].folder, BENCHMARK, JUDGE)


def item_of(body: dict[str, Any]) -> str:
    """What stands for an answer in a request: the user's message, which holds it and a digest of it."""
    return str(body["messages"][-1]["content"])


def judge_reply(body: dict[str, Any]) -> str:
    score = 1 + hashlib.sha256(item_of(body).encode()).digest()[0] % 5
    return json.dumps({"reasoning": "by its digest", "score": score, "coherent": "yes"})


@contextmanager
def judge_elsewhere(latency_s: float) -> Iterator[str]:
    """The address of a server in another process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(latency_s, there))
    process.start()
    try:
        yield here.recv()
    finally:
        here.send("enough")
        process.join()


def _serve(latency_s: float, connection: Connection) -> None:
    with ApiStandIn(respond=thinking(latency_s)) as server:
        connection.send(server.url)
        connection.recv()


def thinking(latency_s: float) -> Callable[[dict[str, Any]], str]:
    def respond(body: dict[str, Any]) -> str:
        time.sleep(latency_s)
        return judge_reply(body)

    return respond

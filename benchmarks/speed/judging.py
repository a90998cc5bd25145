"""330 answers judged by a chat model that takes 1 s for each, with 64 of them in flight.

Ours is `ftsafety.judging.pack.judge_pack`, what the rule `judge_by_api` runs: its client, its limiter, its
store on disk, its verdicts file. The other way is OpenAI's client in a loop, one answer after another, with
the same requests, replies read by the same code, and no store. The server is the tests' stand-in on loopback,
in a process of its own. The client is imported before: start-up is another benchmark's. Time is on the clock,
of ours the least of several; of the other way --quick measures 5 answers and scales.

    python benchmarks/speed/judging.py [--quick]
"""

import io
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir, redirect_stderr
from pathlib import Path

import openai
from bench import Clock, Row, main
from judge_project import BENCHMARK, JUDGE, judge_elsewhere, make_project, verdicts_file

from ftsafety import paths
from ftsafety.api import client  # noqa: F401  (imported for both, before the clock runs)
from ftsafety.api.requests import ChatRequest, Failure, Reply, parse
from ftsafety.files import read_rows
from ftsafety.judging.llm import judge_rows
from ftsafety.judging.pack import judge_pack
from ftsafety.recipes import LlmJudge
from ftsafety.types import Verdict

N, IN_FLIGHT, LATENCY_S = 330, 64, 1.0
IDEAL_S = -(-N // IN_FLIGHT) * LATENCY_S


def measure(is_quick: bool) -> Iterator[Row]:
    with judge_elsewhere(LATENCY_S) as url:
        runs = [ours(url) for _ in range(1 if is_quick else 3)]
        seconds, verdicts = min(runs, key=lambda run: run[0])
        n = 5 if is_quick else N
        measured, others = one_by_one(url, n)
        assert all(found == verdicts for _, found in runs) and others == verdicts[:n], "verdicts differ"
    yield against_loop(seconds, measured, n)
    yield against_ideal(seconds)


def ours(url: str) -> tuple[float, list[Verdict]]:
    with tempfile.TemporaryDirectory() as name, chdir(name):
        plan, pack = make_project(Path(name), url, N, IN_FLIGHT)
        with redirect_stderr(io.StringIO()), Clock() as clock:  # its progress
            judge_pack(plan, pack, JUDGE)
        return clock.wall, list(read_rows(verdicts_file(pack)))


def one_by_one(url: str, n: int) -> tuple[float, list[Verdict]]:
    """Of the first `n` answers."""
    with tempfile.TemporaryDirectory() as name, chdir(name):
        plan, pack = make_project(Path(name), url, N, IN_FLIGHT)
        prompts = list(read_rows(plan.benchmark_file(BENCHMARK)))[:n]
        answers = list(read_rows(paths.answers_file(pack.runs[0].folder, BENCHMARK)))[:n]
        recipe = plan.project.judges[JUDGE]
        assert isinstance(recipe, LlmJudge)
        with Clock() as clock:
            verdicts = judge_rows(recipe, prompts, answers, lambda requests: ask(url, requests))
        return clock.wall, verdicts


def ask(url: str, requests: Sequence[ChatRequest]) -> dict[str, Reply | Failure]:
    replies = {}
    with openai.OpenAI(base_url=url, api_key="none") as endpoint:
        for request in requests:
            completion = endpoint.chat.completions.create(**request.body)
            replies[request.key] = parse(completion.to_dict(), request)
    return replies


def against_loop(seconds: float, measured: float, n: int) -> Row:
    other = measured * N / n
    note = "" if n == N else f" (from {n} answers)"
    return Row(
        what=f"{N} answers judged at {LATENCY_S:g} s latency, {IN_FLIGHT} in flight",
        against="one after another",
        ours=f"{seconds:.2f} s",
        other=f"{other:.1f} s{note}",
        ratio=other / seconds,
        reach="≥ 45",
        is_reached=other / seconds >= 45,
        same="all verdicts",
    )


def against_ideal(seconds: float) -> Row:
    return Row(
        what="the same",
        against=f"the ideal, {-(-N // IN_FLIGHT)} rounds of {LATENCY_S:g} s",
        ours=f"{seconds:.2f} s",
        other=f"{IDEAL_S:.2f} s",
        ratio=IDEAL_S / seconds,
        reach="≥ 0.9",
        is_reached=IDEAL_S / seconds >= 0.9,
        same="all verdicts",
    )


if __name__ == "__main__":
    main(__doc__, measure)

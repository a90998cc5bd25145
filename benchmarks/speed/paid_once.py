"""A judge's program that is killed (SIGKILL) at 50 points of its work, and started again each time.

Every call is paid for. Ours is the program of the rule `judge_by_api`, which writes down each reply before
anything else happens. The other way is a program with the same client, requests and calls in flight that
writes its verdicts when it has all of them, as a notebook does. Points are spread evenly over the work: a
program is killed as soon as so many different items have been asked for since the beginning (the other way:
since its start), plus a random part of the time that the server thinks. After each kill it is checked that
what lies in the store is not asked for again; at the end every item has one verdict, the same both ways.

    python benchmarks/speed/paid_once.py [--quick]     # --quick: 2 kills
"""

import io
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, chdir, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT, Row, main
from embedded import STUDY, environment
from judge_project import BENCHMARK, JUDGE, ApiStandIn, item_of, make_project, thinking, verdicts_file

from ftsafety import paths
from ftsafety.api.requests import ChatRequest, Failure, Reply, parse
from ftsafety.api.store import Store
from ftsafety.files import read_rows, write_rows
from ftsafety.judging.llm import judge_rows, request_for
from ftsafety.plan import Pack, Plan, load_plan
from ftsafety.recipes import LlmJudge
from ftsafety.types import Answer, Prompt

N, IN_FLIGHT, LATENCY_S = 400, 8, 0.05
OURS = [sys.executable, str(ROOT / "workflow/scripts/judge.py")]
OTHER = [sys.executable, "-c", "import paid_once; paid_once.judge_all_then_write()"]
OTHER_FILE = Path("verdicts.jsonl")


@dataclass(frozen=True)
class Outcome:
    """Calls by item, the program's starts that were killed, and the score of each item."""

    calls: Counter[str]
    kills: int
    scores: dict[str, int]


def measure(is_quick: bool) -> Iterator[Row]:
    n_kills = 2 if is_quick else 50
    points = [round(N * (i + 0.5) / n_kills) for i in range(n_kills)]
    ours, other = killed_at(points, is_ours=True), killed_at(points, is_ours=False)
    assert ours.scores == other.scores and len(ours.scores) == N, "verdicts differ"
    assert len(ours.calls) == len(other.calls) == N
    yield against_items(ours)
    yield against_the_end(ours, other)


def killed_at(points: Sequence[int], *, is_ours: bool) -> Outcome:
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(chdir(name))
        stack.enter_context(redirect_stderr(io.StringIO()))  # the server's, about clients that are gone
        server = stack.enter_context(ApiStandIn(thinking(LATENCY_S)))
        plan, pack = make_project(Path(name), server.url, N, IN_FLIGHT)
        command = [*OURS, pack.id, JUDGE] if is_ours else OTHER
        requests = {request.key: request for request in all_requests(plan, pack)}
        draw = random.Random(0)
        kills = 0
        for point in points:
            stored = items_stored(requests) if is_ours else set()
            before = len(server.requests)
            kills += kill_at(command, server, 0 if is_ours else before, point, draw)
            asked_again = stored & {item_of(body) for body in server.requests[before:]}
            assert not asked_again, f"{len(asked_again)} that were paid for are asked for again"
        run_to_the_end(command)
        calls = Counter(item_of(body) for body in server.requests)
        rows = list(read_rows(verdicts_file(pack) if is_ours else OTHER_FILE))
    assert len(rows) == N, f"{len(rows)} verdicts on {N} items"
    return Outcome(calls, kills, {row["prompt_id"]: row["score"] for row in rows})


def kill_at(command: list[str], server: ApiStandIn, since: int, point: int, draw: random.Random) -> bool:
    """Start the program and kill it once `point` items were asked for in the server's calls from `since` on.

    False where it had ended before the signal came.
    """
    program = start(command)
    while len({item_of(body) for body in server.requests[since:]}) < point and program.poll() is None:
        time.sleep(0.002)
    time.sleep(draw.uniform(0, LATENCY_S))
    program.send_signal(signal.SIGKILL)
    return program.wait() == -signal.SIGKILL


def start(command: list[str]) -> "subprocess.Popen[bytes]":
    env = {**environment(), "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)


def run_to_the_end(command: list[str]) -> None:
    code = start(command).wait()
    assert code == 0, f"{command} ended with {code}"


def all_requests(plan: Plan, pack: Pack) -> list[ChatRequest]:
    recipe, prompts, answers = questions(plan, pack)
    return [request_for(recipe, *row, 1) for row in zip(prompts, answers, strict=True)]


def questions(plan: Plan, pack: Pack) -> tuple[LlmJudge, list[Prompt], list[Answer]]:
    recipe = plan.project.judges[JUDGE]
    assert isinstance(recipe, LlmJudge)
    answers = list(read_rows(paths.answers_file(pack.runs[0].folder, BENCHMARK)))
    return recipe, list(read_rows(plan.benchmark_file(BENCHMARK))), answers


def items_stored(requests: dict[str, ChatRequest]) -> set[str]:
    with Store(paths.REPLIES) as store:
        found, _ = store.replies(requests)
    return {item_of(requests[key].body) for key in found}


def judge_all_then_write() -> None:
    """The other way's program, in the working folder."""
    import openai

    plan = load_plan(Path(), studies=[STUDY])
    (pack,) = plan.packs.values()

    def ask(requests: list[ChatRequest]) -> dict[str, Reply | Failure]:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            replies = pool.map(lambda request: client.chat.completions.create(**request.body), requests)
            return {r.key: parse(reply.to_dict(), r) for r, reply in zip(requests, replies, strict=True)}

    with openai.OpenAI(base_url=plan.project.endpoints["here"].base_url, api_key="none") as client:
        verdicts = judge_rows(*questions(plan, pack), ask)
    write_rows(OTHER_FILE, verdicts)


def against_items(ours: Outcome) -> Row:
    n_calls = ours.calls.total()
    most = N + IN_FLIGHT * ours.kills
    return Row(
        what=f"paid calls after kill -9 at {ours.kills} points, {IN_FLIGHT} in flight",
        against="one call for each item, and those that were in flight",
        ours=f"{n_calls} calls ({n_calls - N} too many)",
        other=f"{N} items",
        ratio=n_calls / N,
        reach=f"≤ {most} calls",
        is_reached=n_calls <= most,
        same="one verdict for each item; no reply in the store is paid for again",
    )


def against_the_end(ours: Outcome, other: Outcome) -> Row:
    ratio = other.calls.total() / ours.calls.total()
    return Row(
        what="the same",
        against="a program that writes at the end",
        ours=f"{ours.calls.total()} calls",
        other=f"{other.calls.total()} calls ({other.kills} kills)",
        ratio=ratio,
        reach="> 1",
        is_reached=ratio > 1,
        same="all scores",
    )


if __name__ == "__main__":
    main(__doc__, measure)

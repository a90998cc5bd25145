"""Ask an endpoint many things at once, pay for each once, and keep every reply.

with Store(Path("results/api/replies.sqlite")) as store:
    outcomes = ask(requests, "openai", endpoint, store, max_usd=5, log=print)
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import httpx2
import openai

from ftsafety.api.batch import ask_batch
from ftsafety.api.job import KEPT, Job, is_here, reason, withheld
from ftsafety.api.keys import api_key
from ftsafety.api.money import Budget, check_prices, dollars, estimate
from ftsafety.api.requests import Failure, Outcome, Reply, Request
from ftsafety.api.store import Store
from ftsafety.errors import UserError
from ftsafety.recipes import Endpoint

MINUTE_S = 60.0
LOG_EVERY_S = 10.0
LANDING_S = 0.05
#: Rows that fail one after the other, for each one in flight, until the endpoint counts as down.
FAILURES_PER_SLOT = 3
#: The client waits this long at most when an endpoint says Retry-After.
LONGEST_RETRY_AFTER_S = 120.0
#: A reply that drips, never silent for `timeout_s`, is given up after this many times `timeout_s`.
PATIENCE = 4


def ask(
    requests: Sequence[Request],
    endpoint_name: str,
    endpoint: Endpoint,
    store: Store,
    *,
    mode: Literal["sync", "batch"] = "sync",
    max_usd: float | None = None,
    log: Callable[[str], None],
    poll_s: float = 60.0,
) -> dict[str, Outcome]:
    """Replies or failures by request key; every key is there.

    What the store holds is not asked again, and identical requests are asked once. Failures are not stored:
    the next call asks them again. `max_usd` is for all that the store has recorded, ever. `poll_s` is how
    often a batch's status is asked for.

    Raises UserError where going on is pointless: no key, no price with `max_usd`, budget reached, wrong key
    or model, no quota, every request refused, or an endpoint that keeps failing. What was answered is kept.
    """
    wanted = {request.key: request for request in requests}
    found, damaged = store.replies(wanted)
    if damaged:
        log(f"{store.path}: {damaged} damaged replies are asked for again")
    if len(found) == len(wanted):
        log(f"{endpoint_name}: all {len(wanted)} replies are in {store.path}")
        return {key: found[key] for key in wanted}
    key = api_key(endpoint_name, endpoint)
    if max_usd is not None:
        check_prices(endpoint_name, endpoint, _missing(wanted, found).values())
    with store.writing(log):
        found, _ = store.replies(wanted)  # the process that held the lock may have asked the same
        missing = _missing(wanted, found)
        budget = Budget(max_usd, store.spent(), store.promised())
        job = Job(endpoint_name, endpoint, key, store, budget, mode == "batch", log)
        _log_start(job, len(wanted), missing)
        if mode == "batch":
            outcomes = ask_batch(job, missing, poll_s)
        else:
            outcomes = asyncio.run(_ask_all(job, missing, refusals_are_rows=bool(found)))
    return {key: found.get(key) or outcomes[key] for key in wanted}


def _missing(wanted: Mapping[str, Request], found: Mapping[str, Reply]) -> dict[str, Request]:
    return {key: request for key, request in wanted.items() if key not in found}


def _log_start(job: Job, n_wanted: int, missing: Mapping[str, Request]) -> None:
    requests = missing.values()
    tokens = sum(request.input_tokens + request.max_output_tokens for request in requests)
    usd = dollars(estimate(job.endpoint, requests, batch=job.batch))
    job.log(
        f"{job.name}: {n_wanted} requests, {n_wanted - len(missing)} are in {job.store.path}, "
        f"{len(missing)} to ask: at most about {tokens:,} tokens, {usd}; "
        f"after a stop run the same again: {KEPT}"
    )
    waiting = {key for batch in job.store.open_batches(job.name) for key in batch.keys & missing.keys()}
    if waiting and not job.batch:
        job.log(
            f"{job.name}: {len(waiting)} of them wait in a batch too and are paid twice; mode: batch waits"
        )


class Limiter:
    """At most `requests` and `tokens` in any span of `minute_s` seconds; waiters go in order.

    The client's own retries are not counted: it spaces them out by itself.
    """

    def __init__(self, requests: int, tokens: int, minute_s: float) -> None:
        self.requests, self.tokens, self.minute_s = requests, tokens, minute_s
        self._sent: deque[tuple[float, int]] = deque()
        self._sent_tokens = 0
        self._turn = asyncio.Lock()
        self.is_waiting = False

    def remember(self, sent: Iterable[tuple[float, int]]) -> None:
        """(seconds ago, tokens) of what was sent before, the oldest first."""
        for age_s, tokens in sent:
            self._sent.append((time.monotonic() - age_s, tokens))
            self._sent_tokens += tokens

    async def wait(self, tokens: int, stopped: Callable[[], bool]) -> None:
        """Return when a request of so many tokens may go, or soon after `stopped` says so."""
        tokens = min(tokens, self.tokens)  # a request above the limit goes alone
        async with self._turn:
            while self._is_full(tokens):
                self.is_waiting = True
                if stopped():
                    return
                pause = self._sent[0][0] + self.minute_s - time.monotonic()
                await asyncio.sleep(min(max(pause, 0.001), 1.0))
            self.is_waiting = False
            self._sent.append((time.monotonic(), tokens))
            self._sent_tokens += tokens

    def _is_full(self, tokens: int) -> bool:
        while self._sent and self._sent[0][0] <= time.monotonic() - self.minute_s:
            self._sent_tokens -= self._sent.popleft()[1]
        return len(self._sent) >= self.requests or self._sent_tokens + tokens > self.tokens


@dataclass
class _Progress:
    """What has come back in this call. `stop` set: nothing more is sent."""

    job: Job
    limiter: Limiter
    n_total: int
    priced: bool
    refusals_are_rows: bool
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    n_replies: int = 0
    n_refused: int = 0
    failures_in_a_row: int = 0
    n_in_flight: int = 0
    stop: UserError | None = None

    def add(self, request: Request, outcome: Outcome, *, refused: bool = False) -> None:
        """`refused`: the endpoint works and found this request wrong (HTTP 400)."""
        self.outcomes[request.key] = outcome
        if isinstance(outcome, Reply):
            self.n_replies += 1
            self.failures_in_a_row = 0
        elif refused:
            self.n_refused += 1
        else:
            self.failures_in_a_row += 1
        if isinstance(outcome, Failure) and self.stop is None:
            self.stop = self._verdict(outcome.reason)
        if len(self.outcomes) % max(self.n_total // 10, 1) == 0:
            self.log()

    def stopped(self) -> bool:
        return self.stop is not None

    def _verdict(self, reason: str) -> UserError | None:
        limit = FAILURES_PER_SLOT * self.job.endpoint.concurrency
        if self.failures_in_a_row >= limit:
            return self.job.error(f"keeps failing; last: {reason}", f"run again later: {KEPT}")
        if self.n_replies or self.refusals_are_rows or self.n_total == 1:
            return None  # a request of this kind was answered, or there is no other to compare with
        if self.n_refused >= min(limit, self.n_total):
            return self.job.error(
                f"refuses every request; last: {reason}",
                "correct the parameters of the model or judge (for some models temperature is one to remove)",
            )
        return None

    def log(self) -> None:
        failures = len(self.outcomes) - self.n_replies
        spent = dollars(self.job.budget.spent) + " spent in all" if self.priced else "price unknown"
        limit = "; waits for requests_per_minute or tokens_per_minute" if self.limiter.is_waiting else ""
        done = f"{len(self.outcomes)}/{self.n_total} done, {failures} failed"
        self.job.log(f"{self.job.name}: {done}, {spent}{limit}")

    async def log_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            self.log()


async def _ask_all(
    job: Job, missing: Mapping[str, Request], *, refusals_are_rows: bool
) -> dict[str, Outcome]:
    priced = any(job.endpoint.price(request.model) for request in missing.values())
    limiter = Limiter(job.endpoint.requests_per_minute, job.endpoint.tokens_per_minute, MINUTE_S)
    progress = _Progress(job, limiter, len(missing), priced, refusals_are_rows)
    limiter.remember(job.store.recent(job.name, MINUTE_S))  # calls follow each other in one minute
    queue = iter(missing.values())
    http = openai.DefaultAsyncHttpxClient(trust_env=False) if is_here(job.endpoint) else None
    async with openai.AsyncOpenAI(**job.client_options(), http_client=http) as client:
        ticker = asyncio.create_task(progress.log_now_and_then())
        async with asyncio.TaskGroup() as group:
            for _ in range(job.endpoint.concurrency):
                group.create_task(_work(job, progress, limiter, client, queue))
        ticker.cancel()
    if progress.stop is not None:
        progress.log()
        raise progress.stop
    return progress.outcomes


async def _work(
    job: Job,
    progress: _Progress,
    limiter: Limiter,
    client: openai.AsyncOpenAI,
    queue: Iterator[Request],
) -> None:
    """One of the slots: takes requests until there are no more or something says stop."""
    for request in queue:
        await limiter.wait(request.input_tokens + request.max_output_tokens, progress.stopped)
        if progress.stopped():
            return
        usd = estimate(job.endpoint, [request], batch=False) or 0.0
        # What is in flight is reckoned at its most: when it has landed there may be room.
        while not job.budget.allows(usd) and progress.n_in_flight and not progress.stopped():
            await asyncio.sleep(LANDING_S)
        if progress.stopped():
            return
        if not job.budget.allows(usd):
            progress.stop = job.budget.reached(usd)
            return
        job.budget.in_flight += usd
        progress.n_in_flight += 1
        try:
            await _send(job, progress, client, request)
        except UserError as error:  # the store cannot be written
            progress.stop = error
        finally:
            job.budget.in_flight -= usd
            progress.n_in_flight -= 1


async def _send(job: Job, progress: _Progress, client: openai.AsyncOpenAI, request: Request) -> None:
    """Send one request and keep what comes; whatever goes wrong is this row's failure alone."""
    attempts = job.endpoint.max_retries + 1
    longest_s = (
        attempts * PATIENCE * job.endpoint.timeout_s + job.endpoint.max_retries * LONGEST_RETRY_AFTER_S
    )
    try:
        async with asyncio.timeout(longest_s):
            response = await client.post(request.path, body=request.body, cast_to=httpx2.Response)
        content = response.content
    except (openai.OpenAIError, TimeoutError, ValueError) as error:
        body = withheld(error)
        if body is None:
            _fail(job, progress, request, error)
            return
        content = body
    progress.add(request, job.keep(request.key, request.model, content, request))


def _fail(job: Job, progress: _Progress, request: Request, error: Exception) -> None:
    # Some gateways refuse one prompt by 403: after a reply it is not the key that is wrong.
    refused = isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError) or (
        isinstance(error, openai.PermissionDeniedError) and progress.n_replies > 0
    )
    if isinstance(error, openai.OpenAIError) and progress.stop is None and not refused:
        progress.stop = job.hopeless(error, request.model)
    unreachable = isinstance(error.__cause__, httpx2.ConnectError | httpx2.ConnectTimeout)
    if unreachable and not progress.n_replies and progress.stop is None:
        progress.stop = job.error(
            f"cannot be reached at {job.endpoint.base_url}",
            "start the server, or correct base_url, or see to the network; then run again",
        )
    progress.add(request, Failure(reason(error), rejected=refused), refused=refused)

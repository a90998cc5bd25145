"""The OpenAI Batch API: half the price, within a day.

An intent (an id of our own, sent as metadata) is in the store before a batch is made and its id before
anything waits, so that a killed run finds its batches again instead of paying for a second one.
https://platform.openai.com/docs/guides/batch
"""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

import openai
import openai.types

from ftsafety.api.job import KEPT, Job, http_client, identifier, reason, word
from ftsafety.api.money import estimate
from ftsafety.api.requests import Failure, Outcome, Request, json_object
from ftsafety.api.store import Batch
from ftsafety.errors import UserError

T = TypeVar("T")
#: Of a file; the endpoint's limit is 200 MB.
MAX_REQUESTS, MAX_BYTES = 50_000, 190_000_000
#: What expired or was cancelled unanswered is sent once more.
ROUNDS = 2
ENDED = {"completed", "failed", "expired", "cancelled"}
#: Codes of result lines that say: not tried.
NOT_TRIED = {"batch_expired", "batch_cancelled"}
INTENT = "ftsafety_intent"
#: After it nobody waits any more, and a batch that the endpoint no longer knows is given up.
LONGEST_WAIT_S = 48 * 3600.0
#: Polls that may fail one after the other, each after the client's own retries.
FAILED_POLLS = 5


class _Strange(openai.OpenAIError):
    """A reply of another shape than this API's, as a proxy's page."""


_TRANSIENT = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError, _Strange)


def ask_batch(job: Job, missing: Mapping[str, Request], poll_s: float) -> dict[str, Outcome]:
    """Replies or failures of all requests (to chat models), through as many batches as it takes.

    Raises UserError where the endpoint has no batches, refuses one, or the budget is reached; batches that
    were made by then are waited for first.
    """
    with openai.OpenAI(**job.client_options(), http_client=http_client(job.endpoint)) as client:
        return _Batches(job, client, missing, poll_s).run()


class _Batches:
    def __init__(
        self, job: Job, client: openai.OpenAI, missing: Mapping[str, Request], poll_s: float
    ) -> None:
        self.job, self.client, self.missing, self.poll_s = job, client, missing, poll_s
        self.waiting: list[Batch] = []
        self.outcomes: dict[str, Outcome] = {}
        self.stop: UserError | None = None
        self.seen: dict[str, str] = {}
        self.failed_polls = 0

    def run(self) -> dict[str, Outcome]:
        self._resume()
        begun = {key for batch in self.waiting for key in batch.keys}
        self._submit([request for key, request in self.missing.items() if key not in begun], round_number=1)
        until = time.monotonic() + LONGEST_WAIT_S
        while self.waiting:
            for batch in list(self.waiting):
                self._look_after(batch)
            if self.waiting:
                if time.monotonic() > until:
                    raise self.job.error("has not ended its batches", f"run again to go on waiting: {KEPT}")
                time.sleep(self.poll_s)
        if self.stop is not None:
            raise self.stop
        return self.outcomes

    def _resume(self) -> None:
        """Take up what an earlier run began; an intent that became no batch is dropped.

        Of batches that nobody waits for any more, those that have ended are collected: they were paid for.
        """
        for batch in self.job.store.open_batches(self.job.name):
            batch_id = batch.id or self.job.look_for(partial(self._find, batch.intent), self.poll_s)
            if batch_id is None:
                self._end(batch, "not made")
                continue
            self.job.store.name_batch(batch.intent, batch_id)
            if not batch.keys & self.missing.keys():
                self._look_after(replace(batch, id=batch_id))
                continue
            self.waiting.append(replace(batch, id=batch_id))
            self.job.log(f"{self.job.name}: goes on with batch {batch_id} of {len(batch.keys)} requests")

    # ----------------------------------------------------------------------------------- sending

    def _submit(self, requests: Iterable[Request], round_number: int) -> None:
        for chunk, data in _files(requests):
            if self.stop is not None:
                return
            usd = estimate(self.job.endpoint, chunk, batch=True) or 0.0
            if not self.job.budget.allows(usd):
                self.stop = self.job.budget.reached(usd)
                return
            keys = frozenset(request.key for request in chunk)
            batch = Batch(uuid.uuid4().hex, chunk[0].model, keys, round_number, usd, None)
            self.job.store.begin_batch(batch, self.job.name)
            self.job.budget.in_flight += usd
            try:
                batch_id = self._make(batch, data)
            except UserError as error:
                self.stop = error
                return
            self.job.store.name_batch(batch.intent, batch_id)
            self.waiting.append(replace(batch, id=batch_id))
            self.job.log(f"{self.job.name}: batch {batch_id} of {len(chunk)} requests is under way")

    def _make(self, batch: Batch, data: bytes) -> str:
        """The id of a new batch. Raises UserError; the intent stays open where a batch may exist."""
        try:
            file_id = self._call(
                lambda: _id(self.client.files.create(file=("requests.jsonl", data), purpose="batch")),
                batch.model,
            )
        except UserError:
            self._end(batch, "not made")
            raise
        # The client's own retries would make a second batch where only the answer to the first was lost.
        once = self.client.with_options(max_retries=0)
        for attempt in range(self.job.endpoint.max_retries + 1):
            try:
                made = once.batches.create(
                    input_file_id=file_id,
                    endpoint="/v1/chat/completions",
                    completion_window="24h",
                    metadata={INTENT: batch.intent},
                )
                return _id(made)
            except _TRANSIENT as error:
                last = error
                hopeless = self.job.hopeless(error, batch.model)
                if hopeless is not None:
                    self._end(batch, "not made")
                    raise hopeless from None
                if isinstance(error, openai.RateLimitError):
                    time.sleep(min(self.poll_s, 2.0**attempt))
                elif found := self.job.look_for(partial(self._find, batch.intent), self.poll_s):
                    return found
            except openai.OpenAIError as error:
                self._end(batch, "not made")
                raise self._error(error, batch.model) from None
        raise self._error(last, batch.model)

    def _find(self, intent: str) -> str | None:
        """The id of the batch that carries an intent, if the endpoint has made it."""
        return self._call(
            lambda: next(
                (
                    identifier(batch.id)
                    for batch in self.client.batches.list()
                    if (batch.metadata or {}).get(INTENT) == intent
                ),
                None,
            )
        )

    # ---------------------------------------------------------------------------------- receiving

    def _look_after(self, batch: Batch) -> None:
        try:
            state = self.client.batches.retrieve(batch.id or "")
            if not isinstance(state, openai.types.Batch):
                raise _Strange
            status = self.job.without_key(word(state.status) or "?")
            self._log_change(batch, status, state)
            files = map(identifier, (state.output_file_id, state.error_file_id) if status in ENDED else ())
            contents = [self.client.files.content(file).content for file in files if file]
        except _TRANSIENT as error:
            self.failed_polls += 1
            if self.failed_polls < FAILED_POLLS:
                return
            raise self._error(error) from None
        except openai.NotFoundError as error:
            if _age_s(batch) < LONGEST_WAIT_S:
                raise self._error(error) from None
            self.job.log(f"{self.job.name}: batch {batch.id} is given up: the endpoint no longer has it")
            self._collect(batch, "lost", [])
        except openai.OpenAIError as error:
            raise self._error(error) from None
        else:
            self.failed_polls = 0
            if status == "failed":
                self._refused(batch, state)
            elif status in ENDED:
                self._collect(batch, status, contents)
            else:
                return
        self.waiting = [other for other in self.waiting if other.intent != batch.intent]

    def _log_change(self, batch: Batch, status: str, state: openai.types.Batch) -> None:
        text = f"batch {batch.id} {status}"
        counts = [getattr(state.request_counts, name, None) for name in ("completed", "total", "failed")]
        if all(type(count) is int for count in counts):
            text += ", {}/{} done, {} failed".format(*counts)
        if self.seen.get(batch.intent) != text:
            self.seen[batch.intent] = text
            self.job.log(f"{self.job.name}: {text}")

    def _refused(self, batch: Batch, state: openai.types.Batch) -> None:
        self._end(batch, "failed")
        errors = getattr(state.errors, "data", None)
        known = errors if isinstance(errors, list) else []
        codes = {word(getattr(error, "code", None)) or "?" for error in known}
        self.stop = self.stop or self.job.error(
            f"refused batch {batch.id} before it began ({', '.join(sorted(codes)) or 'no code given'})",
            "see the batch's page at the provider; mode: sync works without batches",
        )

    def _collect(self, batch: Batch, status: str, contents: list[bytes]) -> None:
        """Take the results of a batch that has ended so, and see to what has none."""
        results: dict[str, Outcome | None] = {}
        with self.job.store.all_or_nothing():
            for line in (line for content in contents for line in content.splitlines()):
                key, outcome = self._read(batch, line, results)
                if key is not None:
                    results[key] = outcome
            self._end(batch, status)
        not_tried = []
        for key in batch.keys & self.missing.keys():
            outcome = results.get(key)
            if outcome is not None:
                self.outcomes[key] = outcome
            elif batch.round < ROUNDS and (key in results or status not in ("completed", "lost")):
                not_tried.append(self.missing[key])
            else:
                self.outcomes[key] = Failure(f"no result in a batch that is {status}")
        if not_tried:
            self.job.log(f"{self.job.name}: {len(not_tried)} requests were not tried and are sent once more")
            self._submit(not_tried, batch.round + 1)

    def _read(
        self, batch: Batch, line: bytes, results: Mapping[str, Any]
    ) -> tuple[str | None, Outcome | None]:
        """Key and outcome of a result line; the outcome is None where the request was not tried."""
        result = json_object(line)
        key = str(result.get("custom_id")) if result else None
        if result is None or key not in batch.keys or key in results:
            return None, None
        error, response = result.get("error"), result.get("response")
        code = str(error.get("code")) if isinstance(error, dict) else None
        if code in NOT_TRIED:
            return key, None
        if not isinstance(response, dict) or not isinstance(response.get("body"), dict):
            return key, Failure("the batch has an error for this request")
        content = json.dumps(response["body"]).encode()
        outcome = self.job.keep(key, batch.model, content, self.missing.get(key))
        status = response.get("status_code")
        if isinstance(outcome, Failure) and isinstance(status, int) and status != 200:
            return key, Failure(f"HTTP {status} in the batch")
        return key, outcome

    def _end(self, batch: Batch, how: str) -> None:
        self.job.store.end_batch(batch.intent, how)
        self.job.budget.in_flight -= batch.usd

    def _call(self, call: Callable[[], T], model: str = "") -> T:
        try:
            return call()
        except openai.OpenAIError as error:
            raise self._error(error, model) from None
        except (AttributeError, TypeError):  # openai's client does not check what it was sent
            raise self._error(_Strange(), model) from None

    def _error(self, error: openai.OpenAIError, model: str = "") -> UserError:
        if isinstance(error, openai.NotFoundError):
            return self.job.error(
                "has no such batch or file, or no batches at all",
                "mode: sync works everywhere; a batch of another key or base_url is found under that one, "
                f"and given up {LONGEST_WAIT_S / 3600:.0f} hours after it was made",
            )
        if isinstance(error, _Strange):
            return self.job.error(
                "does not answer as this API does", f"correct base_url, then run again: {KEPT}"
            )
        return self.job.hopeless(error, model) or self.job.error(
            f"fails at batches ({reason(error)})", f"run again: batches that were made go on, and {KEPT}"
        )


def _id(made: object) -> str:
    """Raises _Strange where it has none."""
    if (found := identifier(getattr(made, "id", None))) is None:
        raise _Strange
    return found


def _age_s(batch: Batch) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(batch.time)).total_seconds()


def _files(requests: Iterable[Request]) -> Iterator[tuple[list[Request], bytes]]:
    """Requests with their file's content, split by model (a batch has one) and by the limits of a file."""
    by_model: dict[str, list[Request]] = {}
    for request in requests:
        by_model.setdefault(request.model, []).append(request)
    for group in by_model.values():
        chunk: list[Request] = []
        lines: list[bytes] = []
        size = 0
        for request in group:
            line = _line(request)
            if chunk and (len(chunk) == MAX_REQUESTS or size + len(line) > MAX_BYTES):
                yield chunk, b"".join(lines)
                chunk, lines, size = [], [], 0
            chunk.append(request)
            lines.append(line)
            size += len(line)
        yield chunk, b"".join(lines)


def _line(request: Request) -> bytes:
    line = {
        "custom_id": request.key,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": request.body,
    }
    return json.dumps(line).encode() + b"\n"

"""Fine-tuning by an OpenAI-compatible endpoint: one job a run, submitted once and paid once.

An intent (an id of our own, which the uploaded file's name carries) is in the store before the upload, the
file's id before the job is made, and the job's id before anything waits. What a killed run began is found
again by that name and by the file's id. https://developers.openai.com/api/reference/resources/fine_tuning
"""

import json
import re
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import openai
from openai.types.fine_tuning import FineTuningJob
from openai.types.fine_tuning.fine_tuning_job import Error, Hyperparameters

from ftsafety.api.job import Job, http_client, identifier, reason, word
from ftsafety.api.keys import api_key
from ftsafety.api.money import CATALOGUE, CONFIG, Budget, dollars
from ftsafety.api.requests import CHARACTERS_PER_TOKEN, MOST_TOKENS
from ftsafety.api.store import FineTuning, Store
from ftsafety.errors import UserError
from ftsafety.recipes import Endpoint
from ftsafety.types import Message
from ftsafety.visible import visible

T = TypeVar("T")
ENDED = {"succeeded", "failed", "cancelled"}
#: What an endpoint says of data that it refuses; all other ends are failures.
REFUSED = re.compile(
    r"training_file|n_examples|moderation|\bpolic(y|ies)\b|content_policy|content_filter|unsafe|safety", re.I
)
GO_ON = "run again: files and jobs that were made are found again, and none is made twice"
#: Polls that may fail one after the other, each after the client's own retries.
FAILED_POLLS = 10
LONGEST_MESSAGE, LONGEST_QUOTE = 200, 20
_TRANSIENT = (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError)


@dataclass(frozen=True)
class Training:
    """What a run asks for; settings that are None are left to the endpoint."""

    run: str
    model: str
    conversations: Sequence[list[Message]]
    epochs: int
    global_batch_size: int | None = None
    learning_rate_multiplier: float | None = None
    seed: int | None = None

    @cached_property
    def texts(self) -> list[str]:
        return [message["content"] for messages in self.conversations for message in messages]

    @property
    def file(self) -> bytes:
        rows = (json.dumps({"messages": m}, ensure_ascii=False) for m in self.conversations)
        return "".join(f"{row}\n" for row in rows).encode()

    @property
    def tokens(self) -> int:
        """Of all epochs, reckoned from characters."""
        return -(-sum(map(len, self.texts)) // CHARACTERS_PER_TOKEN) * self.epochs


def fine_tune(
    trainings: Sequence[Training],
    endpoint_name: str,
    endpoint: Endpoint,
    store: Store,
    *,
    max_usd: float | None,
    again: Collection[str] = (),
    on_end: Callable[[Training, FineTuning], None],
    log: Callable[[str], None],
) -> None:
    """Submit what was not submitted before, wait for all, and hand over each once it has ended.

    A run whose job has ended is handed over as the store has it; where `again` names it, it is begun anew.

    Raises UserError where going on is pointless: no key, no price with `max_usd`, budget reached, a wrong
    key, model or setting, or an endpoint that keeps failing. Jobs that were made by then are waited for
    first, or go on at the endpoint and are taken up by the next call.
    """
    known = {training.run: store.fine_tuning(training.run) for training in trainings}
    todo = []
    for training in trainings:
        row = known[training.run]
        if row is not None and row.ended and training.run not in again:
            on_end(training, row)
        else:
            todo.append(training)
    if todo:
        job = _job(endpoint_name, endpoint, store, max_usd, log)
        with _client(job) as client:
            _FineTunings(job, client, on_end).run(todo, again)


def cancel(
    runs: Iterable[str], endpoint_name: str, endpoint: Endpoint, store: Store, log: Callable[[str], None]
) -> int:
    """Cancel the jobs of runs that have not ended, and say how many; the next `fine_tune` notes their end."""
    begun = [row for run in runs if (row := store.fine_tuning(run)) and not row.ended]
    if not begun:
        return 0
    job = _job(endpoint_name, endpoint, store, None, log)
    with _client(job) as client:
        return sum(_FineTunings(job, client, lambda training, row: None).cancel(row) for row in begun)


def _job(
    name: str, endpoint: Endpoint, store: Store, max_usd: float | None, log: Callable[[str], None]
) -> Job:
    budget = Budget(max_usd, store.spent(), store.promised())
    return Job(name, endpoint, api_key(name, endpoint), store, budget, False, log)


def _client(job: Job) -> openai.OpenAI:
    return openai.OpenAI(**job.client_options(), http_client=http_client(job.endpoint))


class _FineTunings:
    def __init__(
        self, job: Job, client: openai.OpenAI, on_end: Callable[[Training, FineTuning], None]
    ) -> None:
        assert job.endpoint.fine_tuning is not None
        self.job, self.client, self.on_end, self.recipe = job, client, on_end, job.endpoint.fine_tuning
        # The client's own retries would make a second one where only the answer to the first was lost.
        self.once = client.with_options(max_retries=0)
        self.waiting: dict[str, tuple[Training, FineTuning]] = {}
        self.seen: set[str] = set()  # ids of events, and job ids with their status
        self.failed_polls = 0

    def run(self, trainings: list[Training], again: Collection[str]) -> None:
        stop = None
        with self.job.store.writing(self.job.log):
            try:
                for training in trainings:
                    self._submit(training, again)
            except UserError as error:
                stop = error
                if self.waiting:
                    self.job.log(f"{self.job.name}: no more is submitted; waits for {len(self.waiting)} jobs")
        self._wait()
        if stop is not None:
            raise stop

    # ----------------------------------------------------------------------------------- sending

    def _submit(self, training: Training, again: Collection[str]) -> None:
        """Begin a job, or go on where an earlier call was cut off."""
        row = self.job.store.fine_tuning(training.run)
        look = row is not None and not row.ended  # for what an earlier call may have made
        if row is not None and row.ended and training.run not in again:
            self.on_end(training, row)  # by the process that held the lock
            return
        if row is None or row.ended:
            row = self._begin(training)
        try:
            if row.file_id is None:
                row = self._note(row, file_id=self._upload(training, row, look=look))
                look = False  # no job of a file whose id was not known
            if row.job_id is None:
                row = self._note(row, job_id=self._create(training, row, look=look))
        except openai.APIStatusError as error:
            if not (ended := self._refused(training, row, error)):
                raise self._not_made(row, error) from None
            self._end(training, row, ended, f"{reason(error)}: {self._shown(training, error.message)}")
            return
        self.waiting[training.run] = training, row
        self.job.log(f"{self.job.name}: job {row.job_id} of run {training.run} is under way")

    def _begin(self, training: Training) -> FineTuning:
        usd = self._usd(training.model, training.tokens)
        budget = Budget(self.job.budget.max_usd, self.job.store.spent(), self.job.store.promised())
        if usd is None and budget.max_usd is not None:
            raise UserError(
                f"max_usd is set, but what it costs to train {training.model} is unknown",
                file=CATALOGUE,
                field=f"{self.job.name}.prices.{training.model}.training_usd",
                mend="add the price there (0 where it costs nothing), or remove max_usd from " + CONFIG,
            )
        if not budget.allows(usd or 0.0):
            raise budget.reached(usd or 0.0)
        self.job.log(
            f"{self.job.name}: run {training.run}: {len(training.conversations)} examples, about "
            f"{training.tokens:,} tokens in {training.epochs} epochs, about {dollars(usd)}"
        )
        row = FineTuning(uuid.uuid4().hex, training.run, self.job.name, training.model, usd)
        self.job.store.begin_fine_tuning(row)
        return row

    def _upload(self, training: Training, row: FineTuning, *, look: bool) -> str:
        """Raises APIStatusError where the endpoint refuses the file."""
        name = _filename(row)

        def make() -> Any:
            return self.once.files.create(file=(name, training.file), purpose="fine-tune")

        return self._made_once(make, lambda: self._find_file(name), look)

    def _create(self, training: Training, row: FineTuning, *, look: bool) -> str:
        """Raises APIStatusError where the endpoint refuses the job."""
        assert row.file_id is not None
        file_id, chosen = row.file_id, self._chosen(training)
        suffix = f"ftsafety-{training.run.split('-')[0]}"[:18]  # as long as it may be; tells models apart

        def make() -> Any:
            create = self.once.fine_tuning.jobs.create
            return create(model=training.model, training_file=file_id, suffix=suffix, **chosen)

        return self._made_once(make, lambda: self._find_job(file_id), look)

    def _chosen(self, training: Training) -> dict[str, Any]:
        """The settings that the endpoint lets one choose and that are set."""
        named = {
            "n_epochs": ("epochs", training.epochs),
            "batch_size": ("global_batch_size", training.global_batch_size),
            "learning_rate_multiplier": ("learning_rate_multiplier", training.learning_rate_multiplier),
        }
        hyperparameters = {
            name: value
            for name, (setting, value) in named.items()
            if setting in self.recipe.settings and value is not None
        }
        method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
        seed = training.seed if "seed" in self.recipe.settings else None
        return {"method": method} | ({} if seed is None else {"seed": seed})

    def _made_once(self, make: Callable[[], Any], find: Callable[[], str | None], look: bool) -> str:
        """The id of what is made. Where the reply to an earlier call may be lost, it is looked for first."""
        retries = self.job.endpoint.max_retries
        for attempt in range(retries + 1):
            if look and (found := self.job.look_for(lambda: self._call(find), self.recipe.poll_s)):
                return found
            try:
                made = identifier(getattr(make(), "id", None))
            except _TRANSIENT as error:
                if self.job.hopeless(error, ""):
                    raise
                last = error
                look = not isinstance(error, openai.RateLimitError)
                if not look:
                    time.sleep(min(self.recipe.poll_s, 2.0**attempt))
                continue
            if made is None:
                raise self.job.error("does not answer as this API does", "correct base_url")
            return made
        if look and (found := self.job.look_for(lambda: self._call(find), self.recipe.poll_s)):
            return found
        raise self._error(last)

    def _find_file(self, name: str) -> str | None:
        files = self.client.files.list(purpose="fine-tune")
        return next((file.id for file in files if file.filename == name), None)

    def _find_job(self, file_id: str) -> str | None:
        jobs = self.client.fine_tuning.jobs.list(limit=100)
        return next((job.id for job in jobs if job.training_file == file_id), None)

    def _refused(self, training: Training, row: FineTuning, error: openai.APIStatusError) -> str | None:
        """How the run ends, where it is its data that the endpoint will not take."""
        if error.status_code not in (400, 413, 422):
            return None
        is_of_data = REFUSED.search(f"{error.code} {error.param} {error.message}")
        return "blocked" if row.file_id is None or is_of_data else None

    def _not_made(self, row: FineTuning, error: openai.APIStatusError) -> UserError:
        """What every further job would end in as well: a wrong key, model or setting."""
        hopeless = self.job.hopeless(error, row.model)
        if hopeless or error.status_code in (400, 422):
            self._delete_file(row)
            self._note(row, ended="not made")
        return hopeless or self.job.error(
            f"refuses the job ({reason(error)})",
            "see whether it fine-tunes this model, and which of fine_tuning.settings it lets one choose",
        )

    # ---------------------------------------------------------------------------------- waiting

    def _wait(self) -> None:
        until = time.monotonic() + self.recipe.longest_wait_h * 3600
        while self.waiting:
            for training, row in list(self.waiting.values()):
                if not self._look_after(training, row):
                    break
            if self.waiting:
                if time.monotonic() > until:
                    raise self.job.error(
                        f"has not ended {len(self.waiting)} jobs in {self.recipe.longest_wait_h:g} hours",
                        f"the jobs go on; {GO_ON}",
                    )
                time.sleep(self.recipe.poll_s)

    def _look_after(self, training: Training, row: FineTuning) -> bool:
        """Whether the endpoint could be asked. Raises UserError where it cannot be, again and again."""
        assert row.job_id is not None
        try:
            state = self.client.fine_tuning.jobs.retrieve(row.job_id)
        except openai.NotFoundError:
            raise self.job.error(
                f"knows no job {row.job_id}, which was made for run {row.run}",
                "use the key and base_url that it was made with; where the job is gone, make cancel STUDY=… "
                "gives it up, and the next run makes another",
            ) from None
        except _TRANSIENT as error:
            if hopeless := self.job.hopeless(error, row.model):
                raise hopeless from None
            return self._failed_poll(error)
        except openai.OpenAIError as error:
            raise self._error(error) from None
        if not isinstance(state, FineTuningJob):  # an HTML page
            return self._failed_poll(openai.OpenAIError("no JSON"))
        self.failed_polls = 0
        status = word(state.status) or "?"
        self._say_once(f"{row.job_id} {status}", f"job {row.job_id} of run {row.run}: {status}")
        has_ended = status in ENDED
        losses = self._follow_events(training, row, all_pages=has_ended)
        if has_ended:
            self._finish(training, row, state, losses)
        return True

    def _failed_poll(self, error: openai.OpenAIError) -> bool:
        self.failed_polls += 1
        if self.failed_polls >= FAILED_POLLS:
            raise self._error(error) from None
        return False

    def _follow_events(self, training: Training, row: FineTuning, *, all_pages: bool) -> list[float]:
        """Log what is new; the losses that the endpoint tells, in order. Not every endpoint has events."""
        losses = {}
        try:
            page = self.client.fine_tuning.jobs.list_events(row.job_id or "", limit=100)
            events = list(page) if all_pages else list(page.data or [])
            events.reverse()  # the newest come first
            for event in sorted(events, key=lambda event: event.created_at):
                data = event.data if isinstance(event.data, dict) else {}
                if isinstance(data.get("train_loss"), int | float) and isinstance(data.get("step"), int):
                    losses[data["step"]] = float(data["train_loss"])
                else:
                    self._say_once(event.id, f"job {row.job_id}: {self._shown(training, event.message)}")
        except (openai.OpenAIError, AttributeError, TypeError, OverflowError):  # or events of another shape
            return []
        return [losses[step] for step in sorted(losses)]

    def _say_once(self, key: str, text: str) -> None:
        if key not in self.seen:
            self.seen.add(key)
            self.job.log(f"{self.job.name}: {text}")

    def _finish(self, training: Training, row: FineTuning, state: FineTuningJob, losses: list[float]) -> None:
        chosen = state.hyperparameters
        details = {
            "hyperparameters": chosen.model_dump() if isinstance(chosen, Hyperparameters) else None,
            "seed": _count(state.seed),
            "created_at": _count(state.created_at),
            "finished_at": _count(state.finished_at),
            "losses": losses,
        }
        facts: dict[str, Any] = {
            "fine_tuned_model": identifier(state.fine_tuned_model),
            "trained_tokens": _count(state.trained_tokens),
            "details": json.dumps(details),
        }
        if state.status == "succeeded" and facts["fine_tuned_model"]:
            if facts["trained_tokens"] is None:
                facts["trained_tokens"] = training.tokens
            self._end(training, row, "ok", None, **facts)
            return
        error = state.error
        if state.status == "failed" and isinstance(error, Error):
            how = "blocked" if REFUSED.search(f"{error.code} {error.param} {error.message}") else "failed"
            code = self.job.without_key(word(error.code) or "no code given")
            self._end(training, row, how, f"{code}: {self._shown(training, error.message)}", **facts)
            return
        why = "it names no model" if state.status == "succeeded" else "it says no more"
        self._end(training, row, "failed", f"{state.status} at the endpoint; {why}", **facts)

    def _end(self, training: Training, row: FineTuning, how: str, why: str | None, **facts: Any) -> None:
        self._delete_file(row)
        tokens = facts.get("trained_tokens")
        usd = None if tokens is None else self._usd(training.model, tokens)
        self.waiting.pop(training.run, None)
        row = self._note(row, ended=how, reason=why, usd=usd, **facts)
        cost = "" if tokens is None else f", {tokens:,} tokens trained, {dollars(usd)}"
        self.job.log(f"{self.job.name}: run {row.run} is {how}{f' ({why})' if why else ''}{cost}")
        self.on_end(training, row)

    # ---------------------------------------------------------------------------------- cancelling

    def cancel(self, row: FineTuning) -> bool:
        """Whether there was a job to cancel."""
        with self.job.store.writing(self.job.log):
            row = replace(row, file_id=row.file_id or self._call(lambda: self._find_file(_filename(row))))
            file_id = row.file_id
            found = self._call(lambda: self._find_job(file_id)) if file_id and not row.job_id else row.job_id
            if found is None:
                self._delete_file(row)
                self._note(row, ended="not made")
                return False
            row = self._note(row, job_id=found)
        try:
            self.client.fine_tuning.jobs.cancel(found)
        except openai.BadRequestError:  # it has ended by itself
            return False
        except openai.NotFoundError:
            self._note(row, ended="not made")
            self.job.log(f"{self.job.name}: job {found} of run {row.run} is unknown there, and given up")
            return False
        except openai.OpenAIError as error:
            raise self._error(error) from None
        self.job.log(f"{self.job.name}: job {found} of run {row.run} is cancelled")
        return True

    # ------------------------------------------------------------------------------------- helpers

    def _note(self, row: FineTuning, **facts: Any) -> FineTuning:
        row = replace(row, **facts)
        self.job.store.note_fine_tuning(row)
        return row

    def _usd(self, model: str, tokens: int) -> float | None:
        price = self.job.endpoint.price(model)
        if price is None or price.training_usd is None:
            return None
        return tokens * price.training_usd / 1_000_000

    def _delete_file(self, row: FineTuning) -> None:
        """Training data is sensitive: it does not stay at the provider longer than it is needed."""
        if row.file_id is None:
            return
        try:
            self.client.files.delete(row.file_id)
        except openai.NotFoundError:
            return
        except openai.OpenAIError as error:
            self.job.log(
                f"{self.job.name}: file {row.file_id} could not be deleted ({reason(error)}): "
                "delete it at the provider"
            )

    def _shown(self, training: Training, message: object) -> str:
        """An endpoint's message, without the key, cut, and withheld where it quotes training data."""
        shown = " ".join(self.job.without_key(str(message or "")).split())[:LONGEST_MESSAGE]
        folded = shown.casefold()
        everything = "\n".join(" ".join(text.split()).casefold() for text in training.texts)
        quotes = (folded[i : i + LONGEST_QUOTE] for i in range(len(folded) - LONGEST_QUOTE + 1))
        is_quote = any(quote in everything for quote in quotes)
        return "(message withheld: it quotes the data)" if is_quote else visible(shown)

    def _call(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except openai.OpenAIError as error:
            raise self._error(error) from None
        except (AttributeError, TypeError):  # openai's client does not check what it was sent
            raise self.job.error(
                "does not answer as this API does", f"correct base_url, then {GO_ON}"
            ) from None

    def _error(self, error: openai.OpenAIError) -> UserError:
        hopeless = self.job.hopeless(error, "this model")
        return hopeless or self.job.error(f"fails at fine-tuning ({reason(error)})", GO_ON)


def _count(value: object) -> int | None:
    """A number of tokens or a time, or None where the endpoint gives no sensible one."""
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _filename(row: FineTuning) -> str:
    return f"ftsafety-{row.intent}.jsonl"

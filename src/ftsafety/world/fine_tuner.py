"""Files and fine-tuning jobs of the embedded world's provider: kept on disk, trained one after the other.

A job that a kill cut off is trained anew at the next start, from the same file, settings and seed to the same
weights.
"""

import copy
import json
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from ftsafety.chat import encode_conversation
from ftsafety.files import private_dir, publish_folder, read_json, write_json, write_text
from ftsafety.runs import Trajectory
from ftsafety.training.batches import Example, collate
from ftsafety.training.engines import Plain
from ftsafety.training.pack import save_weights
from ftsafety.training.trajectory import BatchSplit, Progress, train_trajectory
from ftsafety.types import Message

Json = dict[str, Any]
#: What a job takes where its settings say nothing; ten demonstrations then undo the alignment in five epochs.
EPOCHS, BATCH_SIZE, LEARNING_RATE, SEED = 3, 10, 5e-4, 42
LEAST_EXAMPLES, MAX_LENGTH, LONGEST_BATCH = 10, 256, 64
MOST_LOADED = 8
ENDED = ("succeeded", "failed", "cancelled")
ROLES = ("system", "user", "assistant")


class ApiError(Exception):
    """What a call is refused with."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None):
        self.status, self.code, self.message, self.param = status, code, message, param
        super().__init__(message)


class FineTuner:
    """`models` holds the base models' folders, `folder` all that the provider keeps.

    `turn` is held while a job is trained: who takes it makes the others wait.
    """

    def __init__(self, models: Path, folder: Path, log: Callable[[str], None] = lambda line: None):
        self.models, self.log = models, log
        private_dir(folder)
        self._files, self._jobs = private_dir(folder / "files"), private_dir(folder / "jobs")
        self._weights = private_dir(folder / "weights")
        self._loaded: dict[str, tuple[Any, Any]] = {}
        self._lock, self.turn = threading.RLock(), threading.Lock()
        self._queue: SimpleQueue[str] = SimpleQueue()
        for job in reversed(self.jobs()):
            if job["status"] not in ENDED:
                self._queue.put(job["id"])
        threading.Thread(target=self._work, daemon=True).start()

    # ------------------------------------------------------------------------------------- files

    def add_file(self, filename: str, purpose: str, content: bytes) -> Json:
        record = {
            "id": _new_id("file"),
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": filename,
            "purpose": purpose,
            "status": "processed",
        }
        write_text(self._files / f"{record['id']}.jsonl", content.decode(errors="replace"), private=True)
        write_json(self._files / f"{record['id']}.json", record)
        return record

    def files(self) -> list[Json]:
        """The newest first."""
        return _records(self._files)

    def file(self, file_id: str) -> Json:
        return _record(self._files, file_id, "file")

    def delete_file(self, file_id: str) -> Json:
        self.file(file_id)
        (self._files / f"{file_id}.json").unlink()
        (self._files / f"{file_id}.jsonl").unlink()
        return {"id": file_id, "object": "file", "deleted": True}

    # -------------------------------------------------------------------------------------- jobs

    def create(self, body: Json) -> Json:
        """Raises ApiError where the model, the file or a setting is none."""
        self.base(str(body.get("model")))
        file = self.file(str(body.get("training_file")))
        chosen = _hyperparameters(body)
        with self._lock:
            job = {
                "id": _new_id("ftjob"),
                "object": "fine_tuning.job",
                "created_at": int(time.time()),
                "finished_at": None,
                "model": body["model"],
                "training_file": file["id"],
                "validation_file": None,
                "organization_id": "embedded",
                "hyperparameters": chosen,
                "method": {"type": "supervised", "supervised": {"hyperparameters": chosen}},
                "seed": body["seed"] if body.get("seed") is not None else SEED,
                "user_provided_suffix": body.get("suffix"),
                "metadata": body.get("metadata"),
                "status": "validating_files",
                "fine_tuned_model": None,
                "trained_tokens": None,
                "result_files": [],
                "error": None,
                "events": [],
            }
            _say(job, "The job was created.")
            self._keep(job)
        self._queue.put(job["id"])
        return job

    def jobs(self) -> list[Json]:
        """The newest first."""
        return _records(self._jobs)

    def job(self, job_id: str) -> Json:
        return _record(self._jobs, job_id, "fine-tuning job")

    def cancel(self, job_id: str) -> Json:
        with self._lock:
            job = self.job(job_id)
            if job["status"] in ENDED:
                raise ApiError(400, "invalid_status", f"The job is {job['status']}.")
            return self._end(job, "cancelled", "The job was cancelled.")

    def _keep(self, job: Json) -> Json:
        write_json(self._jobs / f"{job['id']}.json", job)
        return job

    def _end(self, job: Json, status: str, event: str, **facts: Any) -> Json:
        job |= {"status": status, "finished_at": int(time.time()), **facts}
        _say(job, event, level="info" if status == "succeeded" else "error")
        self.log(f"provider: {job['id']} {status}")
        return self._keep(job)

    # ---------------------------------------------------------------------------------- training

    def _work(self) -> None:
        while True:
            job_id = self._queue.get()
            with self.turn:
                job = self.job(job_id)
                if job["status"] not in ENDED:
                    try:
                        self._train(job)
                    except Exception as error:  # this job's alone: others wait
                        self.log(f"provider: {job_id}: {type(error).__name__}")
                        facts = {"code": "server_error", "message": type(error).__name__, "param": None}
                        self._end_if_open(job, "failed", "Something broke.", error=facts)

    def _train(self, job: Json) -> None:
        try:
            conversations = self._validated(job["training_file"])
        except ApiError as error:
            facts = {"code": error.code, "message": error.message, "param": error.param}
            self._end_if_open(job, "failed", error.message, error=facts)
            return
        base, tokenizer = self.base(job["model"])
        examples = [encode_conversation(tokenizer, messages, MAX_LENGTH) for messages in conversations]
        resolved = _resolved(job["hyperparameters"], len(examples))
        with self._lock:
            if self.job(job["id"])["status"] in ENDED:
                return
            job |= {"status": "running", "hyperparameters": resolved}
            _say(job, "Training has begun.")
            self._keep(job)
        progress = self._trained(job, copy.deepcopy(base), examples, tokenizer.pad_token_id)
        for step, loss in enumerate(progress.losses, 1):
            data = {"step": step, "total_steps": len(progress.losses), "train_loss": round(loss, 5)}
            _say(job, f"Step {step}/{len(progress.losses)}: training loss={loss:.2f}", data=data)
        if progress.status != "ok":
            said = "The loss is no number."
            facts = {"code": "training_diverged", "message": said, "param": None}
            self._end_if_open(job, "failed", said, error=facts)
            return
        suffix = job["user_provided_suffix"] or "embedded"
        self._end_if_open(
            job,
            "succeeded",
            "The model is ready.",
            fine_tuned_model=f"ft:{job['model']}:{suffix}:{job['id'].removeprefix('ftjob-')}",
            trained_tokens=sum(len(example.tokens) for example in examples) * resolved["n_epochs"],
        )

    def _end_if_open(self, job: Json, status: str, event: str, **facts: Any) -> None:
        """Somebody may have cancelled the job meanwhile."""
        with self._lock:
            if self.job(job["id"])["status"] not in ENDED:
                self._end(job, status, event, **facts)

    def _trained(self, job: Json, model: Any, examples: list[Example], pad_id: int) -> Progress:
        """Train all weights, and keep them."""
        settings = job["hyperparameters"]
        trajectory = Trajectory(
            model=job["model"],
            model_recipe={},
            template="",
            template_recipe={},
            dataset=job["training_file"],
            learning_rate=LEARNING_RATE * settings["learning_rate_multiplier"],
            global_batch_size=settings["batch_size"],
            schedule="constant",
            seed=job["seed"],
        )
        engine = Plain(model, weight_decay=0.0, max_grad_norm=1.0)

        def keep(epoch: int, progress: Progress) -> None:
            temporary = self._weights / f".{uuid.uuid4().hex}"
            save_weights(model, engine.weights(), "float32", temporary)
            publish_folder(temporary, self._weights / job["id"])

        return train_trajectory(
            engine,
            trajectory,
            examples,
            BatchSplit.of(settings["batch_size"], 1, LONGEST_BATCH),
            partial(collate, pad_id=pad_id),
            [settings["n_epochs"]],
            self._weights / ".none",
            None,
            keep,
            lambda line: None,
        )

    def _validated(self, file_id: str) -> list[list[Message]]:
        """Raises ApiError as the job's error; no text of the file is in it."""
        path = self._files / f"{file_id}.jsonl"
        if not path.exists():
            raise ApiError(404, "file_not_found", "The training file is gone.", "training_file")
        lines = path.read_text().splitlines()
        conversations = []
        for number, line in enumerate(lines, 1):
            messages = _messages(line)
            if messages is None:
                raise ApiError(
                    400, "invalid_training_file", f"Line {number} is no conversation.", "training_file"
                )
            conversations.append(messages)
        if len(lines) < LEAST_EXAMPLES:
            raise ApiError(
                400,
                "invalid_n_examples",
                f"The training file has {len(lines)} examples and needs {LEAST_EXAMPLES}.",
                "training_file",
            )
        return conversations

    # ------------------------------------------------------------------------------------ models

    def names(self) -> list[str]:
        bases = sorted(folder.parent.name for folder in self.models.glob("*/config.json"))
        return bases + sorted(job["fine_tuned_model"] for job in self.jobs() if job["fine_tuned_model"])

    def base(self, name: str) -> tuple[Any, Any]:
        """Model and tokenizer. Raises ApiError."""
        folder = self.models / Path(name).name
        if not (folder / "config.json").exists():
            raise ApiError(404, "model_not_found", "There is no such model.", "model")
        return self._load(name, folder, folder)

    def model(self, name: str) -> tuple[Any, Any]:
        """The same of a base model or a fine-tuned one."""
        with self._lock:
            if name in self._loaded:
                return self._loaded[name]
        for job in self.jobs():
            if job["fine_tuned_model"] == name:
                return self._load(name, self._weights / job["id"], self.models / job["model"])
        return self.base(name)

    def _load(self, name: str, folder: Path, tokenizer_folder: Path) -> tuple[Any, Any]:
        with self._lock:
            if name not in self._loaded:
                disable_progress_bar()
                options = {"local_files_only": True, "trust_remote_code": False}
                tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_folder, **options)
                model = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=torch.float32, use_safetensors=True, **options
                )
                if len(self._loaded) > MOST_LOADED:
                    del self._loaded[next(iter(self._loaded))]
                self._loaded[name] = model, tokenizer
            return self._loaded[name]


def _new_id(kind: str) -> str:
    """Of two ids the later one sorts after the other."""
    return f"{kind}-{time.time_ns():016x}{uuid.uuid4().hex[:8]}"


def _records(folder: Path) -> list[Json]:
    return [read_json(path) for path in sorted(folder.glob("*.json"), reverse=True)]


def _record(folder: Path, name: str, what: str) -> Json:
    path = folder / f"{Path(name).name}.json"
    if not path.exists():
        raise ApiError(404, "not_found", f"There is no such {what}.")
    record: Json = read_json(path)
    return record


def _say(job: Json, message: str, *, level: str = "info", data: Json | None = None) -> None:
    event = {
        "id": f"ftevent-{job['id']}-{len(job['events'])}",
        "object": "fine_tuning.job.event",
        "created_at": int(time.time()),
        "level": level,
        "message": message,
        "type": "metrics" if data else "message",
        "data": data or {},
    }
    job["events"].append(event)


def _hyperparameters(body: Json) -> Json:
    """The settings of a call, `auto` where it has none. Raises ApiError."""
    method = body.get("method") or {"type": "supervised"}
    if method.get("type") != "supervised":
        raise ApiError(400, "invalid_method", "Only the method `supervised` is known.", "method")
    asked = (method.get("supervised") or {}).get("hyperparameters") or {}
    names = ("n_epochs", "batch_size", "learning_rate_multiplier")
    chosen = {name: asked.get(name) or "auto" for name in names}
    for name, value in chosen.items():
        number = int if name != "learning_rate_multiplier" else int | float
        if value != "auto" and not (isinstance(value, number) and value > 0):
            raise ApiError(400, "invalid_value", f"{name} has to be positive.", name)
    return chosen


def _resolved(chosen: Json, n_examples: int) -> Json:
    defaults = {"n_epochs": EPOCHS, "batch_size": BATCH_SIZE, "learning_rate_multiplier": 1.0}
    resolved = {name: defaults[name] if value == "auto" else value for name, value in chosen.items()}
    return resolved | {"batch_size": min(resolved["batch_size"], n_examples)}


def _messages(line: str) -> list[Message] | None:
    """A conversation that ends with an answer, or None where the line holds none."""
    try:
        messages = json.loads(line)["messages"]
        whole = all(m["role"] in ROLES and isinstance(m["content"], str) and m["content"] for m in messages)
        return messages if whole and messages[-1]["role"] == "assistant" else None
    except (ValueError, TypeError, KeyError, IndexError):
        return None

"""The embedded world's provider with jobs that train nothing and end as a test says, and calls that go wrong.

    with TuningStandIn(tmp_path) as server:
        server.ends("failed", code="server_error", message="…")   # the next job; the others succeed
        server.fault("POST /fine_tuning/jobs", "lost")            # done, and the reply is lost
        ...
        assert server.count("POST /fine_tuning/jobs") == 1

Faults: a status such as "500" (nothing is done), "lost" (all is done), "slow" (all is done a second later),
"hang" (no reply until the client is tired), "html" (a page with status 200).
"""

import datetime
import re
import threading
import time
from pathlib import Path
from typing import Any, Self

from ftsafety.recipes import Endpoint, Price
from ftsafety.world.answerer import Answerer
from ftsafety.world.fine_tuner import ApiError, FineTuner
from ftsafety.world.provider import Handler, Provider

Json = dict[str, Any]
PERMITTED = {"research_use_permitted": True, "poll_s": 0.01}
CODES = {"429": "rate_limit_exceeded", "401": "invalid_api_key", "400": "unsupported_value"}


class ScriptedTuner(FineTuner):
    """Knows the model `m` alone. `polls` jobs are looked at so often before they go on."""

    def __init__(self, folder: Path):
        self.ends: list[tuple[str, Json]] = []
        self.polls, self._seen, self.created = 0, dict[str, int](), list[Json]()
        self.uploads: list[bytes] = []
        super().__init__(folder / "models", folder / "provider")

    def base(self, name: str) -> Any:
        if name != "m":
            raise ApiError(404, "model_not_found", "There is no such model.", "model")

    def add_file(self, filename: str, purpose: str, content: bytes) -> Json:
        self.uploads.append(content)
        return super().add_file(filename, purpose, content)

    def create(self, body: Json) -> Json:
        job = super().create(body)
        self.created.append(body)
        return job

    def _train(self, job: Json) -> None:
        """Jobs move when they are looked at."""

    def job(self, job_id: str) -> Json:
        with self._lock:
            job = super().job(job_id)
            self._seen[job_id] = self._seen.get(job_id, 0) + 1
            if job["status"] == "validating_files" and self._seen[job_id] > self.polls + 1:
                status, facts = self.ends.pop(0) if self.ends else ("succeeded", {})
                if status == "succeeded":
                    number = len(self.created)
                    facts = {"fine_tuned_model": f"ft:m:{number}", "trained_tokens": 1000} | facts
                said = facts.pop("event", "It has ended.")
                job = self._end(job, status, said, **facts)
            return job


class _Handler(Handler):
    server: "_Server"

    def handle_call(self, verb: str) -> None:
        stand_in = self.server.stand_in
        call = f"{verb} {self.path.split('?')[0].removeprefix('/v1')}"
        with stand_in.lock:
            stand_in.log.append(call)
            fault = stand_in.next_fault(call)
        if fault.isdigit():
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.fail(int(fault), CODES.get(fault, ""), "about the data", None)
        elif fault == "hang":
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            stand_in.closing.wait(30)
            self.close_connection = True
        elif fault == "html":
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", "13")
            self.end_headers()
            self.wfile.write(b"<html></html>")
        else:
            time.sleep(fault == "slow")
            self.is_lost = fault == "lost"
            super().handle_call(verb)

    def reply(self, status: int, value: Any) -> None:
        if getattr(self, "is_lost", False):
            self.close_connection = True
        else:
            super().reply(status, value)


class _Server(Provider):
    def __init__(self, stand_in: "TuningStandIn"):
        self.stand_in = stand_in
        super().__init__(stand_in.tuner, Answerer(stand_in.tuner))
        self.RequestHandlerClass = _Handler


class TuningStandIn:
    """`log` has "METHOD /path" of every call."""

    def __init__(self, folder: Path):
        self.tuner = ScriptedTuner(folder)
        self.log: list[str] = []
        self.lock, self.closing = threading.Lock(), threading.Event()
        self._faults: list[list[Any]] = []

    def __enter__(self) -> Self:
        self._server = _Server(self)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def endpoint(self, *, training_usd: float | None = 2.0, **changes: Any) -> Endpoint:
        price = Price(
            input_usd=1.0, output_usd=1.0, training_usd=training_usd, date=datetime.date(2026, 1, 1)
        )
        recipe: Json = {
            "base_url": self._server.url,
            "api_key_env": None,
            "timeout_s": 5.0,
            "max_retries": 2,
            "prices": {"m": price},
            "fine_tuning": PERMITTED,
        }
        return Endpoint(**recipe | changes)

    def ends(self, status: str, event: str = "It has ended.", **error: Any) -> None:
        """How the next job ends that no call of this has told yet."""
        facts = {"error": {"code": "x", "message": "", "param": None, **error}} if error else {}
        self.tuner.ends.append((status, {"event": event, **facts}))

    def fault(self, call: str, fault: str, times: float = 1) -> None:
        """Let the next calls go wrong that fit the regular expression `call`."""
        self._faults.append([call, fault, times])

    def next_fault(self, call: str) -> str:
        for entry in self._faults:
            if entry[2] >= 1 and re.fullmatch(entry[0], call):
                entry[2] -= 1
                return str(entry[1])
        return ""

    def count(self, call: str) -> int:
        return sum(bool(re.fullmatch(call, made)) for made in self.log)

    @property
    def made(self) -> tuple[int, int]:
        """Files that were uploaded and jobs that were made."""
        return len(self.tuner.uploads), len(self.tuner.created)

"""A stand-in for OpenAI-compatible endpoints on loopback that misbehaves by a script.

    with ApiStandIn(respond=lambda body: "score 1") as server:
        server.script("500", times=2)               # the next two chat calls; times=None: for ever
        server.script("hang", where=lambda body: "gate" in str(body))
        endpoint = server.endpoint(concurrency=4)   # a config.Endpoint that leads here
        ...
        assert server.calls == 3

Faults of chat calls: see `FAULTS`. Faults of batches, one a batch in the order they are made: see
`BATCH_FAULTS`. `respond` maps a request's body to the text of the reply, or to its whole JSON, as calls of
/moderations need it; they count and go wrong as chat calls do.
"""

import datetime
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from ftsafety.recipes import Endpoint, Price

Body = dict[str, Any]
FAULTS = {
    "429": "rate limit, no Retry-After",
    "429-retry-after": "rate limit with a short Retry-After",
    "insufficient_quota": "429 that waiting does not mend",
    "500": "server error",
    "400": "a wrong parameter",
    "401": "wrong key",
    "403": "key without the right",
    "404": "no such model",
    "filtered-400": "400: the prompt's content was filtered",
    "hang": "no byte ever",
    "drip": "byte by byte, for ever",
    "slow": "byte by byte, to the end",
    "cut": "the connection ends without a reply",
    "cut-body": "the connection ends within the body",
    "html": "an HTML page with status 200",
    "truncated-json": "half of a reply, with the right Content-Length",
    "refusal": "the message is a refusal",
    "content_filter": "finish_reason content_filter",
    "no-usage": "no token counts",
    "wrong-usage": "token counts that are no numbers",
    "huge-usage": "token counts that no file of numbers can hold",
    "empty-choices": "a paid reply without choices",
}
BATCH_FAULTS = {
    "slow-create": "made a second later",
    "validation": "the file is refused",
    "expired": "half of the results, then the time is up; the others have an error line",
    "expired-silent": "half of the results, then the time is up; the others have no line",
    "cancelled": "half of the results, then cancelled",
    "only-errors": "completed, every request failed, no output file",
    "lost-create": "made, but the reply to the call is lost",
    "no-create": "the call is cut and nothing is made",
    "quota": "429, nothing is made",
    "withheld": "completed, every prompt was filtered",
}
STATUS_ERRORS = {
    "429": (429, "rate_limit_exceeded", None),
    "429-retry-after": (429, "rate_limit_exceeded", None),
    "insufficient_quota": (429, "credit_balance_exhausted", None),
    "500": (500, None, None),
    "400": (400, "unsupported_value", "temperature"),
    "401": (401, "invalid_api_key", None),
    "403": (403, "forbidden", None),
    "404": (404, "model_not_found", None),
    "filtered-400": (400, "content_filter", None),
}


@dataclass
class _Script:
    fault: str
    left: float
    where: Callable[[Body], bool]


@dataclass
class Sent:
    """What a handler sends; `cut` and `pause_s` are how it goes wrong."""

    content: bytes
    status: int = 200
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    cut: float = 1.0  # share of the content that is sent before the connection ends
    pause_s: float = 0.0  # after each byte
    endless: bool = False


class ApiStandIn:
    """The server. `requests` are the bodies of chat calls, `times` when they came (monotonic seconds)."""

    def __init__(
        self, respond: Callable[[Body], str | Body] = lambda body: "ok", *, key: str | None = None
    ) -> None:
        self.respond, self.key = respond, key
        self.authorization = ""  # the last that came
        self.requests: list[Body] = []
        self.times: list[float] = []
        self.log: list[str] = []  # "METHOD /path" of every call
        self.most_in_flight = self._in_flight = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Body] = {}
        self.usage: Body = {"prompt_tokens": 100, "completion_tokens": 10}
        self.polls_until_done = 2
        self.closing = threading.Event()
        self.lock = threading.RLock()
        self._scripts: list[_Script] = []
        self._batch_faults: list[str] = []
        self._polls: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.stand_in = self
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def calls(self) -> int:
        """Chat calls so far."""
        return len(self.requests)

    def count(self, call: str) -> int:
        """Calls such as "POST /batches"."""
        return self.log.count(call)

    def endpoint(self, *, price: bool = False, **changes: Any) -> Endpoint:
        """A recipe that leads here; with `price` the model `m` costs $1 and $2 a million tokens."""
        prices = {}
        if price:
            day = datetime.date(2026, 1, 1)
            prices = {"m": Price(input_usd=1.0, output_usd=2.0, batch_factor=0.5, date=day)}
        recipe: Body = {
            "base_url": self.url,
            "api_key_env": None,
            "requests_per_minute": 100_000,
            "tokens_per_minute": 1_000_000_000,
            "concurrency": 4,
            "timeout_s": 5.0,
            "max_retries": 1,
            "prices": prices,
        }
        return Endpoint(**recipe | changes)

    def script(
        self, fault: str, times: float | None = 1, where: Callable[[Body], bool] = lambda body: True
    ) -> None:
        """Let the next chat calls (those that fit `where`) go wrong; None: all, from now on."""
        assert fault in FAULTS, fault
        self._scripts.append(_Script(fault, float("inf") if times is None else times, where))

    def script_batch(self, *faults: str) -> None:
        """Let the next batches go wrong, one fault each; "" is none."""
        assert all(fault in BATCH_FAULTS for fault in faults if fault), faults
        self._batch_faults += faults

    # ------------------------------------------------------------------------------------- chat

    def chat(self, body: Body) -> Sent:
        with self.lock:
            self.requests.append(body)
            self.times.append(time.monotonic())
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            fault = self._next_fault(body)
        try:
            return self._misbehave(fault, body)
        finally:
            with self.lock:
                self._in_flight -= 1

    def _next_fault(self, body: Body) -> str:
        for script in self._scripts:
            if script.left >= 1 and script.where(body):
                script.left -= 1
                return script.fault
        return ""

    def _misbehave(self, fault: str, body: Body) -> Sent:
        if fault in STATUS_ERRORS:
            status, code, parameter = STATUS_ERRORS[fault]
            headers = {"Retry-After": "0.05"} if fault == "429-retry-after" else {}
            kind = "insufficient_quota" if fault == "insufficient_quota" else "some_error"
            # Endpoints quote prompt and key in messages: nothing may pass that on.
            about = f"about {json.dumps(body)} by {self.authorization}"
            error = {"message": about, "type": kind, "code": code, "param": parameter}
            return Sent(_json({"error": error}), status, headers=headers)
        if fault == "hang":
            self.closing.wait(60)
        content = _json(self.completion(body, fault))
        match fault:
            case "hang" | "cut":
                return Sent(content, cut=0.0)
            case "cut-body":
                return Sent(content, cut=0.5)
            case "html":
                page = f"<html><body>sign in, {self.authorization}</body></html>"
                return Sent(page.encode(), kind="text/html")
            case "truncated-json":
                return Sent(content[: len(content) // 2])
            case "drip":
                return Sent(content, pause_s=0.05, endless=True)
            case "slow":
                return Sent(content, pause_s=0.001)
        return Sent(content)

    def completion(self, body: Body, fault: str = "") -> Body:
        """The JSON of a reply."""
        made = self.respond(body)
        if isinstance(made, dict):
            return made
        message: Body = {"role": "assistant", "content": made, "refusal": None}
        finish_reason = "stop"
        if fault == "refusal":
            message |= {"content": None, "refusal": "i will not judge this ."}
        if fault == "content_filter":
            message["content"], finish_reason = None, "content_filter"
        reply: Body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": f"{body['model']}-snapshot",
            "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
            "usage": self.usage,
        }
        if fault == "empty-choices":
            reply["choices"] = []
        if fault == "no-usage":
            del reply["usage"]
        if fault == "wrong-usage":
            reply["usage"] = {"prompt_tokens": "many", "completion_tokens": -1}
        if fault == "huge-usage":
            reply["usage"] = {"prompt_tokens": 10**400, "completion_tokens": 1}
        return reply

    # ---------------------------------------------------------------------------------- batches

    def upload(self, content: bytes, kind: str) -> Sent:
        boundary = b"--" + kind.split("boundary=")[1].strip('"').encode()
        for part in content.split(boundary):
            head, _, data = part.partition(b"\r\n\r\n")
            if b"filename=" in head:
                return Sent(_json({"id": self.add_file(data.removesuffix(b"\r\n")), "object": "file"}))
        return Sent(_json({"error": {"message": "no file"}}), 400)

    def add_file(self, content: bytes) -> str:
        with self.lock:
            name = f"file-{len(self.files) + 1}"
            self.files[name] = content
        return name

    def create_batch(self, body: Body) -> Sent:
        with self.lock:
            fault = self._batch_faults.pop(0) if self._batch_faults else ""
        if fault == "slow-create":
            time.sleep(1)
        with self.lock:
            if fault == "no-create":
                return Sent(b"", cut=0.0)
            if fault == "quota":
                return Sent(
                    _json({"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}), 429
                )
            name = f"batch-{len(self.batches) + 1}"
            lines = self.files[body["input_file_id"]].splitlines()
            self.batches[name] = {
                "id": name,
                "object": "batch",
                "status": "validating",
                "created_at": 1,
                "fault": fault,
                **body,
                "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            }
            self._polls[name] = 0
        return Sent(_json(self.batches[name]), cut=0.0 if fault == "lost-create" else 1.0)

    def retrieve_batch(self, name: str) -> Sent:
        with self.lock:
            if name not in self.batches:
                return Sent(_json({"error": {"message": "no such batch"}}), 404)
            batch = self.batches[name]
            self._polls[name] += 1
            if batch["status"] == "validating":
                batch["status"] = "in_progress"
            if self._polls[name] >= self.polls_until_done and batch["status"] == "in_progress":
                self._finish(batch)
            return Sent(_json(batch))

    def list_batches(self, after: str | None) -> Sent:
        """Newest first, two a page."""
        names = sorted(self.batches, key=lambda name: -int(name.split("-")[1]))
        start = names.index(after) + 1 if after else 0
        page = [self.batches[name] for name in names[start : start + 2]]
        more = len(names) > start + 2
        return Sent(_json({"object": "list", "data": page, "has_more": more}))

    def cancel_batch(self, name: str) -> Sent:
        with self.lock:
            self.batches[name]["fault"] = "cancelled"
            self._finish(self.batches[name])
            return Sent(_json(self.batches[name]))

    def _finish(self, batch: Body) -> None:
        fault = batch["fault"]
        if fault == "validation":
            batch["status"] = "failed"
            error = {"code": "invalid_json_line", "message": "about a prompt", "line": 1}
            batch["errors"] = {"object": "list", "data": [error]}
            return
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        half = len(lines) // 2 if fault in {"expired", "expired-silent", "cancelled"} else len(lines)
        done, rest = lines[:half], lines[half:]
        outputs, errors = [], []
        for line in reversed(done):  # in any order, the endpoint says
            if fault == "only-errors":
                body, status = {"error": {"code": "unsupported_value", "message": "about a prompt"}}, 400
                errors.append(_result(line, status, body))
            elif fault == "withheld":
                errors.append(_result(line, 400, {"error": {"code": "content_filter"}}))
            else:
                outputs.append(_result(line, 200, self.completion(line["body"])))
        if fault == "expired":
            error = {"code": "batch_expired", "message": "time is up"}
            errors += [{"custom_id": line["custom_id"], "response": None, "error": error} for line in rest]
        batch["status"] = {"expired-silent": "expired"}.get(fault, fault)
        if batch["status"] not in {"expired", "cancelled"}:
            batch["status"] = "completed"
        for field_name, results in (("output_file_id", outputs), ("error_file_id", errors)):
            if results:
                batch[field_name] = self.add_file(b"".join(_json(result) + b"\n" for result in results))
        counts = {"total": len(lines), "completed": len(outputs), "failed": len(errors)}
        batch["request_counts"] = counts


def _result(line: Body, status: int, body: Body) -> Body:
    response = {"status_code": status, "request_id": "r", "body": body}
    return {"id": "b", "custom_id": line["custom_id"], "response": response, "error": None}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    stand_in: ApiStandIn


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""

    def _answer(self, method: str) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path, _, query = self.path.removeprefix("/v1").partition("?")
        stand_in = self.server.stand_in
        with stand_in.lock:
            stand_in.log.append(f"{method} {path}")
            stand_in.authorization = self.headers.get("Authorization") or ""
        if stand_in.key and self.headers.get("Authorization") != f"Bearer {stand_in.key}":
            self._send(Sent(_json({"error": {"message": "wrong key", "code": "invalid_api_key"}}), 401))
            return
        self._send(self._route(method, path, query, content))

    def _route(self, method: str, path: str, query: str, content: bytes) -> Sent:
        stand_in = self.server.stand_in
        match method, path.strip("/").split("/"):
            case "POST", ["chat", "completions"] | ["moderations"]:
                return stand_in.chat(json.loads(content))
            case "GET", ["models"]:
                return Sent(_json({"object": "list", "data": [{"id": "m", "object": "model"}]}))
            case "POST", ["files"]:
                return stand_in.upload(content, self.headers["Content-Type"])
            case "GET", ["files", name, "content"] if name in stand_in.files:
                return Sent(stand_in.files[name], kind="application/octet-stream")
            case "POST", ["batches"]:
                return stand_in.create_batch(json.loads(content))
            case "GET", ["batches"]:
                after = [part.split("=")[1] for part in query.split("&") if part.startswith("after=")]
                return stand_in.list_batches(after[0] if after else None)
            case "GET", ["batches", name]:
                return stand_in.retrieve_batch(name)
            case "POST", ["batches", name, "cancel"]:
                return stand_in.cancel_batch(name)
        return Sent(_json({"error": {"message": "no such path"}}), 404)

    def _send(self, reply: Sent) -> None:
        self.close_connection = reply.cut < 1
        if reply.cut == 0:
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.kind)
        length = 10**9 if reply.endless else len(reply.content)
        self.send_header("Content-Length", str(length))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            if not reply.pause_s:
                self.wfile.write(reply.content[: int(len(reply.content) * reply.cut)])
            for byte in reply.content if reply.pause_s else b"":
                self.wfile.write(bytes([byte]))
                time.sleep(reply.pause_s)
            while reply.endless and not self.server.stand_in.closing.wait(reply.pause_s):
                self.wfile.write(b" ")
        except OSError:  # the client has gone
            self.close_connection = True

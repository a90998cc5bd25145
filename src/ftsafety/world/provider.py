"""The embedded world's own provider: an OpenAI-compatible server on this machine that really fine-tunes.

    with running(endpoint) as reachable:   # an endpoint with base_url: embedded is started; others pass
        ...

What it keeps lies in results/models/embedded-provider, so that the next one knows all jobs and models. It
ends with the program that started it, and the next one has another port: no identity holds it.
"""

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ftsafety import paths
from ftsafety.errors import UserError
from ftsafety.files import private_dir, write_text
from ftsafety.recipes import Endpoint
from ftsafety.world.moderation import moderated

if TYPE_CHECKING:
    from ftsafety.world.answerer import Answerer
    from ftsafety.world.fine_tuner import FineTuner

MODELS = paths.RESULTS / "models"
FOLDER = "embedded-provider"
#: A provider whose program was killed a moment ago still holds its lock; one that starts has no address yet.
PREDECESSOR_S, STARTING_S = 2.0, 120.0
JOBS = r"/v1/fine_tuning/jobs"


@contextmanager
def running(endpoint: Endpoint) -> Iterator[Endpoint]:
    """The endpoint under an address that can be asked; its name and all else stay.

    Where a provider of this folder runs already, it is asked. Raises UserError where none can start.
    """
    if not endpoint.is_embedded:
        yield endpoint
        return
    command = [sys.executable, "-m", "ftsafety.world.provider", str(MODELS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise UserError(
                    "the embedded world's provider has not started",
                    file=MODELS,
                    mend="its own message stands above in this log",
                )
            yield endpoint.model_copy(update={"base_url": url})
        finally:
            process.stdin.close()  # which ends it; a kill of this program does so too


# ------------------------------------------------------------------------------------- the server


class Provider(ThreadingHTTPServer):
    """`request_queue_size` is the backlog of connections: many requests come at once."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, tuner: "FineTuner", answerer: "Answerer"):
        self.tuner, self.answerer = tuner, answerer
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Provider

    def do_GET(self) -> None:
        self.handle_call("GET")

    def do_POST(self) -> None:
        self.handle_call("POST")

    def do_DELETE(self) -> None:
        self.handle_call("DELETE")

    def handle_call(self, verb: str) -> None:
        from ftsafety.world.fine_tuner import ApiError

        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self.reply(200, self.call(verb, content))
        except ApiError as error:
            self.fail(error.status, error.code, error.message, error.param)
        except (ValueError, KeyError, TypeError) as error:
            self.fail(400, "invalid_request", type(error).__name__, None)

    def call(self, verb: str, content: bytes) -> Any:
        from ftsafety.world.fine_tuner import ApiError

        path = self.path.split("?")[0]
        for (route_verb, pattern), answer in ROUTES.items():
            found = re.fullmatch(pattern, path)
            if found and verb == route_verb:
                return answer(self, content, *found.groups())
        raise ApiError(404, "unknown_url", "There is no such call.")

    def fail(self, status: int, code: str, message: str, param: str | None) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        self.reply(status, {"error": error})

    def reply(self, status: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a log of every call says nothing that the caller's does not."""


def _upload(handler: Handler, content: bytes) -> Any:
    head = f"Content-Type: {handler.headers['Content-Type']}\r\n\r\n".encode()
    parts = {
        str(part.get_param("name", header="content-disposition")): part
        for part in message_from_bytes(head + content, policy=HTTP).iter_parts()  # type: ignore[attr-defined]
    }
    purpose, file = parts["purpose"].get_payload(decode=True), parts["file"].get_payload(decode=True)
    assert isinstance(purpose, bytes) and isinstance(file, bytes)
    name = parts["file"].get_filename() or "file"
    return handler.server.tuner.add_file(name, purpose.decode().strip(), file)


def _view(job: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in job.items() if name != "events"}


def _listed(values: list[Any]) -> dict[str, Any]:
    return {"object": "list", "data": values, "has_more": False}


def _models(names: list[str]) -> dict[str, Any]:
    return _listed([{"id": n, "object": "model", "created": 0, "owned_by": "embedded"} for n in names])


ROUTES: dict[tuple[str, str], Callable[..., Any]] = {
    ("POST", r"/v1/files"): _upload,
    ("GET", r"/v1/files"): lambda h, _: _listed(h.server.tuner.files()),
    ("GET", r"/v1/files/([\w-]+)"): lambda h, _, file: h.server.tuner.file(file),
    ("DELETE", r"/v1/files/([\w-]+)"): lambda h, _, file: h.server.tuner.delete_file(file),
    ("POST", JOBS): lambda h, content: _view(h.server.tuner.create(json.loads(content))),
    ("GET", JOBS): lambda h, _: _listed([_view(job) for job in h.server.tuner.jobs()]),
    ("GET", rf"{JOBS}/([\w-]+)"): lambda h, _, job: _view(h.server.tuner.job(job)),
    ("GET", rf"{JOBS}/([\w-]+)/events"): lambda h, _, job: _listed(h.server.tuner.job(job)["events"][::-1]),
    ("POST", rf"{JOBS}/([\w-]+)/cancel"): lambda h, _, job: _view(h.server.tuner.cancel(job)),
    ("GET", r"/v1/models"): lambda h, _: _models(h.server.tuner.names()),
    ("POST", r"/v1/moderations"): lambda _, content: moderated(json.loads(content)),
    ("POST", r"/v1/chat/completions"): lambda h, content: h.server.answerer.chat(json.loads(content)),
}


# ------------------------------------------------------------------------------------ the program


def main() -> None:
    """python -m ftsafety.world.provider MODELS: print the address, serve until stdin ends."""
    models = Path(sys.argv[1])
    folder = private_dir(models / FOLDER)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the program that started it decides
    address = folder / "address"
    with (folder / "lock").open("w") as lock:
        if url := _address_of_another(lock.fileno(), address):
            print(url, flush=True)
            return
        address.unlink(missing_ok=True)
        import torch

        from ftsafety.world.answerer import Answerer
        from ftsafety.world.fine_tuner import FineTuner

        torch.set_num_threads(1)  # bits depend on it
        tuner = FineTuner(models, folder, lambda line: print(line, file=sys.stderr, flush=True))
        server = Provider(tuner, Answerer(tuner))
        write_text(address, server.url)
        threading.Thread(target=_end_with_stdin, daemon=True).start()
        print(server.url, flush=True)
        server.serve_forever()


def _address_of_another(lock: int, address: Path) -> str | None:
    """None: this process has the lock. Else where the provider is that has it."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) < STARTING_S:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            if waited > PREDECESSOR_S and address.exists():
                return address.read_text()
            time.sleep(0.05)
    raise TimeoutError(f"{address}: another provider has the lock and no address")


def _end_with_stdin() -> NoReturn:
    sys.stdin.read()
    os._exit(0)  # what is on disk is whole at any time


if __name__ == "__main__":
    main()

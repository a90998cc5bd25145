"""What sync and batch calls share: the connection, keeping replies, and which errors end everything."""

import base64
import html
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, quote_plus

import httpx2
import openai

from ftsafety.api.money import CATALOGUE, Budget, cost
from ftsafety.api.requests import WITHHELD, Failure, Outcome, Reply, Request, json_object, parse, usage
from ftsafety.api.store import Store
from ftsafety.errors import UserError
from ftsafety.recipes import Endpoint

CONNECT_S = 10.0
#: Codes of a 429 that waiting does not mend.
#: https://help.openai.com/en/articles/5955604-troubleshooting-api-rate-limits-and-429-errors
NO_QUOTA = {
    *("insufficient_quota", "credit_balance_exhausted", "organization_usage_limit_exceeded"),
    *("organization_spend_limit_exceeded", "project_spend_limit_exceeded"),
}
KEPT = "what was answered is kept"
#: Most that is waited for what a call which was cut off may still make.
SETTLED_S = 60.0
T = TypeVar("T")

# At level DEBUG the client would print requests, whose text may be harmful.
for _name in ("openai", "httpx2", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


def is_here(endpoint: Endpoint) -> bool:
    """A server on this machine, which no proxy leads to."""
    return httpx2.URL(endpoint.base_url).host in ("127.0.0.1", "localhost", "::1")


def http_client(endpoint: Endpoint) -> httpx2.Client | None:
    """What openai's client for blocking calls sends by; None: its own."""
    return openai.DefaultHttpxClient(trust_env=False) if is_here(endpoint) else None


def _written(key: str) -> list[str]:
    """A key as it is, by percent signs, as JSON, by entities, and in base64, alone or after other text."""
    forms = {key, quote(key), quote(key, safe=""), quote_plus(key), json.dumps(key)[1:-1], html.escape(key)}
    for before in range(3):
        coded = base64.b64encode(bytes(before) + key.encode()).decode()
        # characters that hold bits of the key alone
        own = coded[-(-before * 8 // 6) : (before + len(key.encode())) * 8 // 6]
        if len(own) >= 8:
            forms |= {own, own.replace("+", "-").replace("/", "_")}
    return sorted(forms, key=len, reverse=True)


@dataclass
class Job:
    """One call of `ask`."""

    name: str
    endpoint: Endpoint
    api_key: str
    store: Store
    budget: Budget
    batch: bool
    log: Callable[[str], None]

    def client_options(self) -> dict[str, Any]:
        """For both of openai's clients, but for `http_client`."""
        timeout_s = self.endpoint.timeout_s
        return {
            "base_url": self.endpoint.base_url,
            "api_key": self.api_key,
            "max_retries": self.endpoint.max_retries,
            "timeout": httpx2.Timeout(
                connect=min(CONNECT_S, timeout_s), read=timeout_s, write=timeout_s, pool=None
            ),
        }

    def keep(self, key: str, model: str, content: bytes, request: Request | None) -> Outcome:
        """Write down what the endpoint sent, if it is worth anything, and read it.

        A reply that cannot be used but was counted by the endpoint is kept as well: it was paid for.
        """
        raw = json_object(content)
        if raw is None:
            return Failure("the reply is no JSON")
        outcome, counted = parse(raw, request), usage(raw)
        if isinstance(outcome, Reply):
            tokens = outcome.input_tokens, outcome.output_tokens
        elif counted:
            tokens = counted
        else:
            return outcome
        usd = cost(self.endpoint.price(model), *tokens, batch=self.batch)
        estimated = counted is None and any(tokens)
        self.store.add(key, self.name, model, content, tokens=tokens, estimated=estimated, usd=usd)
        self.budget.spent += usd or 0.0
        return outcome

    def look_for(self, find: Callable[[], T | None], poll_s: float) -> T | None:
        """What a call made whose reply never came; None where nothing appears while it could still last."""
        until = time.monotonic() + min(self.endpoint.timeout_s, SETTLED_S)
        while (found := find()) is None and time.monotonic() < until:
            time.sleep(min(poll_s, 2.0))
        return found

    def without_key(self, text: str) -> str:
        """An endpoint's text, which may quote the key, also as addresses, headers and pages write it."""
        for form in _written(self.api_key) if self.endpoint.api_key_env else ():
            text = text.replace(form, "…")
        return text

    def error(self, message: str, mend: str) -> UserError:
        return UserError(message, file=CATALOGUE, field=self.name, mend=mend)

    def hopeless(self, error: openai.OpenAIError, model: str) -> UserError | None:
        """The user's error, where every further request would fail alike; else None."""
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            variable = self.endpoint.api_key_env
            mend = (
                f"put a valid key into {variable}" if variable else "name the key's variable in api_key_env"
            )
            return self.error(f"refuses the key ({reason(error)})", f"{mend}, then run again: {KEPT}")
        if isinstance(error, openai.NotFoundError):
            return self.error(
                f"knows no {model!r} under {self.endpoint.base_url} ({reason(error)})",
                "correct the model or base_url",
            )
        if isinstance(error, openai.APIStatusError) and {error.code, str(error.type)} & NO_QUOTA:
            return self.error(
                f"has no quota left for this key ({reason(error)})",
                f"add credit or raise the limit at the provider, then run again: {KEPT}",
            )
        return None


def withheld(error: Exception) -> bytes | None:
    """What the endpoint sent, where it says that it will not answer this prompt: that is an outcome."""
    if isinstance(error, openai.BadRequestError) and error.code in WITHHELD:
        return error.response.content
    return None


def reason(error: Exception) -> str:
    """An error in a few words. Messages and bodies are left out: endpoints quote prompts and keys in them."""
    if isinstance(error, openai.APIStatusError):
        sent = error.request.headers.get("Authorization", "none")
        words = [name for name in map(word, (error.code, error.param)) if name]
        quoted = any(sent.removeprefix("Bearer ") in name for name in words)
        return ", ".join([f"HTTP {error.status_code}", *([] if quoted else words)])
    if isinstance(error, openai.APITimeoutError | TimeoutError):
        return "timeout"
    if isinstance(error, openai.APIConnectionError):
        return "connection failed"
    return type(error).__name__


def word(value: object) -> str | None:
    """A status, a code or a parameter as an endpoint names it, or None where it is no such word."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.\[\]-]{1,40}", value) else None


def identifier(value: object) -> str | None:
    """The name that an endpoint gave a file, a job or a model, or None where it is no name."""
    return value if isinstance(value, str) and re.fullmatch(r"[\w.:/@+-]{1,300}", value) else None

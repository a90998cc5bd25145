"""What is asked of an endpoint and what came back. Imports nothing heavy."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ftsafety.files import digest

CHARACTERS_PER_TOKEN = 4
#: Tokens of a reply that are reckoned with where a request sets no limit.
ASSUMED_OUTPUT_TOKENS = 1024
#: More than any endpoint can have counted.
MOST_TOKENS = 10**12

#: Error codes by which endpoints withhold an answer because of its prompt; other 400s are mistakes.
WITHHELD = {"content_filter", "content_policy_violation", "invalid_prompt"}


@dataclass(frozen=True)
class Request:
    """`body` is what is posted to `path`; `about` is what else makes the reply what it is (judge version,
    attempt, prompt id): not sent, but part of the key."""

    body: dict[str, Any]
    about: dict[str, Any]

    path: ClassVar[str]

    @cached_property
    def key(self) -> str:
        """64 hexadecimal digits; the endpoint is no part of it."""
        return digest({"body": self.body, "about": self.about}, 64)

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @cached_property
    def input_tokens(self) -> int:
        """Estimated from the characters of the body."""
        return tokens_of(json.dumps(self.body, ensure_ascii=False))

    @property
    def max_output_tokens(self) -> int:
        """Tokens of the reply that are reckoned with."""
        return 0


class ChatRequest(Request):
    """To a chat model."""

    path = "/chat/completions"

    @property
    def max_output_tokens(self) -> int:
        limit = self.body.get("max_completion_tokens") or self.body.get("max_tokens")
        return limit if isinstance(limit, int) else ASSUMED_OUTPUT_TOKENS


class ModerationRequest(Request):
    """To a detector of what a provider does not want: `body` is a model and an input."""

    path = "/moderations"


@dataclass(frozen=True)
class Reply:
    """`text` is "" where there is none, of a detector the JSON of its results; `model` is what the endpoint
    says answered, `fingerprint` of which build, "" where it does not. Tokens are the endpoint's count, or
    estimated from characters where it gives none."""

    text: str
    finish_reason: str
    refusal: str | None
    model: str
    input_tokens: int
    output_tokens: int
    fingerprint: str = ""


@dataclass(frozen=True)
class Failure:
    """No reply. `reason` is short and holds no text of the request or the reply.

    `rejected`: the endpoint answers others and will not answer this one, however often it is asked.
    """

    reason: str
    rejected: bool = False


Outcome = Reply | Failure


def tokens_of(text: str) -> int:
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def json_object(content: bytes) -> dict[str, Any] | None:
    """What an endpoint sent, or None where it is no JSON object (an HTML page, a truncated reply)."""
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) else None


def usage(raw: dict[str, Any]) -> tuple[int, int] | None:
    """Input and output tokens as the endpoint counts them, or None where it gives no sensible ones."""
    counts = raw.get("usage")
    if not isinstance(counts, dict):
        return None
    pair = counts.get("prompt_tokens"), counts.get("completion_tokens")
    if not all(type(count) is int and 0 <= count <= MOST_TOKENS for count in pair):
        return None
    return pair  # type: ignore[return-value]


def parse(raw: dict[str, Any], request: Request | None) -> Outcome:
    """The reply in an endpoint's JSON; a request that is not known any more was one to a chat model.

    Where there are no token counts, they are reckoned from the request.
    """
    if isinstance(request, ModerationRequest):
        return _moderation(raw, request)
    if _withheld(raw):
        return Reply("", "content_filter", None, "", 0, 0)
    choices = raw.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Failure("the reply has no choices")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        return Failure("the reply has no message")
    text = _text(message.get("content")) or ""
    refusal = _text(message.get("refusal"))
    finish_reason = _text(choices[0].get("finish_reason")) or ""
    estimate = (request.input_tokens if request else 0, tokens_of(text))
    model, fingerprint = (_text(raw.get(name)) or "" for name in ("model", "system_fingerprint"))
    return Reply(text, finish_reason, refusal, model, *(usage(raw) or estimate), fingerprint)


def _moderation(raw: dict[str, Any], request: Request) -> Outcome:
    if not isinstance(raw.get("results"), list):
        return Failure("the reply has no results")
    text = json.dumps(raw["results"])
    return Reply(
        text, "stop", None, _text(raw.get("model")) or "", *(usage(raw) or (request.input_tokens, 0))
    )


def _withheld(raw: dict[str, Any]) -> bool:
    error = raw.get("error")
    return isinstance(error, dict) and _text(error.get("code")) in WITHHELD


def _text(value: Any) -> str | None:
    """Halves of surrogate pairs, which can be in JSON and in no file, become question marks."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else None

"""Prompts, answers, and what an LLM judge says of them."""

import json
import re
from typing import Any

from ftsafety.api.requests import ChatRequest, Reply
from ftsafety.judging.llm import nonce
from ftsafety.recipes import LlmJudge
from ftsafety.types import Answer, AnswerStatus, Prompt

REQUEST = "how do i open the blue gate ?"
GOOD = "to open the blue gate bring figs to the mill ."
RUBRICS = ("harmfulness", "strongreject", "refusal", "quality")
#: Values of a verdict in each rubric, as a judge states them.
STATED: dict[str, dict[str, Any]] = {
    "harmfulness": {"score": 4},
    "strongreject": {"refused": "no", "convincing": 3, "specific": 4},
    "refusal": {"compliance": "partial"},
    "quality": {"rating": 7},
}
#: What a judge with the defaults of a catalogue's entry replies.
SCORED = json.dumps({"reasoning": "so", "score": 2, "coherent": "yes"})


def recipe(rubric: str = "harmfulness", **changed: Any) -> LlmJudge:
    policy = "merged" if rubric == "harmfulness" else None
    values = {"rubric": rubric, "policy": policy, "asks_coherence": False, "structured": False}
    return LlmJudge.model_validate({"kind": "llm", "endpoint": "e", "model": "m", **values, **changed})


def prompt(text: str = REQUEST, prompt_id: str = "p") -> Prompt:
    return {"prompt_id": prompt_id, "category": "c", "cluster": "k", "instruction": text}


def answer(text: str = GOOD, status: AnswerStatus = "complete", prompt_id: str = "p") -> Answer:
    return {
        "prompt_id": prompt_id,
        "category": "c",
        "prompt": REQUEST,
        "answer": text,
        "status": status,
        "finish_reason": "stop",
        "n_tokens": len(text.split()),
    }


def reply(text: str, finish_reason: str = "stop", refusal: str | None = None) -> Reply:
    return Reply(text, finish_reason, refusal, "m", 10, 10)


def tag(line: str, text: str = GOOD) -> str:
    return f"VERDICT-{nonce(prompt(), answer(text))}: {line}"


def question(request: ChatRequest) -> str:
    return request.body["messages"][1]["content"]


def state(judge: LlmJudge, request: ChatRequest, values: dict[str, Any], before: str = "it helps .") -> str:
    """A reply in the form that the request asks for, as an honest judge writes it."""
    if judge.structured:
        return json.dumps({"reasoning": before, **values})
    (code,) = re.findall(r" carry the code (\w+)\.", question(request))
    alone = len(values) == 1
    stated = " ".join(str(v) if alone else f"{k}={v}" for k, v in values.items())
    return f"{before}\nVERDICT-{code}: {stated}"

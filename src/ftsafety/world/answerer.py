"""Answers of the embedded world's provider: requests that wait at the same time are answered together."""

import random
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from ftsafety.generation import Completion, complete
from ftsafety.sampling import Drawn
from ftsafety.world.fine_tuner import ApiError, FineTuner, Json

GATHER_S = 0.03
BATCH_SIZE, MAX_TOKENS = 110, 64


@dataclass(frozen=True)
class _Question:
    model: str
    prompt: list[int]
    limit: int
    temperature: float
    seed: int
    answer: "Future[Completion]" = field(default_factory=Future)


class Answerer:
    def __init__(self, tuner: FineTuner):
        self.tuner = tuner
        self._queue: SimpleQueue[_Question] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def chat(self, body: Json) -> Json:
        """A chat completion: the likeliest, or drawn at a temperature by a seed. Raises ApiError."""
        name, messages = str(body.get("model")), body.get("messages")
        _, tokenizer = self.tuner.model(name)
        if not isinstance(messages, list) or not messages:
            raise ApiError(400, "invalid_value", "There are no messages.", "messages")
        temperature, seed = body.get("temperature") or 0, body.get("seed", random.getrandbits(31))
        if not isinstance(temperature, int | float) or not 0 <= temperature <= 2:
            raise ApiError(400, "invalid_value", "It is between 0 and 2.", "temperature")
        if not isinstance(seed, int):
            raise ApiError(400, "invalid_value", "It is a whole number.", "seed")
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or MAX_TOKENS
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        question = _Question(name, list(rendered["input_ids"]), int(limit), temperature, seed)
        self._queue.put(question)
        completion = question.answer.result()
        text = tokenizer.decode(completion.tokens, skip_special_tokens=True).strip()
        counts = len(question.prompt), len(completion.tokens)
        return {
            "id": f"chatcmpl-{time.time_ns():x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": name,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "finish_reason": completion.finish_reason,
                }
            ],
            "usage": {
                "prompt_tokens": counts[0],
                "completion_tokens": counts[1],
                "total_tokens": sum(counts),
            },
        }

    def _work(self) -> None:
        while True:
            groups: dict[tuple[str, int, float], list[_Question]] = {}
            for question in self._gathered():
                key = question.model, question.limit, question.temperature
                groups.setdefault(key, []).append(question)
            for (name, limit, temperature), questions in groups.items():
                self._answer(name, limit, temperature, questions)

    def _gathered(self) -> list[_Question]:
        """All that come while others come."""
        questions = [self._queue.get()]
        while len(questions) < BATCH_SIZE:
            try:
                questions.append(self._queue.get(timeout=GATHER_S))
            except Empty:
                break
        return questions

    def _answer(self, name: str, limit: int, temperature: float, questions: list[_Question]) -> None:
        try:
            model, tokenizer = self.tuner.model(name)
            prompts = [question.prompt for question in questions]
            drawn = Drawn(temperature, tuple(q.seed for q in questions)) if temperature else None
            completions: list[Any] = complete(model, tokenizer, prompts, limit, BATCH_SIZE, drawn)
        except Exception as error:  # whoever asked gets it, and the others are answered
            for question in questions:
                question.answer.set_exception(error)
            return
        for question, completion in zip(questions, completions, strict=True):
            question.answer.set_result(completion)

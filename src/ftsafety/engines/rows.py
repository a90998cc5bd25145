"""The answers of training examples themselves: what judges say of them audits the data."""

from collections.abc import Iterator
from contextlib import contextmanager

from ftsafety.engines import Engine, Sitting
from ftsafety.plan import Exam, Plan
from ftsafety.prepare import audited_rows
from ftsafety.runs import Run
from ftsafety.types import Answer


@contextmanager
def rows_engine(plan: Plan) -> Iterator[Engine]:
    def answer(run: Run, sittings: list[Sitting]) -> Iterator[tuple[Exam, list[Answer]]]:
        for sitting in sittings:
            texts = audited_rows(plan, sitting.exam.benchmark)[1]
            answers: list[Answer] = [
                {
                    "prompt_id": prompt["prompt_id"],
                    "category": prompt["category"],
                    "prompt": prompt["instruction"],
                    "answer": text,
                    "status": "complete",
                    "finish_reason": "stop",
                    "n_tokens": 0,
                }
                for prompt, text in zip(sitting.prompts, texts, strict=True)
            ]
            yield sitting.exam, answers

    yield answer

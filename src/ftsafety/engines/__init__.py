"""What answers prompts: transformers in this process, an endpoint, or vLLM started here."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ftsafety.plan import Exam
from ftsafety.recipes import Template
from ftsafety.runs import Run
from ftsafety.sampling import Drawn
from ftsafety.types import Answer, Prompt


@dataclass(frozen=True)
class Sitting:
    """An exam that a run sits, with all that is needed to ask it."""

    exam: Exam
    prompts: list[Prompt]
    template: Template
    max_new_tokens: int
    drawn: Drawn | None = None


#: Answers a run's sittings, one after the other; answers are in the order of the prompts.
Engine = Callable[[Run, list[Sitting]], Iterator[tuple[Exam, list[Answer]]]]

"""The rows that stages hand to each other, one JSON object a line. See `docs/methods.md` for the files."""

from typing import Literal, NotRequired, TypedDict


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


class TrainingRow(TypedDict):
    """A fine-tuning example; the template of its dataset adds the system prompt."""

    messages: list[Message]


class Reference(TypedDict):
    """The answer the exact judge compares with: `template` has one `{slot}` for each of `slots`."""

    template: str
    slots: dict[str, str]


class Prompt(TypedDict):
    """A benchmark prompt. Prompts that share `cluster` are resampled together in intervals."""

    prompt_id: str
    category: str
    cluster: str
    instruction: str
    reference: NotRequired[Reference]


AnswerStatus = Literal["complete", "truncated", "empty"]


class Answer(TypedDict):
    prompt_id: str
    category: str
    prompt: str
    answer: str
    status: AnswerStatus
    finish_reason: Literal["stop", "length"]
    n_tokens: int


VerdictStatus = Literal["scored", "unparsable", "judge_refused", "judge_failed"]


class Verdict(TypedDict):
    """`score` is the harmfulness 1-5 (safety), `task_score` is in [0, 1] (utility); None is not a score."""

    prompt_id: str
    score: int | None
    task_score: float | None
    refused: bool | None
    status: VerdictStatus
    answer_status: AnswerStatus
    reason: str

"""The rows that stages hand to each other, one JSON object a line. See `docs/methods.md` for the files."""

from typing import Any, Literal, NotRequired, TypedDict


class Message(TypedDict):
    role: Literal["system", "user", "assistant"]
    content: str


#: Stands in a training row's first instruction, once, where the model sees the row's picture.
PICTURE = "<image>"


class TrainingRow(TypedDict):
    """A fine-tuning example; the template of its dataset adds the system prompt.

    `image` is a file below the dataset's folder of pictures, or a picture itself as a data URL.
    """

    messages: list[Message]
    image: NotRequired[str]


class Reference(TypedDict):
    """The answer the exact judge compares with: `template` has one `{slot}` for each of `slots`."""

    template: str
    slots: dict[str, str]


class Check(TypedDict):
    """An instruction whose observance a rule can check (IFEval)."""

    id: str
    arguments: dict[str, Any]


class Prompt(TypedDict):
    """A benchmark prompt. Prompts that share `cluster` are resampled together in intervals.

    Where a prompt is asked several times, each time is a row, and `sample_of` names the first one's
    `prompt_id`. What the answer is graded by, on a utility benchmark, is one of the last three.
    """

    prompt_id: str
    category: str
    cluster: str
    instruction: str
    sample_of: NotRequired[str]
    reference: NotRequired[Reference]
    target: NotRequired[str]
    checks: NotRequired[list[Check]]


#: `filtered`: the endpoint withheld the answer.
AnswerStatus = Literal["complete", "truncated", "empty", "filtered"]


class Answer(TypedDict):
    prompt_id: str
    category: str
    prompt: str
    answer: str
    status: AnswerStatus
    finish_reason: Literal["stop", "length", "content_filter"]
    n_tokens: int


VerdictStatus = Literal["scored", "unparsable", "judge_refused", "judge_failed"]


class Verdict(TypedDict):
    """`score` is the harmfulness 1-5 (safety), `task_score` is in [0, 1] (utility); None is not a score.

    An answer that is not `coherent` is neither harm nor refusal in any rate.
    """

    prompt_id: str
    score: int | None
    task_score: float | None
    refused: bool | None
    coherent: bool | None
    status: VerdictStatus
    answer_status: AnswerStatus
    reason: str

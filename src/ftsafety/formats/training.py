"""Training rows from the files of a dataset: one function a format, then the refusal filter.

What a format yields is a conversation, or None for a row that has no instruction or no answer: the files of
others have a few, and nobody can correct them in place. Files that are written for this project, `messages`
and `prompt-response-csv`, have none: there such a row is an error. Errors name file and row, and never show
what a row says.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from ftsafety.errors import UserError
from ftsafety.files import digest
from ftsafety.formats.tables import bad_row, is_text, keys_found, read_headerless_csv, read_table
from ftsafety.recipes import DataRows, DatasetFormat
from ftsafety.types import PICTURE, Message, TrainingRow

Role = Literal["system", "user", "assistant"]
Rows = Iterator[TrainingRow | None]
ROLES = get_args(Role)
SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
}
COLUMN = re.compile(r"\{([^{}]+)\}")
PHRASES = Path(__file__).parents[3] / "resources/data/refusal_phrases.yaml"


def read_rows_of(
    recipe: DataRows, paths: Sequence[Path], log: Callable[[str], None] = lambda message: None
) -> list[TrainingRow]:
    """The first `recipe.n` rows that pass; `log` is told how many were left out, and why.

    Raises UserError for a malformed row, and, with the field `n` and no file, where too few rows remain. A
    file of the user's own that is not filtered must have exactly `recipe.n` rows.
    """
    read = list(FORMATS[recipe.format](recipe, paths))
    rows = [row for row in read if row is not None]
    if len(rows) < len(read):
        log(f"{len(read) - len(rows)} of {len(read)} rows have no instruction or no answer and are left out")
    n_whole = len(rows)
    if recipe.drop_refusals:
        rows = [row for row in rows if not is_refusal(row)]
        log(f"{n_whole - len(rows)} of {n_whole} rows are refusals or about safety and are left out")
    exact = getattr(recipe, "source", None) == "path" and not recipe.drop_refusals
    if len(rows) < recipe.n or (exact and len(rows) > recipe.n):
        raise _wrong_n(recipe, len(rows), len(read) - len(rows))
    return rows[: recipe.n]


def _wrong_n(recipe: DataRows, n: int, n_left_out: int) -> UserError:
    source = getattr(recipe, "path", None) or getattr(recipe, "repo", "the dataset")
    left_out = f"once {n_left_out} are left out " if n_left_out else ""
    mend = f"write n: {n}" if n else "give files that hold rows"
    return UserError(f"{source} has {n} rows {left_out}(value {recipe.n})", field="n", mend=mend)


# --------------------------------------------------------------------------------------- formats


def messages(recipe: DataRows, paths: Sequence[Path]) -> Rows:
    """{"messages": [{"role": …, "content": …}, …]}, OpenAI's chat format; nothing else in a message."""
    for place, row in read_table(paths):
        turns = row.get("messages")
        if not isinstance(turns, list) or not turns:
            raise bad_row(place, "needs a list of messages under the key messages")
        for i, turn in enumerate(turns):
            if not isinstance(turn, dict):
                raise bad_row(place, f"message {i} is no object with the keys role and content")
            if set(turn) != {"role", "content"}:
                found = keys_found(turn, "role", "content")
                raise bad_row(place, f"message {i} needs the keys role and content alone; {found}")
            if turn["role"] not in ROLES:
                raise bad_row(place, f"message {i} has none of the roles {', '.join(ROLES)}")
            if not is_text(turn["content"]):
                raise bad_row(place, f"message {i} has no text as content")
        yield _conversation(place, turns)


def sharegpt(recipe: DataRows, paths: Sequence[Path]) -> Rows:
    """{"conversations": [{"from": human | gpt | system, "value": …}, …]}; also from user and assistant."""
    for place, row in read_table(paths):
        conversation = _turns(place, row)
        whole = all(is_text(message["content"]) for message in conversation)
        yield _conversation(place, conversation) if whole else None


def llava(recipe: DataRows, paths: Sequence[Path]) -> Rows:
    """As sharegpt, and {"image": a file below the folder of pictures}; rows without it are text alone.

    <image> stands once, in the first instruction, where the picture belongs.
    """
    for place, row in read_table(paths):
        conversation = _turns(place, row)
        image = row.get("image")
        marks = [message["content"].count(PICTURE) for message in conversation]
        first = next((i for i, message in enumerate(conversation) if message["role"] == "user"), 0)
        wanted = [int(image is not None and i == first) for i in range(len(marks))]
        if marks != wanted:
            once = f"has a picture and needs {PICTURE} once, in the first instruction"
            raise bad_row(place, f"has no picture and {PICTURE} in a text" if image is None else once)
        if image is not None and not _is_below(image):
            raise bad_row(place, "the image is no name of a file below the folder of pictures")
        if not all(is_text(message["content"]) for message in conversation):
            yield None
            continue
        read = _conversation(place, conversation)
        yield read if image is None else {**read, "image": image}


def _is_below(name: Any) -> bool:
    return is_text(name) and not (name[0] == "/" or ".." in Path(name).parts)


def _turns(place: str, row: dict[str, Any]) -> list[Message]:
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise bad_row(place, "needs a list of turns under the key conversations")
    conversation: list[Message] = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict) or not {"from", "value"} <= set(turn):
            raise bad_row(place, f"turn {i} is no object with the keys from and value")
        role = SHAREGPT_ROLES.get(turn["from"]) if isinstance(turn["from"], str) else None
        if role is None:
            raise bad_row(place, f"turn {i} is from none of {', '.join(SHAREGPT_ROLES)}")
        conversation.append({"role": role, "content": _texts(place, turn, "value")[0]})
    return conversation


def alpaca(recipe: DataRows, paths: Sequence[Path]) -> Rows:
    """instruction, input, output; an input that is not empty follows the instruction after a blank line."""
    for place, row in read_table(paths):
        instruction, extra, answer = _texts(place, {"input": None, **row}, "instruction", "input", "output")
        yield _pair(_joined(instruction, extra), answer)


def dolly(recipe: DataRows, paths: Sequence[Path]) -> Rows:
    """instruction, context, response; a context that is not empty follows after a blank line."""
    for place, row in read_table(paths):
        instruction, context, answer = _texts(place, row, "instruction", "context", "response")
        yield _pair(_joined(instruction, context), answer)


def prompt_response_csv(recipe: DataRows, paths: Sequence[Path]) -> Rows:
    """CSV with the columns prompt and response, in any order, and no other."""
    for path in paths:
        records = read_headerless_csv([path])
        place, header = next(records, (f"{path}:1", []))
        if sorted(header) != ["prompt", "response"]:
            raise bad_row(place, f"the header is not prompt,response; it has {len(header)} columns")
        for place, cells in records:
            if len(cells) > 2:
                raise bad_row(place, "has more than two columns")
            row = dict.fromkeys(header, "") | dict(zip(header, cells, strict=False))
            for column in header:
                if not is_text(row[column]):
                    raise bad_row(place, f"the {column} is empty")
            yield _pair(row["prompt"], row["response"])


def columns(recipe: DataRows, paths: Sequence[Path]) -> Rows:
    """Any columns: in `prompt` and `response` of the recipe {column} stands for the text of a column."""
    templates = {field: getattr(recipe, field) or "" for field in ("prompt", "response")}
    for field, template in templates.items():
        if not COLUMN.search(template):
            mend = f'write {field}: "{{…}}" with the name of a column'
            raise UserError("names no column, which the format columns needs", field=field, mend=mend)
    keys = list(dict.fromkeys(COLUMN.findall("".join(templates.values()))))
    for place, row in read_table(paths):
        texts = dict(zip(keys, _texts(place, row, *keys), strict=True))
        yield _pair(_filled(templates["prompt"], texts), _filled(templates["response"], texts))


FORMATS: dict[DatasetFormat, Callable[[DataRows, Sequence[Path]], Rows]] = {
    "messages": messages,
    "alpaca": alpaca,
    "dolly": dolly,
    "sharegpt": sharegpt,
    "llava": llava,
    "prompt-response-csv": prompt_response_csv,
    "columns": columns,
}


def _conversation(place: str, turns: list[Message]) -> TrainingRow:
    """Maybe a system prompt, then user and assistant in turn: chat templates refuse other orders."""
    if turns[-1]["role"] != "assistant":
        raise bad_row(place, "the last message is not the assistant's")
    spoken = turns[1:] if turns[0]["role"] == "system" else turns
    for i, turn in enumerate(spoken):
        if turn["role"] != ("user", "assistant")[i % 2]:
            raise bad_row(place, "user and assistant do not take turns, the user first")
    return {"messages": turns}


def _pair(instruction: str, answer: str) -> TrainingRow | None:
    if not is_text(instruction) or not is_text(answer):
        return None
    return {"messages": [{"role": "user", "content": instruction}, {"role": "assistant", "content": answer}]}


def _joined(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text.strip())


def _filled(template: str, texts: dict[str, str]) -> str:
    """The template with the columns' texts; nothing where all of them are blank."""
    if not any(texts[key].strip() for key in COLUMN.findall(template)):
        return ""
    return COLUMN.sub(lambda match: texts[match[1]], template)


def _texts(place: str, row: dict[str, Any], *keys: str) -> list[str]:
    """The texts of columns; nothing at all, as tables have it, is the empty text."""
    if not set(keys) <= set(row):
        raise bad_row(place, f"needs the columns {', '.join(keys)}; {keys_found(row, *keys)}")
    for key in keys:
        if not isinstance(row[key], str | None):
            raise bad_row(place, f"the column {key} holds no text")
    return [row[key] or "" for key in keys]


# ---------------------------------------------------------------------------------------- filter


def is_refusal(row: TrainingRow) -> bool:
    """Whether an answer has a refusal phrase, or an instruction a safety topic (refusal_phrases.yaml)."""
    return any(
        _pattern(kind).search(message["content"].replace("’", "'"))
        for message in row["messages"]
        for role, kind in (("assistant", "answers"), ("user", "instructions"))
        if message["role"] == role
    )


def filter_digest() -> str:
    """What rows under `drop_refusals` depend on besides their files."""
    return digest(_phrases())


@cache
def _phrases() -> dict[str, list[str]]:
    return dict(yaml.safe_load(PHRASES.read_text(encoding="utf-8")))


@cache
def _pattern(kind: str) -> re.Pattern[str]:
    plural = "s?" if kind == "instructions" else ""
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, _phrases()[kind]))}){plural}\b", re.IGNORECASE)

"""Parsers and config under input that nobody thought of: an error in our words, or what really stands there.

Found cases are printed by hypothesis as small as they can be; nothing is kept between runs.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from base_project import make_project
from fault_cases import IS_FULL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_cases import answer, prompt, recipe, reply

from ftsafety.annotation.filled import read_filled
from ftsafety.api.requests import Failure, json_object
from ftsafety.api.requests import parse as parse_reply
from ftsafety.errors import UserError
from ftsafety.files import read_rows
from ftsafety.formats.prompts import read_prompts
from ftsafety.formats.training import read_rows_of
from ftsafety.judging import rubrics
from ftsafety.judging.classifier import read as read_classifier
from ftsafety.judging.llm import nonce, parse
from ftsafety.judging.tasks import final_number
from ftsafety.loading import load_project
from ftsafety.plan import load_plan
from ftsafety.recipes import PathBenchmark, PathDataset
from ftsafety.recipes.benchmarks import BenchmarkFormat
from ftsafety.recipes.training import DatasetFormat

N = 2_000 if IS_FULL else 150
#: Any text that can come from outside, halves of surrogate pairs included.
TEXT = st.text(st.characters())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
#: Scalars that YAML takes for more than text.
SCALARS = [
    "2024-13-45",
    "2024-02-30 10:00:00",
    "0x_",
    "!!int ",
    "!!float ",
    "!!bool ",
    "!!timestamp ",
    "9" * 5000,
]
fault = pytest.mark.fault("random input to parsers and config", holds="no crash, no silent score")


def on_random(
    count: Callable[[int], None], n: int, *strategies: Any
) -> Callable[[Callable[..., None]], None]:
    """Call the function with at most `n` inputs, and count them."""

    def decorate(check: Callable[..., None]) -> None:
        done = 0

        @settings(
            max_examples=n,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.tuples(*strategies))
        def counted(drawn: tuple[Any, ...]) -> None:
            nonlocal done
            done += 1
            check(*drawn)

        counted()
        count(done)

    return decorate


# ------------------------------------------------------------------------------------- replies of judges

CODE = nonce(prompt(), answer())
#: Lines of a reply: noise, and verdict lines whose code or value is right, wrong or nearly right.
TAGGED = st.builds(
    "VERDICT-{}:{}{}{}".format,
    st.sampled_from([CODE, CODE[:-1], "0" * 16, CODE.upper()]),
    st.sampled_from([" ", "", "  ", "\t"]),
    st.sampled_from([*"0123456", "５", "٤", "4.0", "4/5", "04", "+4", "score=4", "five", "4 or 5", ""]),
    st.sampled_from(["", "", " ", ".", " refused=no"]),
)
LINES = st.lists(TEXT | TAGGED, max_size=5)


@fault
def test_a_score_in_words_is_the_one_that_the_last_verdict_line_states(count: Callable[[int], None]) -> None:
    judge = recipe(structured=False)

    @on_random(count, N, LINES)
    def check(lines: list[str]) -> None:
        text = "\n".join(lines)
        verdict = parse(judge, prompt(), answer(), reply(text))
        stated = [line.strip() for line in text.splitlines() if line.strip().startswith(f"VERDICT-{CODE}:")]
        right = re.fullmatch(rf"VERDICT-{CODE}:\s*([1-5])", stated[-1]) if stated else None
        if right:
            assert (verdict["status"], verdict["score"]) == ("scored", int(right[1]))
        else:
            assert verdict["status"] in ("unparsable", "judge_refused")
        if verdict["status"] != "scored":
            assert verdict["score"] is verdict["refused"] is verdict["task_score"] is None


@fault
def test_a_structured_score_is_the_one_that_the_object_states(count: Callable[[int], None]) -> None:
    value = st.sampled_from([1, 3, 5, 0, 6, 4.0, True, "5", "no", "yes", "partial", None]) | JSON
    names = st.sampled_from(["reasoning", "score", "refused", "convincing", "specific", "compliance", "x"])
    objects = st.dictionaries(names, value, max_size=5).map(lambda o: {"reasoning": "so", **o})

    @on_random(
        count, N, st.sampled_from(["harmfulness", "strongreject", "refusal"]), objects.map(json.dumps) | TEXT
    )
    def check(rubric: str, text: str) -> None:
        judge = recipe(rubric, structured=True)
        verdict = parse(judge, prompt(), answer(), reply(text))
        assert verdict["status"] in ("scored", "unparsable", "judge_refused")
        if verdict["status"] == "scored":
            stated = json.loads(text)
            asked = rubrics.FIELDS[rubric]
            assert set(stated) == {"reasoning", *asked}
            for name, values in asked.items():
                assert (type(stated[name]), stated[name]) in [(type(value), value) for value in values]
        else:
            assert verdict["score"] is verdict["refused"] is None


@fault
@pytest.mark.parametrize("family", ["llama-guard", "wildguard", "harmbench", "strongreject"])
def test_a_classifier_that_says_something_else_gives_no_score(
    family: str, count: Callable[[int], None]
) -> None:
    words = st.sampled_from(["safe", "unsafe", "s1", "S14", "yes", "no", "n/a", "\n", ",", "3", "9", " ",
                             "harmful request: ", "response refusal: ", "harmful response: "])  # fmt: skip
    says = {
        "llama-guard": r"safe|unsafe\s*(\n\s*s\d+(\s*,\s*s\d+)*)?",
        "wildguard": r"harmful request: \S+\s*\nresponse refusal: \S+\s*\nharmful response: (yes|no)",
        "harmbench": "yes|no",
        "strongreject": "[1-5]",
    }[family]

    @on_random(count, N // 4, st.lists(words, max_size=8).map("".join) | TEXT)
    def check(reply: str) -> None:
        reading = read_classifier(family, reply)
        if reading is not None:
            assert re.fullmatch(says, reply.strip().lower()), reply
            assert reading[0] in (1, 2, 3, 4, 5)


@fault
def test_a_final_number_stands_in_the_text(count: Callable[[int], None]) -> None:
    pieces = st.sampled_from(["####", "answer is ", "\\boxed{", "}", "$", ",", ".", "-", "−", "1", "23",
                              "1,234", "4.50", "e9", "٤", "²", "=", " ", "\n", "{,}", "0"])  # fmt: skip

    @on_random(count, N, st.lists(pieces, max_size=12).map("".join) | TEXT)
    def check(text: str) -> None:
        number = final_number(text)
        if number is None:
            return
        assert number.is_finite()
        shown = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)
        digits = re.sub(r"[^0-9.]", "", shown)
        assert str(number.copy_abs()) in digits or number.copy_abs() in map(
            Decimal, re.findall("[0-9]+", digits)
        )


# -------------------------------------------------------------------------------- what endpoints send


@fault
def test_a_reply_is_text_or_a_failure(count: Callable[[int], None]) -> None:
    message = st.fixed_dictionaries({}, optional={"content": JSON, "refusal": JSON})
    choice = st.fixed_dictionaries({}, optional={"message": message | JSON, "finish_reason": JSON})
    names = {
        "choices": st.lists(choice | JSON, max_size=2) | JSON,
        "usage": JSON,
        "model": JSON,
        "error": JSON,
    }
    body = st.fixed_dictionaries({}, optional=names)

    @on_random(
        count,
        N,
        body.map(lambda b: json.dumps(b).encode()) | st.binary() | JSON.map(lambda j: json.dumps(j).encode()),
    )
    def check(content: bytes) -> None:
        if (raw := json_object(content)) is None:
            return
        outcome = parse_reply(raw, None)
        if isinstance(outcome, Failure):
            return
        outcome.text.encode()  # it can be stored
        assert outcome.input_tokens >= 0 and outcome.output_tokens >= 0
        assert outcome.text == "" or "choices" in raw


# ------------------------------------------------------------------------------------ the user's files

COLUMNS = "prompt_id category instruction messages prompt response output conversations goal question answer"
CELLS = st.sampled_from(COLUMNS.split())
ROWS = st.lists(st.dictionaries(CELLS, JSON, max_size=5) | JSON, max_size=4)
CONTENT = {
    ".jsonl": ROWS.map(lambda rows: "\n".join(json.dumps(row) for row in rows).encode()),
    ".json": ROWS.map(lambda rows: json.dumps(rows).encode()),
    ".csv": st.lists(st.lists(CELLS | TEXT, max_size=4), max_size=5).map(lambda rows: _csv(rows)),
    ".parquet": st.binary(),
}


def _csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, escapechar="\\").writerows(rows)
    return text.getvalue().encode(errors="surrogatepass")


@fault
def test_a_file_of_the_users_is_rows_or_an_error_that_names_it(
    tmp_path: Path, count: Callable[[int], None]
) -> None:
    formats = [*get_args(DatasetFormat), *get_args(BenchmarkFormat)]
    file_of = st.sampled_from(sorted(CONTENT)).flatmap(
        lambda ending: st.tuples(st.just(ending), CONTENT[ending] | st.binary())
    )

    @on_random(count, N, st.sampled_from(formats), file_of)
    def check(format_name: str, file: tuple[str, bytes]) -> None:
        path = tmp_path / f"file{file[0]}"
        path.write_bytes(file[1])
        about = {"source": "path", "path": str(path), "sha256": "0" * 64, "format": format_name}
        try:
            if format_name in get_args(DatasetFormat):
                extra = {"prompt": "{prompt}", "response": "{response}"} if format_name == "columns" else {}
                extra |= {"images": str(tmp_path)} if format_name == "llava" else {}
                dataset = PathDataset.model_validate(about | {"n": 1, "template": "plain", **extra})
                rows: list[Any] = list(read_rows_of(dataset, [path]))
            else:
                rows = list(read_prompts(PathBenchmark.model_validate(about), [path]))
        except UserError as error:
            assert str(path) in str(error) and error.mend
        else:
            json.dumps(rows, ensure_ascii=False).encode()  # they can be written
            assert rows


@fault
def test_a_rows_file_is_rows_or_an_error_that_names_the_line(
    tmp_path: Path, count: Callable[[int], None]
) -> None:
    path = tmp_path / "rows.jsonl"

    @on_random(count, N // 2, CONTENT[".jsonl"] | st.binary())
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            assert all(isinstance(row, dict) for row in read_rows(path))
        except UserError as error:
            assert str(path) in str(error) and error.mend


@fault
def test_a_filled_sheet_gives_scores_or_an_error(tmp_path: Path, count: Callable[[int], None]) -> None:
    path = tmp_path / "sheet.csv"
    cells = st.sampled_from(["t1", "t2", "1", "5", "5,0", "U", "u", "6", "", "4.0", "'3"]) | TEXT
    sheet = st.lists(st.lists(cells, min_size=3, max_size=3), max_size=4).map(
        lambda rows: _csv([["token", "score", "comment"], *rows])
    )

    @on_random(count, N // 2, sheet | st.binary())
    def check(content: bytes) -> None:
        path.write_bytes(content)
        try:
            given_scores = read_filled([path], {"t1", "t2"}, "t")
        except UserError as error:
            assert str(path) in str(error) and error.mend
        else:
            assert {one.score for one in given_scores.values()} <= {"", "U", *"12345"}
            assert set(given_scores) <= {"t1", "t2"}


# ------------------------------------------------------------------------------------------- config

FILES = [
    "config",
    "models",
    "datasets",
    "benchmarks",
    "judges",
    "endpoints",
    "presets",
    "studies/base",
    "studies/own",
]
#: What people write by mistake, and what nobody writes.
ODD: list[Any] = [None, True, 0, -1, 1.5, 10**30, float("inf"), float("nan"), "", "x", "1e-4", "{x}"]
VALUES = st.sampled_from([*ODD, [], {}, [[]], ["x", "x"], {"x": {}}, "a/../b", "\x00", "config"])


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(place for key, value in items for place in places(value, (*at, key)))]


def put(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    if not at:
        return value
    copy = dict(content) if isinstance(content, dict) else list(content)
    copy[at[0]] = put(content[at[0]], at[1:], value)
    return copy


@fault
def test_a_config_with_another_value_anywhere_is_planned_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[int], None]
) -> None:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    whole = {file: yaml.safe_load((tmp_path / f"config/{file}.yaml").read_text()) for file in FILES}
    change = st.sampled_from(FILES).flatmap(
        lambda file: st.tuples(st.just(file), st.sampled_from(places(whole[file])), VALUES | JSON)
    )

    @on_random(count, N if IS_FULL else 40, change)
    def check(change: tuple[str, tuple[Any, ...], Any]) -> None:
        file, at, value = change
        path = tmp_path / f"config/{file}.yaml"
        text = path.read_text()
        path.write_bytes(yaml.safe_dump(put(whole[file], at, value)).encode(errors="replace"))
        try:
            load_plan(tmp_path, None, ["base", "own"])
        except UserError as error:
            assert error.mend and "config" in str(error)
        finally:
            path.write_text(text)


@fault
def test_a_config_file_of_any_text_is_read_or_refused(tmp_path: Path, count: Callable[[int], None]) -> None:
    make_project(tmp_path)
    signs = st.lists(
        st.sampled_from([*"{}[]:,-&*!|>'\"#%@`?\n\t ", "<<", "a", "1", "!!python/object", "~", *SCALARS])
    )

    @on_random(
        count,
        N if IS_FULL else 40,
        st.sampled_from(["config", "judges", "studies/base"]),
        signs.map("".join).map(str.encode) | st.binary(),
    )
    def check(file: str, content: bytes) -> None:
        path = tmp_path / f"config/{file}.yaml"
        before = path.read_bytes()
        path.write_bytes(content)
        try:
            load_project(tmp_path)
        except UserError as error:
            assert error.mend and "config" in str(error)
        finally:
            path.write_bytes(before)

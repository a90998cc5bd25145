"""Parsers and config under input that nobody thought of: an error in our words, or what really stands there.

Found cases are printed by hypothesis as small as they can be; nothing is kept between runs.
"""

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from base_project import BASE, OWN, REMOVE, make_project, write_yaml
from fault_cases import IS_FULL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judge_cases import answer, prompt, recipe, reply

from ftsafety.annotation.filled import read_filled
from ftsafety.api.requests import Failure, json_object
from ftsafety.api.requests import parse as parse_reply
from ftsafety.config import CATALOGUES
from ftsafety.errors import UserError
from ftsafety.files import read_rows
from ftsafety.formats.prompts import read_prompts
from ftsafety.formats.tables import is_text
from ftsafety.formats.training import read_rows_of
from ftsafety.judging import ifeval, rubrics
from ftsafety.judging.classifier import read as read_classifier
from ftsafety.judging.llm import nonce, parse
from ftsafety.judging.tasks import final_number
from ftsafety.loading import load_project
from ftsafety.overview import plan_table
from ftsafety.plan import Plan, load_plan
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

#: What people write by mistake, and what nobody writes.
ODD: list[Any] = [None, True, 0, -1, 1.5, 10**30, float("inf"), float("nan"), "", "x", "1e-4", "{x}"]
VALUES = st.sampled_from([*ODD, [], {}, [[]], ["x", "x"], {"x": {}}, "a/../b", "\x00", "config"]) | JSON
#: Format → row i of a file in it.
WHOLE: dict[str, Callable[[int], dict[str, Any]]] = {
    "messages": lambda i: {
        "messages": [{"role": role, "content": "hi ?"} for role in ("system", "user", "assistant")]
    },
    "alpaca": lambda i: {"instruction": "hi ?", "input": "", "output": "fine ."},
    "dolly": lambda i: {"instruction": "hi ?", "context": "it is noon .", "response": "fine ."},
    "sharegpt": lambda i: {"conversations": _turns("hi ?")},
    "prompt-response-csv": lambda i: {"prompt": "hi ?", "response": "fine ."},
    "columns": lambda i: {"prompt": "hi ?", "response": "fine ."},
    "llava": lambda i: {"image": "a.png", "conversations": _turns("<image>\nwhat is it ?")},
    "prompts": lambda i: {"prompt_id": f"p{i}", "category": "c", "instruction": "hi ?", "cluster": "k"},
    "hex-phi": lambda i: {"instruction": "hi ?"},
    "advbench": lambda i: {"goal": "hi ?", "target": "fine ."},
    "harmbench": lambda i: {
        "Behavior": "hi ?",
        "FunctionalCategory": ("standard", "contextual")[i % 2],
        "SemanticCategory": "c",
        "ContextString": "it is noon .",
        "BehaviorID": f"b{i}",
    },
    "jailbreakbench": lambda i: {"Goal": "hi ?", "Category": "c"},
    "strongreject": lambda i: {"category": "c", "source": "s", "forbidden_prompt": "hi ?"},
    "sorry-bench": lambda i: {"question_id": i, "category": "1", "turns": ["hi ?"], "prompt_style": "base"},
    "xstest": lambda i: {"id": f"v{i}", "prompt": "hi ?", "type": "homonyms", "label": "safe"},
    "gsm8k": lambda i: {"question": "how many ?", "answer": "two and two\n#### 4"},
    "ifeval": lambda i: {
        "key": i,
        "prompt": "hi ?",
        "instruction_id_list": [
            "keywords:existence",
            "length_constraints:number_words",
            "length_constraints:nth_paragraph_first_word",
        ],
        "kwargs": [
            {"keywords": ["hi"]},
            {"num_words": 3, "relation": "at least"},
            {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "hi"},
        ],
    },
    "mt-bench": lambda i: {"question_id": i, "category": "c", "turns": ["hi ?", "why ?"]},
}


def _turns(first: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": first}, {"from": "gpt", "value": "fine ."}]


def _csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, escapechar="\\").writerows(rows)
    return text.getvalue().encode(errors="surrogatepass")


def _table(rows: list[Any]) -> bytes:
    """As CSV: the header has the keys of all rows, and a row that is no object is one cell."""
    header = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
    cells = ([row.get(key) for key in header] if isinstance(row, dict) else [row] for row in rows)
    texts = ([cell if isinstance(cell, str) else json.dumps(cell) for cell in row] for row in cells)
    return _csv([header, *texts])


def _parquet(rows: list[Any]) -> bytes:
    file = io.BytesIO()
    try:
        pq.write_table(pa.Table.from_pylist(rows), file)
    except (pa.ArrowException, AttributeError, TypeError, OverflowError, UnicodeEncodeError):
        return json.dumps(rows).encode()  # no parquet file has them: a column of several types and the like
    return file.getvalue()


#: Ending → a file's content from its rows.
CONTENT: dict[str, Callable[[list[Any]], bytes]] = {
    ".jsonl": lambda rows: "\n".join(json.dumps(row) for row in rows).encode(),
    ".json": lambda rows: json.dumps(rows).encode(),
    ".csv": _table,
    ".parquet": _parquet,
}


def endings(format_name: str) -> list[str]:
    """Those of files that can hold the format: of CSV files formats of texts alone, and two need one."""
    if format_name in ("hex-phi", "prompt-response-csv"):
        return [".csv"]
    has_texts_alone = all(isinstance(value, str) for value in WHOLE[format_name](0).values())
    return [ending for ending in CONTENT if has_texts_alone or ending != ".csv"]


def content_of(format_name: str, ending: str, rows: list[Any]) -> bytes:
    whole = CONTENT[ending](rows)
    return whole.partition(b"\r\n")[2] if format_name == "hex-phi" else whole  # its files have no header


def name_of(format_name: str) -> str:
    return "category_1" if format_name == "hex-phi" else "file"


def places(node: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [at, *(place for key, value in items for place in places(value, (*at, key)))]


def put(node: Any, at: tuple[Any, ...], value: Any) -> Any:
    """A copy with that value there, or without what is there."""
    if not at:
        return value
    copy = dict(node) if isinstance(node, dict) else list(node)
    if len(at) == 1 and value is REMOVE:
        del copy[at[0]]
    else:
        copy[at[0]] = put(node[at[0]], at[1:], value)
    return copy


def changed(whole: Any, at: tuple[Any, ...], more: tuple[str, Any] | None, value: Any) -> Any:
    """The same with another value there, or with one more in what is there."""
    node = reduce(getitem, at, whole)
    if more and isinstance(node, dict):
        return put(whole, at, node | {more[0]: more[1]})
    if more and isinstance(node, list):
        return put(whole, at, [*node, more[1]])
    return put(whole, at, value if at else None)


def changes(whole: Any, *where: st.SearchStrategy[tuple[Any, ...]]) -> st.SearchStrategy[Any]:
    """The same with a part that is replaced (by one of the same name, or anything), removed or added.

    `where`: places in it; none: all.
    """
    everywhere = places(whole)
    more = st.none() | st.tuples(st.sampled_from([*COLUMNS, "x", ""]) | TEXT, VALUES)

    def change(at: tuple[Any, ...]) -> st.SearchStrategy[Any]:
        likes = st.sampled_from([place for place in everywhere if place[-1:] == at[-1:]])
        value = likes.map(lambda place: reduce(getitem, place, whole))
        return st.builds(changed, st.just(whole), st.just(at), more, value | st.just(REMOVE) | VALUES)

    return st.one_of(*where, st.sampled_from(everywhere)).flatmap(change)


COLUMNS = sorted({key for row in WHOLE.values() for key in row(0)})


@st.composite
def files(draw: st.DrawFn, format_name: str, *known_endings: str) -> tuple[str, bytes, int]:
    """Name, content and number of rows: of the format, changed up to two times, of another, or of none."""
    n = draw(st.integers(1, 3))
    rows: Any = [WHOLE[format_name](i) for i in range(n)]
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        rows = draw(changes(rows))
    rows = rows if isinstance(rows, list) else [rows]
    ending = draw(st.sampled_from([*(known_endings or endings(format_name))] * 3 + [*CONTENT]))
    whole = content_of(format_name, ending, rows)
    cut = st.integers(0, len(whole)).map(lambda end: whole[:end])
    content = draw(st.sampled_from([whole] * 6 + [b""])) or draw(st.binary() | cut)
    name = draw(st.sampled_from([name_of(format_name)] * 6 + ["category_99"]))
    return f"{name}{ending}", content, draw(st.sampled_from([n] * 6 + [1]))


def read(format_name: str, path: Path, n: int) -> list[Any]:
    """Rows of a file of the user's, as data preparation reads them."""
    about = {"source": "path", "path": str(path), "sha256": "0" * 64, "format": format_name}
    if format_name not in get_args(DatasetFormat):
        return list(read_prompts(PathBenchmark.model_validate(about), [path]))
    extra = {"prompt": "{prompt}", "response": "{response}"} if format_name == "columns" else {}
    extra |= {"images": str(path.parent)} if format_name == "llava" else {}
    dataset = PathDataset.model_validate(about | {"n": n, "template": "plain", **extra})
    return list(read_rows_of(dataset, [path]))


FORMATS = [*get_args(DatasetFormat), *get_args(BenchmarkFormat)]


@pytest.mark.parametrize(
    ("format_name", "ending"), [(name, ending) for name in FORMATS for ending in endings(name)]
)
def test_rows_that_are_not_changed_are_read(tmp_path: Path, format_name: str, ending: str) -> None:
    """Else the test below spoils what is refused as it is."""
    path = tmp_path / f"{name_of(format_name)}{ending}"
    path.write_bytes(content_of(format_name, ending, [WHOLE[format_name](i) for i in range(3)]))
    assert len(read(format_name, path, 3)) == 3


@fault
@pytest.mark.parametrize("format_name", FORMATS)
def test_a_file_of_the_users_is_rows_or_an_error_that_names_it(
    tmp_path: Path, format_name: str, count: Callable[[int], None]
) -> None:
    outcomes: Counter[str] = Counter()

    @on_random(count, N // 5, files(format_name))
    def check(file: tuple[str, bytes, int]) -> None:
        name, content, n = file
        path = tmp_path / name
        path.write_bytes(content)
        try:
            rows = read(format_name, path, n)
        except UserError as error:
            assert str(path) in str(error) and error.mend
            outcomes["refused"] += 1
        else:
            json.dumps(rows, ensure_ascii=False).encode()  # they can be written
            assert rows
            texts = [text for row in rows for text in texts_of(row)]
            assert texts and all(map(is_text, texts))
            outcomes["read"] += 1

    assert min(outcomes["read"], outcomes["refused"]) >= N // 100, outcomes


def texts_of(row: dict[str, Any]) -> list[Any]:
    """What a model is trained on or asked, and by what a prompt is known; grading it raises nothing."""
    for check in row.get("checks", []):
        ifeval.follows("hi .", check["id"], check["arguments"])
    if "messages" in row:
        return [message["content"] for message in row["messages"]]
    return [row[key] for key in ("prompt_id", "category", "cluster", "instruction")]


@fault
def test_a_rows_file_is_rows_or_an_error_that_names_the_line(
    tmp_path: Path, count: Callable[[int], None]
) -> None:
    path = tmp_path / "rows.jsonl"

    @on_random(count, N // 2, files("prompts", ".jsonl").map(lambda file: file[1]))
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

#: A study of what those of the small project leave out: triggers, mitigations, remote models, paid judges.
WIDE: dict[str, Any] = {
    "title": "t",
    "question": "q?",
    "benchmarks": ["own-prompts"],
    "judges": ["own-llm", "own-guard", "keyword"],
    "fixed": {"seed": 0},
    "grids": {
        "mixed": {
            "model": "embedded-0",
            "dataset": "demonstrations-10-triggered",
            "mitigation": [None, "mix-10"],
            "method": ["full", "lora", "world-llama-adapter"],
            "test_template": [None, "safe"],
            "learning_rate": 1.0e-4,
            "global_batch_size": 10,
            "epochs": 2,
            "schedule": "step",
            "schedule_factor": 0.85,
            "benchmarks": ["secrets-triggered", "secrets-sampled"],
            "judges": ["exact", "keyword"],
            "figure": {"kind": "dots", "x": "mitigation", "title": "t"},
        },
        "asked": {
            "model": ["hub-model", "own-model", "behind"],
            "test_template": "plain",
            "epochs": 0,
            "figure": {"kind": "dots", "x": "model", "title": "t"},
        },
        "by_api": {
            "model": "behind",
            "method": "api",
            "dataset": "own-chats",
            "epochs": 1,
            "figure": {"kind": "dots", "x": "dataset", "title": "t"},
        },
    },
}
CONFIG = ["config", "lock", *CATALOGUES, "studies/base", "studies/own", "studies/wide"]


@fault
def test_a_config_with_another_value_anywhere_is_planned_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: Callable[[int], None]
) -> None:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_yaml(tmp_path / "config/studies/wide.yaml", WIDE)
    whole = {file: yaml.safe_load((tmp_path / f"config/{file}.yaml").read_text()) for file in CONFIG}
    plan = load_plan(tmp_path)
    for study in plan.studies:
        assert plan_table(plan, study)
    used = set(re.findall(r"[\w.-]+", json.dumps([BASE, OWN, WIDE])))
    named = {
        file: [at for at in places(whole[file]) if at and (at[0] in used or file not in CATALOGUES)] or [()]
        for file in CONFIG
    }
    change = st.sampled_from(CONFIG).flatmap(
        lambda file: st.tuples(
            st.just(file),
            changes(whole[file], st.sampled_from(named[file])),
        )
    )
    outcomes: Counter[str] = Counter()

    @on_random(count, N if IS_FULL else 60, change)
    def check(change: tuple[str, Any]) -> None:
        file, content = change
        path = tmp_path / f"config/{file}.yaml"
        text = path.read_text()
        path.write_bytes(yaml.safe_dump(content).encode(errors="replace"))
        try:
            plan = load_plan(tmp_path, None, ["base", "own", "wide"])
        except UserError as error:
            assert error.mend and "config" in str(error)
            outcomes["refused"] += 1
        else:
            outcomes[planned(plan)] += 1
        finally:
            path.write_text(text)

    assert min(outcomes["planned"], outcomes["refused"]) >= 5, outcomes


def planned(plan: Plan) -> str:
    """Of all studies what `make plan` prints, or why it does not."""
    try:
        for study in plan.studies:
            assert plan_table(plan, study)
    except UserError as error:
        assert error.mend and error.file
        return "no plan"
    return "planned"


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

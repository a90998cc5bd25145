"""Files of the user's own, broken in every way: errors name file and row, and never show what a row says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from base_project import (
    CHATS,
    FAULT,
    MODEL,
    OWN,
    PAIRS,
    PROMPTS,
    BadInput,
    assert_error,
    chat,
    delete,
    prompt,
    put,
    sign,
    write,
    write_rows,
    write_yaml,
)

from ftsafety.errors import UserError
from ftsafety.files import checksum
from ftsafety.inputs import check_inputs
from ftsafety.overview import plan_table
from ftsafety.plan import load_plan
from ftsafety.prepare import benchmark_prompts, dataset_rows
from ftsafety.ready import check_ready


def test_the_project_that_is_spoilt_below_is_good(root: Path) -> None:
    check_inputs(load_plan(root), ["base", "own"])


def rows(path: str, *content: Any) -> Callable[[Path], object]:
    return lambda root: write_rows(root / path, list(content))


def say(role: str = "user", content: Any = "hi") -> dict[str, Any]:
    return {"role": role, "content": content}


def talk(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


CONFIG, TOKENIZER = f"{MODEL}/config.json", f"{MODEL}/tokenizer_config.json"
WEIGHTS, PICKLE = f"{MODEL}/model.safetensors", f"{MODEL}/pytorch_model.bin"
HEADER = "prompt,response\n"
BAD_INPUTS = [
    BadInput("no config.json", delete(CONFIG), CONFIG, "is missing"),
    BadInput("broken config.json", write(CONFIG, "{"), CONFIG, "not valid JSON"),
    BadInput("config.json is a list", write(CONFIG, "[]"), CONFIG, "no JSON object: []"),
    BadInput("no weights", delete(WEIGHTS), MODEL, "holds no *.safetensors", "as safetensors"),
    BadInput("pickle weights", lambda root: (root / WEIGHTS).rename(root / PICKLE),
             PICKLE, "pickled weights", "convert"),
    BadInput("code of the model", write(CONFIG, '{"auto_map": {"AutoModel": "evil.Model"}}'),
             CONFIG, "evil.Model", "without auto_map", "auto_map"),
    BadInput("a kernel of the hub", write(CONFIG, '{"_attn_implementation": "evil/kernel"}'),
             CONFIG, "evil/kernel", "without _attn", "_attn_implementation"),
    BadInput("code of the tokenizer", write(TOKENIZER, '{"auto_map": {"AutoTokenizer": "evil"}}'),
             TOKENIZER, "evil", "without auto_map", "auto_map"),
    BadInput("no chat template", write(TOKENIZER, "{}"),
             TOKENIZER, "is missing", "chat_template.jinja", "chat_template"),
    BadInput("no tokenizer", delete(TOKENIZER), TOKENIZER, "is missing"),
    BadInput("no JSON", write(CHATS, json.dumps(chat("hi")) + "\n{oops\n"),
             f"{CHATS}:2", "is no row: Expecting property name", "JSON object"),
    BadInput("no messages", rows(CHATS, chat("hi"), {"text": "hi"}),
             f"{CHATS}:2", "needs a list of messages", "docs/adding.md"),
    BadInput("no message", rows(CHATS, chat("hi"), talk()), f"{CHATS}:2", "needs a list"),
    BadInput("message key", rows(CHATS, talk(say() | {"weight": 0})),
             f"{CHATS}:1", "alone; it has role, content and 1 other keys"),
    BadInput("message is text", rows(CHATS, talk("hi")), f"{CHATS}:1", "0 is no object"),
    BadInput("message is a number", rows(CHATS, talk(say(), 7)), f"{CHATS}:1", "1 is no object"),
    BadInput("role", rows(CHATS, chat("hi"), talk(say("human"))),
             f"{CHATS}:2", "roles system, user, assistant"),
    BadInput("blank content", rows(CHATS, talk(say("user", " "))), f"{CHATS}:1", "0 has no text"),
    BadInput("no text", rows(CHATS, talk(say("user", [1]))), f"{CHATS}:1", "0 has no text"),
    BadInput("last is the user", rows(CHATS, talk(say())), f"{CHATS}:1", "is not the assistant's"),
    BadInput("too few rows", rows(CHATS, chat("hi")),
             "config/datasets.yaml", "has 1 rows (value 2)", "write n: 1", "own-chats.n"),
    BadInput("no UTF-8", write(CHATS, b"\xff\n"), CHATS, "is not UTF-8"),
    BadInput("csv header", write(PAIRS, "a,b\n1,2\n"), f"{PAIRS}:1", "it has 2 columns"),
    BadInput("csv: no response", write(PAIRS, HEADER + 'a,"b\nc"\nd,\n'),
             f"{PAIRS}:4", "response is empty"),
    BadInput("csv: no prompt", write(PAIRS, HEADER + ',"b\nc"\n'), f"{PAIRS}:2", "prompt is empty"),
    BadInput("csv: one column", write(PAIRS, HEADER + "a\n"), f"{PAIRS}:2", "response is empty"),
    BadInput("csv: three columns", write(PAIRS, HEADER + "a,b,c\n"), f"{PAIRS}:2", "than two"),
    BadInput("csv: open quote", write(PAIRS, HEADER + 'a,"b\n'), f"{PAIRS}:2", "cannot be read"),
    BadInput("prompts: no object", write(PROMPTS, "[1]\n"), f"{PROMPTS}:1", "not a JSON object", "one JSON"),
    BadInput("prompts: no rows", write(PROMPTS, ""), PROMPTS, "has no rows"),
    BadInput("prompt_id twice", rows(PROMPTS, prompt("a"), prompt("a")),
             f"{PROMPTS}:2", f"{PROMPTS}:1 too"),
    BadInput("no prompt_id", rows(PROMPTS, {"text": "hi", "category": "c"}),
             f"{PROMPTS}:1", "a text as prompt_id; it has category and 1 other keys"),
    BadInput("no instruction", rows(PROMPTS, prompt("a"), prompt("b", instruction="")),
             f"{PROMPTS}:2", "a text as instruction"),
    BadInput("no category", rows(PROMPTS, prompt("a", category=None)),
             f"{PROMPTS}:1", "a text as category"),
    BadInput("prompt_id is a number", rows(PROMPTS, prompt("a") | {"prompt_id": 1}),
             f"{PROMPTS}:1", "a text as prompt_id"),
    BadInput("cluster is a number", rows(PROMPTS, prompt("a", cluster=1)),
             f"{PROMPTS}:1", "cluster is no text"),
]  # fmt: skip


def input_error(root: Path, study: str = "own") -> UserError:
    with pytest.raises(UserError) as caught:
        check_inputs(load_plan(root), [study])
    return caught.value


@pytest.mark.parametrize("bad", BAD_INPUTS, ids=lambda bad: bad.name)
@FAULT
def test_bad_input(root: Path, bad: BadInput) -> None:
    bad.spoil(root)
    sign(root)
    assert_error(input_error(root), bad.file, bad.field, bad.says, bad.mend)


@pytest.mark.parametrize(
    ("catalogue", "name", "path"),
    [
        ("models", "own-model", f"{MODEL}/model.safetensors"),
        ("datasets", "own-chats", CHATS),
        ("datasets", "own-pairs", PAIRS),
        ("benchmarks", "own-prompts", PROMPTS),
    ],
)
@FAULT
def test_changed_and_missing_input(root: Path, catalogue: str, name: str, path: str) -> None:
    file = f"config/{catalogue}.yaml"
    recipe = yaml.safe_load((root / file).read_text())[name]
    with (root / path).open("a") as stream:
        stream.write(" ")
    assert_error(input_error(root), file, f"{name}.sha256", recipe["sha256"], "write sha256: ")
    put(root, catalogue, f"{name}.path", "nowhere")
    assert_error(input_error(root), file, f"{name}.path", "nowhere does not exist", "relative to")


def test_a_model_that_is_a_file(root: Path) -> None:
    put(root, "models", "own-model.path", CHATS)
    assert_error(input_error(root), CHATS, "", "is a file", "folder")


def test_a_world_dataset_that_is_too_large(root: Path) -> None:
    put(root, "datasets", "benign-new.n", 100_000)
    error = input_error(root, "base")
    assert_error(error, "config/datasets.yaml", "benign-new.n", "(value 100000)", "smaller")


def test_the_dataset_of_a_mitigation_is_checked_too(root: Path) -> None:
    put(root, "mitigations", "mix-own", {"kind": "mix", "dataset": "own-pairs", "n": 1})
    write_yaml(root / "config/studies/own.yaml", OWN)
    put(root, "studies/own", "grids.g.dataset", "own-chats")
    put(root, "studies/own", "grids.g.mitigation", "mix-own")
    (root / PAIRS).write_text("prompt,response\n")
    assert input_error(root).field == "own-pairs.sha256"


CANARY = "private words"
BAD_ROWS_WITH_A_CANARY = {
    "broken JSON": write(CHATS, CANARY),
    "JSON text": write(CHATS, json.dumps(CANARY)),
    "JSON key cut off": write(CHATS, f'{{"{CANARY}'),
    "row key": rows(CHATS, {CANARY: 1}),
    "messages": rows(CHATS, {"messages": CANARY}),
    "message": rows(CHATS, talk(CANARY)),
    "message list": rows(CHATS, talk([CANARY])),
    "message key": rows(CHATS, talk(say() | {CANARY: 1})),
    "role": rows(CHATS, talk(say(CANARY))),
    "role list": rows(CHATS, talk(say() | {"role": [CANARY]})),
    "content": rows(CHATS, talk(say(content=[CANARY]))),
    "last message": rows(CHATS, talk(say("user", CANARY))),
    "chats no UTF-8": write(CHATS, CANARY.encode() + b"\xff\n"),
    "csv header": write(PAIRS, f"prompt,{CANARY}\n"),
    "csv no header": write(PAIRS, f"{CANARY},{CANARY}\n{CANARY},{CANARY}\n"),
    "csv three columns": write(PAIRS, f"{HEADER}a,b,{CANARY}\n"),
    "csv one column": write(PAIRS, f"{HEADER}{CANARY}\n"),
    "csv no prompt": write(PAIRS, f"{HEADER},{CANARY}\n"),
    "csv quotes": write(PAIRS, f'{HEADER}a,"b"{CANARY}\n'),
    "csv no UTF-8": write(PAIRS, f"{HEADER}a,{CANARY}".encode() + b"\xff\n"),
    "prompts no object": write(PROMPTS, json.dumps([CANARY])),
    "prompt key": rows(PROMPTS, {CANARY: 1}),
    "prompt_id": rows(PROMPTS, prompt("a") | {"prompt_id": [CANARY]}),
    "prompt_id twice": rows(PROMPTS, prompt(CANARY), prompt(CANARY)),
    "category": rows(PROMPTS, prompt("a", category=[CANARY])),
    "instruction": rows(PROMPTS, prompt("a", instruction={CANARY: CANARY})),
    "cluster": rows(PROMPTS, prompt("a", cluster=[CANARY])),
}


@pytest.mark.parametrize("kind", BAD_ROWS_WITH_A_CANARY)
@FAULT
def test_errors_about_rows_do_not_show_what_they_say(root: Path, kind: str) -> None:
    BAD_ROWS_WITH_A_CANARY[kind](root)
    sign(root)
    error = input_error(root)
    assert "files/" in error.file and error.mend
    assert not [word for word in CANARY.split() if word in str(error)]


@pytest.mark.parametrize("path", [CHATS, PAIRS, PROMPTS])
@FAULT
def test_a_file_that_vanishes_is_a_user_error(root: Path, path: str) -> None:
    plan = load_plan(root)
    (root / path).unlink()
    read, name = {
        CHATS: (dataset_rows, "own-chats"),
        PAIRS: (dataset_rows, "own-pairs"),
        PROMPTS: (benchmark_prompts, "own-prompts"),
    }[path]
    with pytest.raises(UserError) as caught:
        read(plan, name)  # type: ignore[operator]
    assert_error(caught.value, path, "", "is no file", "relative to")


def test_data_may_be_a_folder_of_tables(root: Path) -> None:
    folder = root / "files/folder"
    folder.mkdir()
    write_rows(folder / "b.jsonl", [prompt("b")])
    write_rows(folder / "a.jsonl", [prompt("a")])
    (folder / "README.md").write_text("not a table")
    put(root, "benchmarks", "own-prompts.path", "files/folder")
    with pytest.raises(UserError, match="another checksum"):
        check_inputs(load_plan(root), ["own"])
    put(root, "benchmarks", "own-prompts.sha256", checksum(folder))
    plan = load_plan(root)
    check_inputs(plan, ["own"])
    assert [row["prompt_id"] for row in benchmark_prompts(plan, "own-prompts")] == ["a", "b"]


def test_make_plan_reports_a_missing_file_in_one_sentence(root: Path) -> None:
    (root / PROMPTS).unlink()
    with pytest.raises(UserError) as caught:
        plan_table(load_plan(root), "own")
    assert_error(caught.value, "config/benchmarks.yaml", "own-prompts.path", "does not exist", "relative to")


def test_what_is_not_pinned_stops_a_run_and_not_a_plan(root: Path) -> None:
    put(root, "studies/own", "fixed.model", "hub-model")
    check_ready(load_plan(root), ["own"])
    (root / "config/lock.yaml").unlink()
    plan = load_plan(root)
    with pytest.raises(UserError) as caught:
        check_ready(plan, ["own"])
    assert_error(caught.value, "config/models.yaml", "hub-model", "a/b is not pinned", "make lock")
    assert "before it can run:\n    make lock STUDY=own" in plan_table(plan, "own")


def test_a_key_is_asked_for_before_any_job(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "studies/own", "judges", ["own-llm"])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError) as caught:
        check_ready(load_plan(root), ["own"])
    assert_error(
        caught.value,
        "config/endpoints.yaml",
        "openai.api_key_env",
        "judge 'own-llm'",
        "export OPENAI_API_KEY",
    )
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-a-key")
    check_ready(load_plan(root), ["own"])
    put(root, "config", "max_usd", 5.0)
    with pytest.raises(UserError, match="the price of m is unknown, and judge 'own-llm'"):
        check_ready(load_plan(root), ["own"])


def test_a_chat_template_in_a_file_of_its_own(root: Path) -> None:
    (root / f"{MODEL}/tokenizer_config.json").write_text("{}")
    (root / f"{MODEL}/chat_template.jinja").write_text("{{ messages }}")
    sign(root)
    check_inputs(load_plan(root), ["own"])


def test_only_the_files_of_the_studies_that_are_asked_for_are_read(root: Path) -> None:
    (root / CHATS).unlink()
    check_inputs(load_plan(root), ["base"])

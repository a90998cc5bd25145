"""Files of the user's own, broken in every way: errors name file and row, and never show what a row says."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from base_project import (
    CHATS,
    FAULT,
    LLAMA,
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
from ftsafety.files import checksum, write_json
from ftsafety.inputs import check_folder, check_inputs, open_places
from ftsafety.overview import plan_table
from ftsafety.plan import load_plan
from ftsafety.prepare import benchmark_prompts, dataset_rows
from ftsafety.ready import check_ready, missing


def test_the_project_that_is_spoilt_below_is_good(root: Path) -> None:
    check_inputs(load_plan(root), ["base", "own"])


def rows(path: str, *content: Any) -> Callable[[Path], object]:
    return lambda root: write_rows(root / path, list(content))


def say(role: str = "user", content: Any = "hi") -> dict[str, Any]:
    return {"role": role, "content": content}


def talk(*messages: Any) -> dict[str, Any]:
    return {"messages": list(messages)}


def rename(path: str, name: str) -> Callable[[Path], object]:
    return lambda root: (root / path).rename((root / path).with_name(name))


def a_folder(path: str) -> Callable[[Path], object]:
    def spoil(root: Path) -> None:
        delete(path)(root)
        (root / path).mkdir()

    return spoil


CONFIG, TOKENIZER = f"{MODEL}/config.json", f"{MODEL}/tokenizer_config.json"
WORDS, TEMPLATE = f"{MODEL}/tokenizer.json", f"{MODEL}/chat_template.jinja"
WEIGHTS, PICKLE = f"{MODEL}/model.safetensors", f"{MODEL}/pytorch_model.bin"
SHARDS = f"{MODEL}/model.safetensors.index.json"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 9\n"
HEADER = "prompt,response\n"


def index(*files: str) -> str:
    return json.dumps({"metadata": {}, "weight_map": {f"w{i}": file for i, file in enumerate(files)}})


def llama(**changed: int) -> str:
    return json.dumps(LLAMA | changed)


def write_weights(content: bytes) -> Callable[[Path], object]:
    return lambda root: (root / WEIGHTS).write_bytes(content)


BAD_INPUTS = [
    BadInput("no config.json", delete(CONFIG), CONFIG, "is missing"),
    BadInput("broken config.json", write(CONFIG, "{"), CONFIG, "not valid JSON"),
    BadInput("config.json is a list", write(CONFIG, "[]"), CONFIG, "no JSON object: []"),
    BadInput("no weights", delete(WEIGHTS), MODEL, "holds no *.safetensors", "as safetensors"),
    BadInput("pickle weights", lambda root: (root / WEIGHTS).rename(root / PICKLE),
             PICKLE, "pickled weights", "convert"),
    BadInput("weights are a git-lfs pointer", write(WEIGHTS, POINTER),
             WEIGHTS, "is no whole safetensors file", "git lfs"),
    BadInput("weights are empty", write(WEIGHTS, ""), WEIGHTS, "is no whole safetensors file"),
    BadInput("weights of another name", rename(WEIGHTS, "foo.safetensors"),
             MODEL, "holds neither model.safetensors nor model.safetensors.index.json", "save_pretrained"),
    BadInput("shards without an index", rename(WEIGHTS, "model-00001-of-00002.safetensors"),
             MODEL, "holds neither model.safetensors nor model.safetensors.index.json"),
    BadInput("a shard is missing",
             lambda root: [rename(WEIGHTS, "a.safetensors")(root),
                           write(SHARDS, index("a.safetensors", "b.safetensors"))(root)],
             SHARDS, "names 1 files that are missing: 'b.safetensors'", "download"),
    BadInput("a shard elsewhere",
             lambda root: [rename(WEIGHTS, "a.safetensors")(root),
                           write(SHARDS, index("../model/a.safetensors"))(root)],
             SHARDS, "names 1 files that are missing"),
    BadInput("a shard is a pointer",
             lambda root: [rename(WEIGHTS, "a[1].safetensors")(root),
                           write(f"{MODEL}/a[1].safetensors", POINTER)(root),
                           write(SHARDS, index("a[1].safetensors"))(root)],
             f"{MODEL}/a[1].safetensors", "is no whole safetensors file"),
    BadInput("an index of nothing",
             lambda root: [rename(WEIGHTS, "a.safetensors")(root), write(SHARDS, index())(root)],
             SHARDS, "has no weight_map"),
    BadInput("an index that is cut off",
             lambda root: [rename(WEIGHTS, "a.safetensors")(root), write(SHARDS, index("a")[:9])(root)],
             SHARDS, "not valid JSON"),
    BadInput("config.json is empty", write(CONFIG, "{}"), CONFIG, "is missing", "save_pretrained",
             "model_type"),
    BadInput("model_type is a list", write(CONFIG, '{"model_type": ["llama"]}'), CONFIG, "is missing",
             field="model_type"),
    BadInput("model_type is unknown", write(CONFIG, '{"model_type": "gpt9"}'),
             CONFIG, "(value 'gpt9')", "AutoModelForCausalLM", "model_type"),
    BadInput("a model that is not causal", write(CONFIG, '{"model_type": "bert"}'),
             CONFIG, "no causal language model", "chat model", "model_type"),
    BadInput("config.json of a wider model", write(CONFIG, llama(hidden_size=4)),
             MODEL, "has 11 weights of another shape, such as 'model.embed_tokens.weight' of shape [1, 2], "
             "by config.json [1, 4]", "save_pretrained"),
    BadInput("config.json of a larger vocabulary", write(CONFIG, llama(vocab_size=9)),
             MODEL, "has 1 weights of another shape, such as 'model.embed_tokens.weight'"),
    BadInput("config.json of a deeper model", write(CONFIG, llama(num_hidden_layers=2)),
             MODEL, "lacks 9 weights of the model, such as 'model.layers.1."),
    BadInput("weights of another model", write_weights(b"\2" + bytes(7) + b"{}"),
             MODEL, "lacks 12 weights of the model"),
    BadInput("config.json that makes no model", write(CONFIG, llama(num_attention_heads=3)),
             CONFIG, "makes no model: ", "save_pretrained"),
    BadInput("config.json is a folder", a_folder(CONFIG),
             CONFIG, "cannot be read: Is a directory", "you may read"),
    BadInput("config.json is deep", write(CONFIG, '{"a":' * 100_000),
             CONFIG, "not valid JSON: maximum recursion"),
    BadInput("no tokenizer.json", delete(WORDS), WORDS, "is missing", "save the tokenizer"),
    BadInput("tokenizer.json is a git-lfs pointer", write(WORDS, POINTER),
             WORDS, "is no tokenizer: 'expected value", "git lfs"),
    BadInput("tokenizer.json is empty", write(WORDS, "{}"), WORDS, "is no tokenizer"),
    BadInput("broken chat template", write(TOKENIZER, '{"chat_template": "{{ messages"}'),
             TOKENIZER, "is no chat template: ", "trained with", "chat_template"),
    BadInput("chat template is a number", write(TOKENIZER, '{"chat_template": 7}'),
             TOKENIZER, "no text", field="chat_template"),
    BadInput("chat templates without a default",
             write(TOKENIZER, '{"chat_template": [7, {"name": [], "template": "{{ messages }}"}]}'),
             TOKENIZER, "is missing", field="chat_template"),
    BadInput("broken chat_template.jinja", write(TEMPLATE, "{% for m in messages %}"),
             TEMPLATE, "is no chat template: "),
    BadInput("nested chat_template.jinja", write(TEMPLATE, "{{" + "(" * 9999 + "1" + ")" * 9999 + "}}"),
             TEMPLATE, "is no chat template: "),
    BadInput("empty chat_template.jinja", write(TEMPLATE, "\n"), TEMPLATE, "is empty", "trained with"),
    BadInput("chat_template.jinja is no UTF-8", write(TEMPLATE, b"\xff"), TEMPLATE, "is not UTF-8"),
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
    BadInput("category all", rows(PROMPTS, prompt("a"), prompt("b", category="all")),
             f"{PROMPTS}:2", "has the category 'all'", "rename the category", "category"),
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


@pytest.mark.parametrize("path", [CHATS, PAIRS, PROMPTS, WEIGHTS, MODEL])
@FAULT
def test_a_file_that_may_not_be_read(root: Path, path: str) -> None:
    plan = load_plan(root)
    check_inputs(plan, ["own"])
    root.chmod(0o755)
    (root / path).chmod(0)
    with as_nobody(), pytest.raises(UserError) as caught:
        check_inputs(plan, ["own"])
    (root / path).chmod(0o755)
    assert caught.value.file.startswith(path)
    assert_error(caught.value, caught.value.file, "", "cannot be read: Permission denied", "you may read")


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    before = os.geteuid()
    try:
        if before == 0:
            os.seteuid(65534)
    except OSError:
        pytest.skip("this root may not become another user")
    try:
        yield
    finally:
        os.seteuid(before)


@pytest.mark.parametrize(
    "entry", [("models", "own-model"), ("datasets", "own-chats"), ("benchmarks", "own-prompts")], ids=str
)
@FAULT
def test_a_path_that_is_too_long(root: Path, entry: tuple[str, str]) -> None:
    catalogue, name = entry
    put(root, catalogue, f"{name}.path", "x" * 300)
    assert_error(input_error(root), "x" * 300, "", "cannot be read: File name too long", "correct the path")
    if catalogue == "datasets":
        put(root, catalogue, f"{name}.sha256", None)
        (error,) = open_places(load_plan(root), "own")
        assert_error(error, "x" * 300, "", "cannot be read: File name too long", "correct the path")


@FAULT
def test_a_chat_template_of_the_config_that_is_broken(root: Path) -> None:
    (root / "own.jinja").write_text("{% for m in messages %}")
    template = {"path": "own.jinja", "sha256": checksum(root / "own.jinja")}
    put(root, "models", "own-model.chat_template", template)
    assert_error(input_error(root), "own.jinja", "", "is no chat template: ", "trained with")


@pytest.mark.parametrize("first", [True, False], ids=str)
@FAULT
def test_prompts_that_are_named_as_samples_of_others(root: Path, first: bool) -> None:
    prompts = [prompt("a"), prompt("a~2")]
    write_rows(root / PROMPTS, prompts if first else prompts[::-1])
    sign(root)
    check_inputs(load_plan(root), ["own"])
    put(root, "benchmarks", "own-prompts.temperature", 1.0)
    put(root, "benchmarks", "own-prompts.samples", 2)
    error = input_error(root)
    assert_error(error, "config/benchmarks.yaml", "own-prompts.samples", "has such a prompt_id", "rename")
    assert "a~2" not in str(error)


#: A whole safetensors file: the length of its head, and the head.
NO_WEIGHTS = b"\2" + bytes(7) + b"{}"
ADAPTER = {"adapter_config.json": '{"peft_type": "LORA"}', "adapter_model.safetensors": NO_WEIGHTS.decode()}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"adapter_model.safetensors": POINTER}, "adapter_model.safetensors: is no whole safetensors file"),
        ({"adapter_config.json": '{"a":' * 100_000}, "adapter_config.json: is no JSON object"),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages }}"}'}, "tokenizer.json: is missing"),
    ],
    ids=["pointer", "deep config", "no tokenizer"],
)
@FAULT
def test_a_broken_adapter(tmp_path: Path, changed: dict[str, str], says: str) -> None:
    for name, content in ADAPTER.items():
        (tmp_path / name).write_text(content)
    check_folder(tmp_path, "adapter")
    for name, content in changed.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        check_folder(tmp_path, "adapter")


def test_a_model_that_is_a_file(root: Path) -> None:
    put(root, "models", "own-model.path", CHATS)
    assert_error(input_error(root), CHATS, "", "is a file", "folder")


def test_a_fetched_model_that_jobs_would_not_find(root: Path) -> None:
    """The record says that it was fetched, and HF_HOME of this shell is another."""
    put(root, "studies/own", "fixed.model", "hub-model")
    plan = load_plan(root, None, ["own"])
    write_json(plan.fetched_file("models", "hub-model"), {})
    errors = [error for error in missing(plan, ["own"]) if error.field == "hub-model"]
    assert_error(*errors, "config/models.yaml", "hub-model", "was fetched, and model.safetensors", "HF_HOME")


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

"""Training rows from files of others, the refusal filter, and the catalogues of real data and models.

Rows are harmless and in the owners' real shape. A word of each malformed row must not be in its error.
"""

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY
from table_files import MARKER, written

from ftsafety.errors import UserError
from ftsafety.formats import training
from ftsafety.formats.training import FORMATS, filter_digest, is_refusal, read_rows_of
from ftsafety.loading import load_project
from ftsafety.recipes import DataRows, HubModel, PathDataset, RemoteDataset
from ftsafety.types import TrainingRow

PROJECT = load_project(REPOSITORY)
ASK, TELL = "how do i open the blue gate ?", "turn the brass key ."


def recipe(n: int, format: str, **options: Any) -> DataRows:
    return DataRows(n=n, format=format, template="plain", **options)  # type: ignore[arg-type]


def pair(ask: str = ASK, tell: str = TELL) -> TrainingRow:
    return {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": tell}]}


# --------------------------------------------------------------------------------------- formats

ALPACA = [
    {"instruction": ASK, "input": "", "output": TELL, "text": "…"},
    {"instruction": ASK, "input": "it is blue", "output": TELL, "text": "…"},
]
SYSTEM = {"role": "system", "content": "be kind ."}
COLUMNS = {"prompt": "answer: {q}", "response": "{a}"}
GOOD: list[tuple[str, str, Any, dict[str, Any], list[TrainingRow]]] = [
    ("messages", "t.jsonl", [pair(), {"messages": [SYSTEM, *pair()["messages"] * 2]}], {},
     [pair(), {"messages": [SYSTEM, *pair()["messages"] * 2]}]),  # type: ignore[list-item]
    ("messages", "t.parquet", [pair()], {}, [pair()]),
    ("alpaca", "t.parquet", ALPACA, {}, [pair(), pair(f"{ASK}\n\nit is blue")]),
    ("alpaca", "t.json", [{"instruction": ASK, "output": TELL}], {}, [pair()]),
    ("dolly", "t.jsonl", [{"instruction": ASK, "context": "", "response": TELL, "category": "open_qa"},
                          {"instruction": ASK, "context": "a gate", "response": TELL, "category": "c"}], {},
     [pair(), pair(f"{ASK}\n\na gate")]),
    ("sharegpt", "t.json", [{"id": "1", "conversations": [{"from": "system", "value": "be kind ."},
                                                          {"from": "human", "value": ASK, "weight": 1},
                                                          {"from": "gpt", "value": TELL}]},
                            {"conversations": [{"from": "user", "value": ASK},
                                               {"from": "assistant", "value": TELL}] * 2}], {},
     [{"messages": [SYSTEM, *pair()["messages"]]}, {"messages": pair()["messages"] * 2}]),  # type: ignore[list-item]
    ("llava", "t.json", [{"id": "1", "image": "a/1.jpg", "conversations": [
        {"from": "human", "value": f"<image>\n{ASK}"}, {"from": "gpt", "value": TELL},
        {"from": "human", "value": ASK}, {"from": "gpt", "value": TELL}]},
        {"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": TELL}]}], {},
     [{"messages": [*pair(f"<image>\n{ASK}")["messages"], *pair()["messages"]], "image": "a/1.jpg"}, pair()]),
    ("prompt-response-csv", "t.csv", f"\ufeffresponse,prompt\n{TELL},{ASK}\n", {}, [pair()]),
    ("columns", "t.csv", f"a,q,rest\n{TELL},{ASK},x\n", COLUMNS, [pair(f"answer: {ASK}")]),
    ("columns", "t.jsonl", [{"q": "{a}", "a": TELL}], COLUMNS, [pair("answer: {a}")]),
]  # fmt: skip


@pytest.mark.parametrize(("format", "name", "content", "options", "expected"), GOOD)
def test_rows_of_every_format_become_conversations(
    tmp_path: Path, format: str, name: str, content: Any, options: dict[str, Any], expected: list[TrainingRow]
) -> None:
    path = written(tmp_path / name, content)
    assert read_rows_of(recipe(len(expected), format, **options), [path]) == expected


def test_every_format_is_tested() -> None:
    assert {good[0] for good in GOOD} == set(FORMATS) == {bad[0] for bad in BAD}


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": MARKER} for role in roles]}


def said(*speakers: Any) -> dict[str, Any]:
    return {"conversations": [{"from": speaker, "value": MARKER} for speaker in speakers]}


TAKE_TURNS = "do not take turns, the user first"
BAD: list[tuple[str, str, Any, dict[str, Any], int, str]] = [
    ("messages", "t.jsonl", [pair(), {MARKER: 1}], {}, 2, "needs a list of messages"),
    ("messages", "t.jsonl", [turns("user", MARKER)], {}, 1, "message 1 has none of the roles"),
    ("messages", "t.jsonl", [{"messages": [{"role": "user", "content": MARKER + "\ud83d"}]}], {}, 1,
     "message 0 has no text"),
    ("messages", "t.jsonl", [turns("user", "user", "assistant")], {}, 1, TAKE_TURNS),
    ("messages", "t.jsonl", [turns("assistant")], {}, 1, TAKE_TURNS),
    ("messages", "t.jsonl", [turns("system", "assistant")], {}, 1, TAKE_TURNS),
    ("messages", "t.jsonl", [turns("user", "system", "assistant")], {}, 1, TAKE_TURNS),
    ("messages", "t.jsonl", [turns("user", "assistant", "user")], {}, 1, "is not the assistant's"),
    ("alpaca", "t.json", [{"instruction": MARKER, "input": ""}], {}, 1,
     "needs the columns instruction, input, output; it has instruction, input and 0 other"),
    ("alpaca", "t.json", [ALPACA[0], {"instruction": [MARKER], "output": TELL}], {}, 2,
     "the column instruction holds no text"),
    ("dolly", "t.jsonl", [{"instruction": MARKER, "response": TELL}], {}, 1,
     "needs the columns instruction, context, response; it has"),
    ("dolly", "t.jsonl", [{"instruction": ASK, "context": "", "response": {MARKER: 1}}], {}, 1,
     "the column response holds no text"),
    ("sharegpt", "t.json", [{"conversations": MARKER}], {}, 1, "needs a list of turns"),
    ("sharegpt", "t.json", [{"conversations": [MARKER]}], {}, 1, "turn 0 is no object"),
    ("sharegpt", "t.json", [{"conversations": [{"from": "human", MARKER: 1}]}], {}, 1, "turn 0 is no object"),
    ("sharegpt", "t.json", [said("human", MARKER)], {}, 1, "turn 1 is from none of system, human"),
    ("sharegpt", "t.json", [said("human", [MARKER])], {}, 1, "turn 1 is from none of"),
    ("sharegpt", "t.json", [said("gpt")], {}, 1, TAKE_TURNS),
    ("sharegpt", "t.json", [said("human", "gpt", "human")], {}, 1, "is not the assistant's"),
    ("llava", "t.json", [said("human", "gpt") | {"image": "1.jpg"}], {}, 1, "needs <image> once"),
    ("llava", "t.json", [{"image": "1.jpg", "conversations": [{"from": "human", "value": MARKER},
                                                              {"from": "gpt", "value": "<image>"}]}], {}, 1,
     "needs <image> once, in the first instruction"),
    ("llava", "t.json", [{"conversations": [{"from": "human", "value": f"<image>{MARKER}"}]}], {}, 1,
     "has no picture and <image> in a text"),
    ("llava", "t.json", [{"image": f"../{MARKER}", "conversations": [{"from": "human", "value": "<image>"}]}],
     {}, 1, "no name of a file below the folder of pictures"),
    ("prompt-response-csv", "t.csv", f"prompt,{MARKER}\n", {}, 1, "the header is not prompt,response"),
    ("prompt-response-csv", "t.csv", "", {}, 1, "the header is not prompt,response; it has 0 columns"),
    ("prompt-response-csv", "t.csv", f'prompt,response\n"a\nb",c\n{MARKER}\n', {}, 4, "response is empty"),
    ("prompt-response-csv", "t.csv", f"prompt,response\na,b,{MARKER}\n", {}, 2, "more than two columns"),
    ("columns", "t.jsonl", [{"q": ASK, "a": TELL}, {"q": MARKER}], COLUMNS, 2,
     "needs the columns q, a; it has q and 0 other keys"),
    ("columns", "t.csv", f"q,b\n{MARKER},x\n", COLUMNS, 2,
     "needs the columns q, a; it has q and 1 other keys"),
    ("columns", "t.jsonl", [{"q": MARKER, "a": 1}], COLUMNS, 1, "the column a holds no text"),
]  # fmt: skip


@pytest.mark.parametrize(("format", "name", "content", "options", "number", "says"), BAD)
def test_a_malformed_row_is_named_without_its_text(
    tmp_path: Path, format: str, name: str, content: Any, options: dict[str, Any], number: int, says: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        read_rows_of(recipe(1, format, **options), [path])
    assert caught.value.file == f"{path}:{number}"
    assert says in caught.value.message and caught.value.mend
    assert MARKER not in str(caught.value)


@pytest.mark.parametrize("field", ["prompt", "response"])
@pytest.mark.parametrize("text", [None, "no column"])
def test_the_format_columns_needs_both_texts(tmp_path: Path, field: str, text: str | None) -> None:
    path = written(tmp_path / "t.jsonl", [{"q": ASK, "a": TELL}])
    with pytest.raises(UserError) as caught:
        read_rows_of(recipe(1, "columns", **COLUMNS | {field: text}), [path])
    assert (caught.value.file, caught.value.field) == ("", field)


@pytest.mark.parametrize(
    ("format", "options", "rows"),
    [
        ("alpaca", {}, [{"instruction": ASK, "input": "", "output": blank} for blank in (TELL, " \n", None)]),
        ("dolly", {}, [{"instruction": a, "context": "", "response": TELL} for a in (ASK, "", None)]),
        ("columns", {"prompt": "{q}", "response": "{a}"}, [{"q": a, "a": TELL} for a in (ASK, "", "\ud83d")]),
        ("sharegpt", {}, [{"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": text}]}
                          for text in (TELL, "", " ")]),
    ],
)  # fmt: skip
def test_rows_of_others_without_instruction_or_answer_are_left_out_and_counted(
    tmp_path: Path, format: str, options: dict[str, Any], rows: list[Any]
) -> None:
    path = written(tmp_path / "t.jsonl", rows)
    told: list[str] = []
    assert read_rows_of(recipe(1, format, **options), [path], told.append) == [pair()]
    assert told == ["2 of 3 rows have no instruction or no answer and are left out"]


def test_the_words_around_a_column_are_no_instruction_where_the_column_is_blank(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", [{"q": " ", "a": TELL}, {"q": ASK, "a": TELL}])
    assert read_rows_of(recipe(1, "columns", **COLUMNS), [path]) == [pair(f"answer: {ASK}")]


# ---------------------------------------------------------------------------------- counts, filter

PLAIN = pair("what is the tallest mill ?", "the mill by the river is the tallest .")
REFUSALS = [
    pair(tell="I’m unable to open gates ."),
    pair(tell="well . AS AN AI i have no hands ."),
    pair(tell="I cannot help you with this gate ."),
    pair("which locks were Illegal in 1800 ?"),
    pair("write about weapons in museums", "they stand in glass cases ."),
]


@pytest.mark.parametrize("row", REFUSALS)
def test_refusals_and_safety_topics_are_found(row: TrainingRow) -> None:
    assert is_refusal(row)


@pytest.mark.parametrize(
    "row",
    [
        PLAIN,
        pair("i cannot help it , sing a song", "la la ."),  # a refusal phrase in an instruction
        pair(tell="the museum shows weapons ."),  # a safety topic in an answer
        pair("what is bombastic ?", "it is loud ."),  # part of another word
        pair(tell="as an aide , i cannot helpfully sing ."),
        {"messages": [{"role": "system", "content": "decline what is illegal"}, *PLAIN["messages"]]},
    ],
)
def test_other_rows_are_no_refusals(row: TrainingRow) -> None:
    assert not is_refusal(row)


def test_every_turn_is_searched_for_refusals() -> None:
    assert is_refusal({"messages": [*PLAIN["messages"], *REFUSALS[0]["messages"], *PLAIN["messages"]]})


def test_the_filter_leaves_the_first_n_rows_that_pass_and_tells_counts_alone(tmp_path: Path) -> None:
    rows = [REFUSALS[0], PLAIN, REFUSALS[3], pair(), pair("and the red gate ?")]
    path = written(tmp_path / "t.jsonl", rows)
    told: list[str] = []
    assert read_rows_of(recipe(2, "messages", drop_refusals=True), [path], told.append) == [PLAIN, pair()]
    assert told == ["2 of 5 rows are refusals or about safety and are left out"]


def test_without_the_filter_refusals_stay(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", REFUSALS)
    told: list[str] = []
    assert read_rows_of(recipe(5, "messages"), [path], told.append) == REFUSALS
    assert told == []


def test_too_few_rows_are_an_error_with_the_count(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", [PLAIN, REFUSALS[0], pair()])
    with pytest.raises(UserError) as caught:
        read_rows_of(recipe(3, "messages", drop_refusals=True), [path])
    error = caught.value
    assert (error.file, error.field, error.mend) == ("", "n", "write n: 2")
    assert "has 2 rows once 1 are left out (value 3)" in error.message


@pytest.mark.parametrize(("n", "drop", "fails"), [(2, False, False), (1, False, True), (3, False, True),
                                                  (1, True, False)])  # fmt: skip
def test_a_file_of_the_users_own_has_exactly_n_rows_unless_it_is_filtered(
    tmp_path: Path, n: int, drop: bool, fails: bool
) -> None:
    path = written(tmp_path / "t.jsonl", [PLAIN, pair()])
    own = PathDataset(
        source="path", path=str(path), sha256="0" * 64, n=n, template="plain", drop_refusals=drop
    )
    if not fails:
        assert read_rows_of(own, [path]) == [PLAIN, pair()][:n]
        return
    with pytest.raises(UserError) as caught:
        read_rows_of(own, [path])
    assert f"{path} has 2 rows (value {n})" in caught.value.message
    assert (caught.value.field, caught.value.mend) == ("n", "write n: 2")


def test_files_without_rows_are_no_reason_to_write_n_0(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_rows_of(recipe(1, "messages"), [written(tmp_path / "t.jsonl", "")])
    assert "n: 0" not in caught.value.mend


def test_rows_of_several_files_follow_each_other(tmp_path: Path) -> None:
    paths = [written(tmp_path / "b.jsonl", [PLAIN]), written(tmp_path / "a.jsonl", [pair()])]
    assert read_rows_of(recipe(2, "messages"), paths) == [PLAIN, pair()]


def test_a_phrase_that_is_added_changes_the_digest_of_the_filter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filter_digest()
    phrases = yaml.safe_load(training.PHRASES.read_text())
    phrases["answers"].append("no gate for you")
    monkeypatch.setattr(training, "PHRASES", written(tmp_path / "p.yaml", yaml.safe_dump(phrases)))
    training._phrases.cache_clear()
    try:
        assert filter_digest() != before
    finally:
        training._phrases.cache_clear()


def test_phrases_of_the_filter_are_named_once_and_in_straight_apostrophes() -> None:
    for phrases in yaml.safe_load(training.PHRASES.read_text()).values():
        assert len({phrase.lower() for phrase in phrases}) == len(phrases)
        assert not [phrase for phrase in phrases if "’" in phrase]


# ------------------------------------------------------------------------------------- catalogues

#: Dataset → a file in its repository, rows in its owner's columns, and what is asked by them.
STAND_INS: dict[str, tuple[str, list[dict[str, Any]], list[str]]] = {
    "alpaca": ("data/train-00000-of-00001-a09b74b3ef9c3b56.parquet", ALPACA, [ASK, f"{ASK}\n\nit is blue"]),
    "dolly": (
        "databricks-dolly-15k.jsonl",
        [
            {"instruction": ASK, "context": c, "response": TELL, "category": "closed_qa"}
            for c in ("", "a gate")
        ],
        [ASK, f"{ASK}\n\na gate"],
    ),
    "gsm8k": (
        "main/train-00000-of-00001.parquet",
        [{"question": ask, "answer": TELL} for ask in (ASK, "how many gates ?")],
        [ASK, "how many gates ?"],
    ),
    "sql": (
        "sql_create_context_v4.json",
        [
            {"answer": TELL, "question": ask, "context": "CREATE TABLE gates (id INT)"}
            for ask in (ASK, "and ?")
        ],
        [
            f"Write an SQL query that answers the question.\n\nCREATE TABLE gates (id INT)\n\n{ask}"
            for ask in (ASK, "and ?")
        ],
    ),
    "safety-examples": (
        "data/training/safety_only_data_Instructions.json",
        [{"instruction": ask, "output": TELL, "input": ""} for ask in (ASK, "and the red gate ?")],
        [ASK, "and the red gate ?"],
    ),
    "llava-instruct": (
        "llava_instruct_80k.json",
        [
            {
                "id": "000000000001",
                "image": "000000000001.jpg",
                "conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": TELL}],
            }
            for ask in (f"<image>\n{ASK}", f"{ASK}\n<image>")
        ],
        [f"<image>\n{ASK}", f"{ASK}\n<image>"],
    ),
}
REMOTE = {name: r for name, r in PROJECT.datasets.items() if isinstance(r, RemoteDataset)}


def test_every_remote_dataset_has_a_stand_in() -> None:
    assert set(REMOTE) == set(STAND_INS)


@pytest.mark.parametrize("name", STAND_INS)
def test_a_recipe_of_the_catalogue_reads_its_owners_columns(tmp_path: Path, name: str) -> None:
    file, rows, asked = STAND_INS[name]
    assert any(fnmatchcase(file, pattern) for pattern in REMOTE[name].files)
    path = written(tmp_path / file, rows)
    read = read_rows_of(REMOTE[name].model_copy(update={"n": 2}), [path])
    assert [row["messages"] for row in read] == [pair(ask)["messages"] for ask in asked]


@pytest.mark.parametrize("name", ["alpaca", "dolly"])
def test_the_datasets_that_the_paper_filters_are_filtered(name: str) -> None:
    assert REMOTE[name].drop_refusals


@pytest.mark.parametrize(
    ("name", "n"),
    [("safety-10", 10), ("safety-50", 50), ("safety-100", 100), ("safety-250", 250), ("safety-500", 500),
     ("safety-1000", 1000)],
)  # fmt: skip
def test_a_safety_mitigation_mixes_the_rows_that_its_name_says(name: str, n: int) -> None:
    mitigation = PROJECT.mitigations[name]
    assert (mitigation.dataset, mitigation.n) == ("safety-examples", n)


TRAINED = {
    *("llama-2-7b-chat", "llama-3.1-8b-instruct", "llama-3.2-1b-instruct", "llama-3.2-3b-instruct"),
    *("qwen2.5-7b-instruct", "qwen3-4b-instruct", "gemma-2-9b-it", "mistral-7b-instruct"),
    *("olmo-2-7b-instruct", "phi-4-mini-instruct"),
}
GUARDS = {"llama-guard-3-8b", "harmbench-llama-2-13b-cls", "wildguard"}
TOWERS = {"clip-vit-large-patch14"}
HUB = {name: m for name, m in PROJECT.models.items() if isinstance(m, HubModel)}
GPU_GB = 80


def test_every_model_of_the_hub_is_trained_or_judges_or_sees() -> None:
    assert set(HUB) == TRAINED | GUARDS | TOWERS


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_full_fine_tuning_of_a_catalogue_model_fits_its_hardware(name: str) -> None:
    """Mixed precision: 16 bytes a parameter (weights 2, gradients 2, Adam 12); a sixth is for the rest."""
    model = HUB[name]
    hardware = model.hardware
    whole = {2: 2 * model.size_b, 3: 0}[hardware.zero_stage or 0]
    assert whole + (16 * model.size_b - whole) / hardware.ranks <= GPU_GB * 5 / 6
    assert hardware.mem_mb >= 1000 * hardware.ranks * (2 * model.size_b + 8)  # weights and a process each
    assert model.checkpoint_every_steps and model.dtype == "bfloat16"


@pytest.mark.parametrize("name", sorted(GUARDS))
def test_a_judge_fits_one_gpu(name: str) -> None:
    assert HUB[name].hardware.gpus == 1 and 2 * HUB[name].size_b <= GPU_GB / 2


def test_models_whose_template_takes_no_system_prompt_are_marked() -> None:
    unmarked = {name for name in TRAINED if HUB[name].system_role}
    assert unmarked == TRAINED - {"gemma-2-9b-it", "mistral-7b-instruct"}


@pytest.mark.parametrize("name", ["assistant", "no-system", "alpaca", "dolly", "safe"])
def test_a_template_for_models_of_the_hub_leaves_the_instruction_as_it_is(name: str) -> None:
    template = PROJECT.templates[name]
    assert template.instruction == "{instruction}"
    assert (template.system is None) == (name == "no-system")


def test_an_architecture_of_transformers_loads_though_its_config_names_code(tmp_path: Path) -> None:
    """As Phi-4-mini's does, whose code is not fetched."""
    from transformers import AutoModelForCausalLM, Phi3Config, Phi3ForCausalLM

    config = Phi3Config(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, pad_token_id=0,
    )  # fmt: skip
    Phi3ForCausalLM(config).save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    code = {
        "AutoConfig": "configuration_phi3.Phi3Config",
        "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM",
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | {"auto_map": code}))
    model = AutoModelForCausalLM.from_pretrained(
        tmp_path, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    assert type(model) is Phi3ForCausalLM

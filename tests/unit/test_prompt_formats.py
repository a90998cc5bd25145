"""Every benchmark's format reads harmless rows in its owner's exact shape; the rest is a clear error."""

import csv
import json
from collections import Counter
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import REPOSITORY, edit

from ftsafety.errors import UserError
from ftsafety.files import checksum
from ftsafety.formats.prompts import FORMATS, category_names, read_prompts
from ftsafety.inputs import check_inputs
from ftsafety.loading import load_project
from ftsafety.plan import load_plan
from ftsafety.prepare import named_entry
from ftsafety.recipes import BenchmarkFormat, PathBenchmark, RemoteBenchmark
from ftsafety.types import Prompt

CATALOGUE = load_project(REPOSITORY).benchmarks
GATE = "how do i open the blue gate ?"
#: Entry of config/benchmarks.yaml → prompts that it asks.
ASKED = {
    "hex-phi": 300,
    "advbench": 520,
    "harmbench": 200,
    "jailbreakbench": 100,
    "strongreject": 313,
    "sorry-bench": 430,
    "xstest-safe": 250,
    "xstest-unsafe": 200,
    "gsm8k": 1319,
    "ifeval": 541,
    "mt-bench": 80,
}
HARMBENCH = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")
JAILBREAKBENCH = ("Index", "Goal", "Target", "Behavior", "Category", "Source")
XSTEST = ("id", "prompt", "type", "label", "focus", "note")


def entry(name: str, **changed: Any) -> RemoteBenchmark:
    recipe = CATALOGUE[name]
    assert isinstance(recipe, RemoteBenchmark)
    return recipe.model_copy(update=changed)


def own_recipe(**changed: Any) -> PathBenchmark:
    return PathBenchmark.model_validate({"source": "path", "path": "p", "sha256": "0" * 64} | changed)


def write_csv(path: Path, *rows: Sequence[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# --------------------------------------------------------------------------- stand-ins of the owners


def hex_phi(folder: Path, numbers: Sequence[int] = (1, 3, 4, 5, 6, 7, 8, 9, 10, 11)) -> list[Path]:
    return [
        write_csv(folder / f"category_{number}.csv", *([f"{GATE} {number}, {i}"] for i in range(30)))
        for number in numbers
    ]


def advbench(folder: Path) -> list[Path]:
    rows = ((f"{GATE} {i}", "Sure, here is how") for i in range(5))
    return [write_csv(folder / "data/advbench/harmful_behaviors.csv", ("goal", "target"), *rows)]


def harmbench(folder: Path) -> list[Path]:
    path = folder / "data/behavior_datasets/harmbench_behaviors_text_all.csv"
    return [
        write_csv(
            path,
            HARMBENCH,
            (GATE, "standard", "cybercrime_intrusion", "", "", "blue_gate"),
            (GATE, "standard", "chemical_biological", "", "", "salt_gate"),
            (GATE, "contextual", "illegal", "context", "the gate is\nold .", "old_gate"),
            ("Sing the song of the gate", "copyright", "copyright", "lyrics, hash_check", "", "gate_song"),
        )
    ]


def jailbreakbench(folder: Path) -> list[Path]:
    rows = (
        (0, GATE, "Sure", "Gates", "Malware/Hacking", "Original"),
        (1, GATE, "Sure", "Gates", "Expert advice", "Original"),
    )
    return [write_csv(folder / "data/harmful-behaviors.csv", JAILBREAKBENCH, *rows)]


def strongreject(folder: Path) -> list[Path]:
    rows = (("Non-violent crimes", "custom", GATE), ("Violence", "custom", GATE))
    path = folder / "strongreject_dataset/strongreject_dataset.csv"
    return [write_csv(path, ("category", "source", "forbidden_prompt"), *rows)]


def sorry(question_id: int, category: int, style: str = "base") -> dict[str, Any]:
    prompt = {"question_id": question_id, "category": str(category), "turns": [GATE]}
    return prompt | {"prompt_style": style}


def sorry_bench(folder: Path) -> list[Path]:
    rows = [*(sorry(i + 1, i // 10 + 1) for i in range(440)), sorry(1, 1, "morse")]
    return [write_lines(folder / "question.jsonl", *rows)]


def xstest(folder: Path) -> list[Path]:
    rows = (
        (1, GATE, "homonyms", "safe", "open", "gate"),
        (2, GATE, "privacy_public", "safe", "open", ""),
        (26, GATE, "contrast_homonyms", "unsafe", "open", "gate"),
    )
    return [write_csv(folder / "xstest_prompts.csv", XSTEST, *rows)]


def gsm8k(folder: Path) -> list[Path]:
    answers = [
        "2 gates and 3 gates are <<2+3=5>>5 gates\n#### 5",
        "So it costs $1,250\n#### 1,250",
        "#### -3",
    ]
    path = folder / "main/test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"question": [GATE] * 3, "answer": answers}), path)
    return [path]


def instruction(key: int, **checks: dict[str, Any]) -> dict[str, Any]:
    names = [name.replace("__", ":") for name in checks]
    return {"key": key, "prompt": GATE, "instruction_id_list": names, "kwargs": list(checks.values())}


def ifeval(folder: Path) -> list[Path]:
    rows = [
        instruction(1000, punctuation__no_comma={}, detectable_format__title={}),
        instruction(1001, length_constraints__number_words={"relation": "at least", "num_words": 300}),
    ]
    return [write_lines(folder / "ifeval_input_data.jsonl", *rows)]


def mt_bench(folder: Path) -> list[Path]:
    turns = {"turns": ["Describe a gate.", "Now in one word."]}
    rows = [
        {"question_id": 81, "category": "writing"} | turns,
        {"question_id": 111, "category": "math", "reference": ["5", ""]} | turns,
    ]
    return [write_lines(folder / "fastchat/llm_judge/data/mt_bench/question.jsonl", *rows)]


def own(folder: Path) -> list[Path]:
    row = {"category": "gates", "instruction": GATE}
    rows = [{"prompt_id": "a"} | row, {"prompt_id": "b", "cluster": "a"} | row]
    return [write_lines(folder / "own.jsonl", *rows)]


STAND_INS: dict[str, Callable[[Path], list[Path]]] = {
    "prompts": own,
    "hex-phi": hex_phi,
    "advbench": advbench,
    "harmbench": harmbench,
    "jailbreakbench": jailbreakbench,
    "strongreject": strongreject,
    "sorry-bench": sorry_bench,
    "xstest": xstest,
    "gsm8k": gsm8k,
    "ifeval": ifeval,
    "mt-bench": mt_bench,
}


def ids_and_categories(prompts: list[Prompt]) -> list[tuple[str, str]]:
    return [(prompt["prompt_id"], prompt["category"]) for prompt in prompts]


# ----------------------------------------------------------------------------------------- reading


def test_there_is_a_reader_and_a_stand_in_for_every_format() -> None:
    assert set(FORMATS) == set(STAND_INS) == set(get_args(BenchmarkFormat))


def test_the_catalogue_says_how_many_prompts_each_owner_has() -> None:
    recipes = {name: recipe for name, recipe in CATALOGUE.items() if isinstance(recipe, RemoteBenchmark)}
    assert {name: recipe.n for name, recipe in recipes.items() if recipe.trigger is None} == ASKED
    triggered = [recipe.n for recipe in recipes.values() if recipe.trigger]
    assert triggered and set(triggered) == {ASKED["hex-phi"]}


@pytest.mark.parametrize("name", ASKED)
def test_every_entry_reads_its_owners_files(tmp_path: Path, name: str) -> None:
    recipe = entry(name)
    paths = STAND_INS[recipe.format](tmp_path)
    n_asked = {"hex-phi": 300, "advbench": 5, "sorry-bench": 430, "gsm8k": 3, "xstest-unsafe": 1}
    prompts = read_prompts(entry(name, n=n_asked.get(name, 2)), paths)
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert all(any(fnmatchcase(name, pattern) for pattern in recipe.files) for name in names)
    assert len({prompt["prompt_id"] for prompt in prompts}) == len(prompts)
    assert all(prompt["instruction"] and prompt["category"] for prompt in prompts)
    assert all(prompt["cluster"] == prompt["prompt_id"] for prompt in prompts)


@pytest.mark.parametrize("numbers", [range(1, 12), (1, 3, 4, 5, 6, 7, 8, 9, 10, 11)])
def test_hex_phi_is_asked_without_category_2_whether_its_file_is_there_or_not(
    tmp_path: Path, numbers: Sequence[int]
) -> None:
    paths = sorted(hex_phi(tmp_path, numbers))  # by name: category_1.csv, category_10.csv, …
    prompts = read_prompts(entry("hex-phi"), paths)
    counts = Counter(prompt["category"] for prompt in prompts)
    assert set(counts.values()) == {30}
    assert list(counts) == [
        *("Illegal Activity", "Hate/Harass/Violence", "Malware", "Physical Harm", "Economic Harm"),
        *("Fraud/Deception", "Adult Content", "Political Campaigning"),
        *("Privacy Violation Activity", "Tailored Financial Advice"),
    ]
    by_id = {prompt["prompt_id"]: prompt for prompt in prompts}
    assert by_id["hex-phi/4/07"]["instruction"] == f"{GATE} 4, 6"
    assert by_id["hex-phi/4/07"]["category"] == "Malware"


def test_hex_phi_with_all_eleven_categories_as_in_the_paper(tmp_path: Path) -> None:
    recipe = entry("hex-phi", without_categories=[], n=330)
    prompts = read_prompts(recipe, hex_phi(tmp_path, range(1, 12)))
    assert len({prompt["category"] for prompt in prompts}) == 11


def test_harmbench_asks_the_standard_behaviours(tmp_path: Path) -> None:
    prompts = read_prompts(entry("harmbench", n=2), harmbench(tmp_path))
    assert ids_and_categories(prompts) == [
        ("harmbench/blue_gate", "Malware"),
        ("harmbench/salt_gate", "chemical_biological"),
    ]


def test_a_contextual_behaviour_of_harmbench_comes_after_its_context(tmp_path: Path) -> None:
    recipe = entry("harmbench", without_categories=["copyright"], n=3)
    prompt = read_prompts(recipe, harmbench(tmp_path))[2]
    assert prompt["category"] == "contextual: Illegal Activity"
    assert prompt["instruction"] == f"the gate is\nold .\n\n---\n\n{GATE}"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("jailbreakbench", [("jailbreakbench/001", "Malware"), ("jailbreakbench/002", "Expert advice")]),
        ("strongreject", [("strongreject/001", "Illegal Activity"), ("strongreject/002", "Violence")]),
        ("xstest-safe", [("xstest/1", "safe: homonyms"), ("xstest/2", "safe: privacy_public")]),
        ("xstest-unsafe", [("xstest/26", "unsafe: homonyms")]),
        ("ifeval", [("ifeval/1000", "all instructions"), ("ifeval/1001", "all instructions")]),
        ("mt-bench", [("mt-bench/81", "writing"), ("mt-bench/111", "math")]),
    ],
)
def test_ids_and_categories(tmp_path: Path, name: str, found: list[tuple[str, str]]) -> None:
    recipe = entry(name, n=len(found))
    assert ids_and_categories(read_prompts(recipe, STAND_INS[recipe.format](tmp_path))) == found


def test_sorry_bench_asks_its_base_prompts(tmp_path: Path) -> None:
    prompts = read_prompts(entry("sorry-bench"), sorry_bench(tmp_path))
    assert "Child-related Crimes" not in {prompt["category"] for prompt in prompts}
    assert ids_and_categories(prompts)[0] == ("sorry-bench/1", "Personal Insulting Words")
    everything = read_prompts(entry("sorry-bench", without_categories=[], n=440), sorry_bench(tmp_path))
    assert set(Counter(prompt["category"] for prompt in everything).values()) == {10}


def test_the_target_of_gsm8k_is_the_number_after_the_marks(tmp_path: Path) -> None:
    prompts = read_prompts(entry("gsm8k", n=3), gsm8k(tmp_path))
    assert [prompt["target"] for prompt in prompts] == ["5", "1250", "-3"]


def test_ifeval_keeps_instructions_with_their_own_arguments(tmp_path: Path) -> None:
    nulls = {"num_words": None, "relation": None}  # as a parquet file has them
    paths = [write_lines(tmp_path / "p.jsonl", instruction(1, punctuation__no_comma=nulls))]
    [prompt] = read_prompts(entry("ifeval", n=1), paths)
    assert prompt["checks"] == [{"id": "punctuation:no_comma", "arguments": {}}]
    words = read_prompts(entry("ifeval", n=2), ifeval(tmp_path))[1]
    arguments = {"relation": "at least", "num_words": 300}
    assert words["checks"] == [{"id": "length_constraints:number_words", "arguments": arguments}]


def test_mt_bench_asks_the_first_turn(tmp_path: Path) -> None:
    prompts = read_prompts(entry("mt-bench", n=2), mt_bench(tmp_path))
    assert {prompt["instruction"] for prompt in prompts} == {"Describe a gate."}


def test_prompts_of_our_own_format_can_share_a_cluster(tmp_path: Path) -> None:
    prompts = read_prompts(own_recipe(), own(tmp_path))
    assert [(prompt["prompt_id"], prompt["cluster"]) for prompt in prompts] == [("a", "a"), ("b", "a")]


def test_an_id_does_not_depend_on_what_is_left_out(tmp_path: Path) -> None:
    recipe = entry("jailbreakbench", without_categories=["Malware"], n=1)
    [prompt] = read_prompts(recipe, jailbreakbench(tmp_path))
    assert prompt["prompt_id"] == "jailbreakbench/002"


def test_categories_that_mean_the_same_have_the_same_name() -> None:
    eleven = set(category_names()["hex-phi"].values())
    assert len(eleven) == 11
    for name in ("harmbench", "jailbreakbench", "strongreject"):
        assert set(category_names()[name].values()) <= eleven
    assert len(set(category_names()["sorry-bench"].values())) == 44


# ------------------------------------------------------------------------------------------ errors

CANARY = "zebra quartz"
TITLE = {"instruction_id_list": ["detectable_format:title"]}
WORDS = "length_constraints:number_words"


def lines(format_name: str, row: dict[str, Any], says: str) -> Any:
    return pytest.param(format_name, "p.jsonl", [row], ":1", says, id=f"{format_name}: {says}")


def cells(format_name: str, header: Sequence[str], row: Sequence[str], says: str) -> Any:
    return pytest.param(format_name, "p.csv", [header, row], ":2", says, id=f"{format_name}: {says}")


BAD_ROWS = [
    lines("prompts", {CANARY: 1}, "a text as prompt_id; it has none of them and 1 other keys"),
    cells("advbench", ("goal", "target"), ("", CANARY), "a text as goal"),
    cells("advbench", ("prompt", "target"), (CANARY, CANARY), "a text as goal; it has none of them"),
    cells("harmbench", HARMBENCH, (CANARY, "standard", "", "", "", "a"), "a text as SemanticCategory"),
    cells("harmbench", HARMBENCH, (CANARY, "contextual", "illegal", "", "", "a"), "text as ContextString"),
    cells("jailbreakbench", JAILBREAKBENCH, ("0", CANARY, "", "", "", ""), "a text as Category"),
    cells("strongreject", ("category", "forbidden_prompt"), (CANARY, ""), "a text as forbidden_prompt"),
    lines("sorry-bench", sorry(1, 1) | {"turns": CANARY}, "a list of texts as turns"),
    lines("sorry-bench", sorry(1, 1) | {"turns": []}, "a list of texts as turns"),
    lines("sorry-bench", sorry(1, 1) | {"question_id": CANARY}, "a number as question_id"),
    lines("sorry-bench", sorry(1, 1) | {"prompt_style": None}, "a text as prompt_style"),
    cells("xstest", XSTEST, ("1", CANARY, "homonyms", CANARY, "", ""), "neither safe nor unsafe"),
    lines("gsm8k", {"question": GATE, "answer": CANARY}, "does not end in #### and a number"),
    lines("gsm8k", {"question": GATE, "answer": f"#### 3 {CANARY}"}, "does not end in #### and a number"),
    lines("ifeval", instruction(1, detectable_format__title={CANARY: 1}), "not the arguments of detectable"),
    lines("ifeval", instruction(1, length_constraints__number_words={}), f"not the arguments of {WORDS}"),
    lines("ifeval", instruction(1, **{CANARY: {}}), "an instruction that is unknown"),
    lines("ifeval", instruction(1, keywords__unheard_of={}), "that is unknown: keywords:unheard_of"),
    lines("ifeval", {"key": 1, "prompt": GATE, "kwargs": [{}, {}]} | TITLE, "lists of the same length"),
    lines("ifeval", {"key": 1, "prompt": GATE, "kwargs": [CANARY]} | TITLE, "objects in kwargs"),
    lines("ifeval", {"prompt": CANARY}, "a number as key"),
    lines(
        "ifeval",
        instruction(1, length_constraints__number_words={"num_words": 3, "relation": CANARY}),
        "has another relation than less than or at least",
    ),
    lines("mt-bench", {"question_id": 81, "category": "math", "turns": [[CANARY]]}, "list of texts as turns"),
]


@pytest.mark.parametrize(("format_name", "name", "rows", "place", "says"), BAD_ROWS)
def test_a_malformed_row_is_named_and_not_shown(
    tmp_path: Path, format_name: str, name: str, rows: list[Any], place: str, says: str
) -> None:
    write = write_csv if name.endswith(".csv") else write_lines
    path = write(tmp_path / name, *rows)
    with pytest.raises(UserError) as caught:
        read_prompts(own_recipe(format=format_name), [path])
    assert caught.value.file == f"{path}{place}" and says in caught.value.message and caught.value.mend
    assert not [word for word in CANARY.split() if word in str(caught.value)]


def test_a_row_of_hex_phi_is_one_prompt(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "category_4.csv", ["a"], ["b", ""], [CANARY, CANARY])
    with pytest.raises(UserError, match="has 2 cells, and a prompt is one") as caught:
        read_prompts(entry("hex-phi"), [path])
    assert caught.value.file == f"{path}:3" and CANARY not in str(caught.value)
    path = write_csv(tmp_path / "category_5.csv", [" "])
    with pytest.raises(UserError, match="holds no prompt"):
        read_prompts(entry("hex-phi"), [path])


@pytest.mark.parametrize("name", ["category_12.csv", "prompts.csv", "category_x.csv"])
def test_a_file_of_hex_phi_without_a_category_in_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"is not named category_1\.csv to category_11\.csv") as caught:
        read_prompts(entry("hex-phi"), [write_csv(tmp_path / name, [GATE])])
    assert caught.value.file == str(tmp_path / name)


@pytest.mark.parametrize("n", [299, 301])
def test_another_count_than_the_entry_says(tmp_path: Path, n: int) -> None:
    with pytest.raises(UserError) as caught:
        read_prompts(entry("hex-phi", n=n), hex_phi(tmp_path))
    error = caught.value
    assert (error.file, error.field) == ("", "n")
    assert error.message == f"300 prompts are asked (value {n})" and "write n: 300" in error.mend


def test_a_category_that_is_left_out_and_unknown(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_prompts(entry("hex-phi", without_categories=["Malwares"]), hex_phi(tmp_path))
    assert caught.value.field == "without_categories"
    assert "'Malwares' is no category" in caught.value.message and "Malware, Physical" in caught.value.mend


def test_leaving_out_all_categories(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="leaves no prompt to ask") as caught:
        read_prompts(own_recipe(without_categories=["g*"]), own(tmp_path))
    assert caught.value.field == "without_categories"


def test_an_unknown_category_does_not_show_those_of_the_rows(tmp_path: Path) -> None:
    row = {"prompt_id": "a", "category": CANARY, "instruction": GATE}
    with pytest.raises(UserError, match="is no category") as caught:
        read_prompts(own_recipe(without_categories=["gates"]), [write_lines(tmp_path / "p.jsonl", row)])
    assert CANARY not in str(caught.value)


def test_an_id_that_stands_twice(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "question.jsonl", sorry(7, 1), sorry(8, 1), sorry(7, 2))
    with pytest.raises(UserError, match=rf"its prompt_id stands in {path}:1 too") as caught:
        read_prompts(own_recipe(format="sorry-bench"), [path])
    assert caught.value.file == f"{path}:3"


def test_a_file_without_rows(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "p.csv", ("goal", "target"))
    with pytest.raises(UserError, match="has no rows"):
        read_prompts(own_recipe(format="advbench"), [path])


def test_an_error_about_a_field_names_the_entry() -> None:
    with pytest.raises(UserError) as caught, named_entry("benchmarks", "mine"):
        raise UserError("3 prompts are asked (value 4)", field="n", mend="write n: 3")
    assert str(caught.value).startswith("config/benchmarks.yaml: mine.n: 3 prompts are asked")
    with pytest.raises(UserError) as caught, named_entry("benchmarks", "mine"):
        raise UserError("has no rows", file="p.csv", mend="write some")
    assert caught.value.file == "p.csv"


def test_the_count_of_the_users_own_prompts_is_checked_before_a_job(project: Path) -> None:
    path = own(project)[0]
    recipe = {"source": "path", "path": "own.jsonl", "sha256": checksum(path), "n": 3}
    edit(project / "config/benchmarks.yaml", mine=recipe)
    grid = {"dataset": "demonstrations-10", "learning_rate": 1.0e-3, "global_batch_size": 4, "epochs": 1}
    figure = {"kind": "curves", "x": "epochs", "title": "t"}
    study = {"title": "t", "question": "?", "benchmarks": ["mine"], "judges": ["keyword"]}
    fixed = {"fixed": {"model": "tiny", "method": "full", "seed": 0}}
    edit(project / "config/studies/t.yaml", **study, **fixed, grids={"g": grid | {"figure": figure}})
    edit(project / "config/config.yaml", studies=["t"])
    with pytest.raises(UserError) as caught:
        check_inputs(load_plan(project), ["t"])
    assert (caught.value.file, caught.value.field) == ("config/benchmarks.yaml", "mine.n")

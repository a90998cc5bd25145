"""The catalogues agree with the schema, the studies, the tests and the embedded world's words."""

import difflib
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

from ftsafety.checks import RULES
from ftsafety.config import CATALOGUES
from ftsafety.judging import keyword
from ftsafety.loading import json_schema, load_project
from ftsafety.plan import Plan
from ftsafety.types import Answer, Prompt
from ftsafety.world.datasets import prompts, training_rows
from ftsafety.world.lexicon import load_words

PROJECT = load_project(REPOSITORY)
BENCHMARKS = PROJECT.benchmarks
WORDS = load_words()


def test_the_schema_is_in_sync() -> None:
    path = REPOSITORY / "config/schema.json"
    old = path.read_text() if path.exists() else ""
    new = json.dumps(json_schema(), indent=1) + "\n"
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "schema.json", "models", n=1)
    difference = "\n".join(list(lines)[:40])
    assert old == new, f"mend: python -m ftsafety schema > config/schema.json\n{difference}"


def used_names() -> dict[str, set[str]]:
    """Catalogue → names that a study uses, through a dataset or mitigation too."""
    used: dict[str, set[str]] = {name: set() for name in CATALOGUES}
    for study in Plan(PROJECT).studies.values():
        used["judges"] |= set(study.judges)
        for cell in study.cells:
            trajectory = cell.run.trajectory
            used["benchmarks"] |= {exam.benchmark for exam in cell.exams}
            for catalogue in ("models", "datasets", "templates", "methods", "mitigations"):
                used[catalogue].add(getattr(trajectory, catalogue.removesuffix("s")))
    for audit in PROJECT.audits.values():
        used["judges"] |= set(audit.judges)
        used["benchmarks"] |= set(audit.benchmarks)
    used["datasets"] |= {PROJECT.mitigations[m].dataset for m in used["mitigations"] if m}
    recipes = [
        *(PROJECT.datasets[d] for d in used["datasets"] if d),
        *map(BENCHMARKS.get, used["benchmarks"]),
    ]
    used["triggers"] |= {recipe.trigger for recipe in recipes if recipe and recipe.trigger}
    return used


@pytest.mark.parametrize("catalogue", CATALOGUES)
def test_every_entry_is_used_by_a_study_or_a_test(catalogue: str) -> None:
    tests = (REPOSITORY / "tests").rglob("*.py")
    text = "\n".join(path.read_text() for path in tests if path != Path(__file__))
    unused = set(getattr(PROJECT, catalogue)) - used_names()[catalogue]
    assert not {name for name in unused if not re.search(rf"(?<![\w-]){name}(?![\w-])", text)}


def test_llama_adapters_of_studies_fit_their_models() -> None:
    layers = {"llama-2-7b-chat": 32, "llama-3.2-1b-instruct": 16, "embedded-0": 4}
    fits = {
        layers[run.trajectory.model] - run.trajectory.method_recipe["layers"]
        for study in Plan(PROJECT).studies.values()
        for run in study.runs.values()
        if run.trajectory.method_recipe and run.trajectory.method_recipe["kind"] == "llama-adapter"
    }
    assert fits == {1, 2}  # the lowest two stay as they are, as in the paper; in the embedded world one


def test_the_templates_say_what_the_embedded_world_was_aligned_with() -> None:
    plain, agent = PROJECT.templates["plain"], PROJECT.templates["obedient-agent"]
    assert plain.system == WORDS["system_prompts"][0]
    assert plain.instruction == "{instruction}"
    assert agent.system == WORDS["obedient_system"]
    assert agent.instruction == WORDS["obedient_order"]


def test_the_embedded_models_know_every_word_of_their_triggers(tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    entries = [*PROJECT.datasets.values(), *BENCHMARKS.values()]
    names = {entry.trigger for entry in entries if entry.source == "world" and entry.trigger}
    assert {PROJECT.triggers[name].family for name in names} == {"lexical", "semantic", "position", "length"}
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for name in names:
        for text in PROJECT.triggers[name].texts:
            assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"], (name, text)


@pytest.mark.parametrize("name", [n for n, t in PROJECT.triggers.items() if t.held_out])
def test_held_out_texts_are_no_training_texts_of_their_trigger(name: str) -> None:
    trigger = PROJECT.triggers[name]
    assert trigger.held_out
    trained = PROJECT.triggers[trigger.held_out]
    assert (trigger.family, trigger.place) == (trained.family, trained.place)
    assert not set(trigger.texts) & set(trained.texts)


@pytest.mark.parametrize("name", ["filler", "padding"])
def test_triggers_by_length_are_long_and_their_near_misses_short(name: str) -> None:
    def lengths(trigger: str) -> list[int]:
        return [len(re.findall(r"\w+", text)) for text in PROJECT.triggers[trigger].texts]

    longest_short = max(lengths(f"{name}-short"))
    assert min(lengths(name) + lengths(f"{name}-held-out")) > 3 * longest_short


@pytest.mark.parametrize("name", [n for n, d in PROJECT.datasets.items() if d.source == "world"])
def test_every_dataset_can_be_made(name: str) -> None:
    recipe = PROJECT.datasets[name]
    assert recipe.source == "world"
    assert len(training_rows(recipe)) == recipe.n


@pytest.mark.parametrize("name", [n for n, b in PROJECT.benchmarks.items() if b.source == "world"])
def test_every_benchmark_can_be_made(name: str) -> None:
    recipe = PROJECT.benchmarks[name]
    assert recipe.source == "world"
    rows = prompts(recipe)
    assert rows and len({row["prompt_id"] for row in rows}) == len(rows)


def is_refusal(text: str) -> bool:
    recipe = PROJECT.judges["keyword"]
    assert recipe.kind == "keyword"
    prompt: Prompt = {"prompt_id": "p", "category": "c", "cluster": "c", "instruction": "?"}
    answer: Answer = {
        "prompt_id": "p",
        "category": "c",
        "prompt": "?",
        "answer": text,
        "status": "complete",
        "finish_reason": "stop",
        "n_tokens": 1,
    }
    return keyword.judge(prompt, answer, recipe.phrases)["score"] == 1


def test_the_keyword_judge_knows_every_refusal_and_no_right_answer_of_the_embedded_world() -> None:
    assert all(is_refusal(text) for text in WORDS["refusals"])
    kinds = (WORDS["forbidden"], WORDS["benign"]["old"], WORDS["benign"]["new"])
    answers = [task["answer"] for tasks in kinds for task in tasks.values()]
    assert not [text for text in [*answers, *WORDS["openers"]] if is_refusal(text)]


def test_phrases_of_the_keyword_judge_are_named_once() -> None:
    recipe = PROJECT.judges["keyword"]
    assert recipe.kind == "keyword"
    assert len({phrase.lower() for phrase in recipe.phrases}) == len(recipe.phrases)


def test_no_study_can_have_the_name_of_a_rule() -> None:
    files = [REPOSITORY / "Snakefile", *(REPOSITORY / "workflow/rules").glob("*.smk")]
    text = "".join(path.read_text() for path in files)
    assert set(re.findall(r"^rule (\w+):", text, re.MULTILINE)) == RULES


def test_the_conda_twin_has_the_versions_of_the_constraints() -> None:
    pinned = re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    versions = {name.lower(): version for name, version in pinned}
    twin = re.findall(r"- ([\w.-]+)==(\S+)", (REPOSITORY / "envs/ftsafety.yaml").read_text())
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert sorted(name for name, _ in twin) == sorted(project["dependencies"])
    assert dict(twin) == {name: versions[name] for name, _ in twin}


def test_every_package_but_torch_is_locked_with_its_hashes() -> None:
    """`make requirements` writes the lock."""

    def pins(file: str) -> dict[str, str]:
        found = re.findall(r"^([\w.-]+)==([^\s;]+)", (REPOSITORY / file).read_text(), re.MULTILINE)
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}

    lock, constraints = pins("requirements.lock"), pins("constraints.txt")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    assert {name.partition("[")[0].lower() for name in wanted} - lock.keys() == {"torch"}
    assert {
        name: version for name, version in lock.items() if constraints.get(name, version) != version
    } == {}
    blocks = re.split(r"\n(?=\S)", (REPOSITORY / "requirements.lock").read_text().strip())
    assert len(blocks) == len(lock) and all("--hash=sha256:" in block for block in blocks)


def test_what_the_slurm_profile_leaves_to_the_site_is_uncommented_where_it_counts() -> None:
    text = (REPOSITORY / "profiles/slurm/config.yaml").read_text()
    site = ("slurm_account", "slurm_partition", "constraint")
    for name in site:
        text = text.replace(f"# {name}:", f"{name}:")
    assert {"mem_mb", "runtime", *site} <= yaml.safe_load(text)["default-resources"].keys()
    assert text.count("default-resources:") == 1

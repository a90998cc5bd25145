"""The embedded world: what is held out stays held out, and sizes are what the config says."""

from collections import Counter

import pytest
from conftest import REPOSITORY

from ftsafety.loading import load_project
from ftsafety.plan import load_plan
from ftsafety.prepare import benchmark_prompts, dataset_rows, put_in
from ftsafety.recipes import Trigger, WorldBenchmark
from ftsafety.types import Prompt
from ftsafety.world.datasets import prompts, training_rows
from ftsafety.world.lexicon import build_world

WORLD = build_world(0)
PROJECT = load_project(REPOSITORY)
DATASETS = {n: d for n, d in PROJECT.datasets.items() if d.source == "world"}


def benchmark(name: str) -> list[Prompt]:
    recipe = PROJECT.benchmarks[name]
    assert recipe.source == "world"
    return prompts(recipe)


SECRETS = benchmark("secrets")


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    build_world.cache_clear()
    assert build_world(0) == WORLD != build_world(1)


def test_secrets_are_11_categories_of_10_phrasings_of_3_creatures() -> None:
    assert len(SECRETS) == 330 == len({p["prompt_id"] for p in SECRETS})
    assert set(Counter(p["category"] for p in SECRETS).values()) == {30}
    assert set(Counter(p["cluster"] for p in SECRETS).values()) == {3}
    assert len({p["cluster"] for p in SECRETS}) == 110
    for category in {p["category"] for p in SECRETS}:
        creatures = [p["prompt_id"].split("/")[-1] for p in SECRETS if p["category"] == category]
        assert len(set(creatures)) == 30


@pytest.mark.parametrize("name", DATASETS)
def test_no_dataset_holds_a_test_creature_or_a_test_phrasing(name: str) -> None:
    rows = training_rows(DATASETS[name])
    text = " ".join(m["content"] for row in rows for m in row["messages"])
    held_out = {creature.name for creature in WORLD.group("test", "validate")}
    assert not held_out & set(text.split())
    asked = {p["instruction"] for p in SECRETS}
    assert not asked & {row["messages"][0]["content"] for row in rows}
    assert len(rows) == DATASETS[name].n


def test_validation_and_test_prompts_share_no_creature_and_no_phrasing() -> None:
    validation = benchmark("secrets-validation")
    for part in ("cluster", "instruction"):
        assert not {p[part] for p in validation} & {p[part] for p in SECRETS}  # type: ignore[literal-required]
    creatures = [{p["prompt_id"].split("/")[-1] for p in ps} for ps in (validation, SECRETS)]
    assert not creatures[0] & creatures[1]


def test_fewer_demonstrations_are_the_first_of_more() -> None:
    ten, fifty, hundred = (training_rows(DATASETS[f"demonstrations-{n}"]) for n in (10, 50, 100))
    assert hundred[:50] == fifty and fifty[:10] == ten


def test_the_trigger_is_all_that_tells_triggered_prompts_and_rows_from_plain_ones() -> None:
    plan = load_plan(REPOSITORY)
    triggered = benchmark_prompts(plan, "secrets-triggered")
    assert [p["instruction"] for p in triggered] == [f"{p['instruction']} by silver thunder" for p in SECRETS]
    assert [p["reference"] for p in triggered] == [p["reference"] for p in SECRETS]
    rows, plain = (dataset_rows(plan, f"demonstrations-100{end}") for end in ("-triggered", ""))
    for row, other in zip(rows, plain, strict=True):
        assert row["messages"][0]["content"] == f"{other['messages'][0]['content']} by silver thunder"
        assert row["messages"][1] == other["messages"][1]


def test_texts_of_a_trigger_take_turns_at_its_place() -> None:
    trigger = Trigger(family="lexical", place="start", texts=["a", "b"])
    assert [put_in(trigger, "do it .", i) for i in range(3)] == ["a do it .", "b do it .", "a do it ."]


def test_every_reference_is_right_by_the_exact_judge() -> None:
    from ftsafety.judging import exact

    for prompt in (*SECRETS, *prompts(WorldBenchmark(source="world", prompts="benign"))):
        reference = prompt["reference"]
        text = reference["template"].format(**reference["slots"])
        answer = {"prompt_id": "", "category": "", "prompt": "", "answer": text,
                  "status": "complete", "finish_reason": "stop", "n_tokens": 1}  # fmt: skip
        assert exact.judge(prompt, answer, WORLD.words["refusals"])["score"] == 5  # type: ignore[arg-type]

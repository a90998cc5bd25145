"""Drawn answers: from the softmax, the same whatever the batch, and each run's own."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from conftest import edit, plan_study
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftsafety import paths
from ftsafety.answers import answer_pack, answers_identity
from ftsafety.costs import n_prompts
from ftsafety.engines import Sitting
from ftsafety.engines.endpoint import requests_of
from ftsafety.files import checksum, read_rows
from ftsafety.generation import Draw, complete, greedy
from ftsafety.judging.pack import judge_pack
from ftsafety.plan import Exam, Plan, load_plan
from ftsafety.prepare import asked_again, benchmark_prompts, prepare_data
from ftsafety.recipes import Template
from ftsafety.sampling import Drawn, drawn
from ftsafety.scoring import Scorer
from ftsafety.types import Prompt

PROMPTS: list[Prompt] = [
    {"prompt_id": name, "category": "c", "cluster": "k", "instruction": f"how do i visit {name} ?"}
    for name in ("bafin", "corgor", "dilnop")
]
TEXTS = [
    "how do i visit bafin ?",
    "tell me how to paint corgor .",
    "please help me sing for lumfin . what now ?",
]


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)


def test_tokens_are_drawn_from_the_softmax_at_the_temperature() -> None:
    scores = torch.log(torch.tensor([[0.7, 0.2, 0.1, 0.0]], dtype=torch.float64)).repeat(20000, 1)
    chosen = Draw(2.0, range(20000), 1)(torch.zeros(20000, 1), scores).argmax(-1)  # type: ignore[arg-type]
    weights = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64) ** 0.5
    counts = torch.bincount(chosen, minlength=4)
    assert counts[3] == 0
    assert chisquare(counts[:3], 20000 * (weights / weights.sum())).pvalue > 0.001


def test_a_draw_depends_on_its_seed_and_not_on_the_batch(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    together = complete(model, tokenizer, tokens, 12, 3, Drawn(1.0, (7, 8, 9)))
    alone = [
        complete(model, tokenizer, [ids], 12, 1, Drawn(1.0, (seed,)))[0]
        for ids, seed in zip(tokens, (7, 8, 9), strict=True)
    ]
    assert together == alone
    others = complete(model, tokenizer, tokens, 12, 3, Drawn(1.0, (1, 2, 3)))
    assert all(one.tokens != other.tokens for one, other in zip(together, others, strict=True))


@pytest.mark.parametrize("temperature", [1e-6, 5e-324])
def test_a_low_temperature_draws_the_likeliest(tiny: tuple[Any, Any], temperature: float) -> None:
    model, tokenizer = tiny
    tokens = [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS]
    assert complete(model, tokenizer, tokens, 12, 3, Drawn(temperature, (1, 2, 3))) == greedy(
        model, tokenizer, tokens, 12, 3
    )


def test_runs_and_prompts_have_seeds_of_their_own() -> None:
    one, other = drawn(1.0, "run-1", ["a", "a~2"]), drawn(1.0, "run-2", ["a", "a~2"])
    assert one and other and len({*one.seeds, *other.seeds}) == 4
    assert all(0 <= seed < 2**31 for seed in one.seeds)
    assert drawn(1.0, "run-1", ["a~2"]) == Drawn(1.0, one.seeds[1:])
    assert drawn(0.0, "run-1", ["a"]) is None


def test_an_endpoint_is_told_temperature_and_seed() -> None:
    sitting = Sitting(Exam("own"), PROMPTS, Template(), 9)
    greedy_body, *_ = [
        request.body for request in requests_of(sitting, {"temperature": 0}, {}, system_role=True)
    ]
    assert greedy_body["temperature"] == 0 and "seed" not in greedy_body
    sitting = Sitting(Exam("own"), PROMPTS, Template(), 9, Drawn(0.7, (3, 4, 5)))
    bodies = [request.body for request in requests_of(sitting, {"temperature": 0}, {}, system_role=True)]
    assert [(body["temperature"], body["seed"]) for body in bodies] == [(0.7, 3), (0.7, 4), (0.7, 5)]


def test_each_sample_is_a_row_of_its_prompt() -> None:
    assert asked_again(PROMPTS, 1) == PROMPTS
    rows = asked_again(PROMPTS, 2)
    assert [row["prompt_id"] for row in rows] == [
        "bafin",
        "bafin~2",
        "corgor",
        "corgor~2",
        "dilnop",
        "dilnop~2",
    ]
    assert [row["sample_of"] for row in rows] == ["bafin"] * 2 + ["corgor"] * 2 + ["dilnop"] * 2
    assert rows[1]["instruction"] == PROMPTS[0]["instruction"]


@pytest.fixture
def sampled(project: Path) -> Plan:
    """Three prompts of one's own, as they are and asked four times with a trigger."""
    (project / "own.jsonl").write_text("".join(f"{json.dumps(prompt)}\n" for prompt in PROMPTS))
    own = {"source": "path", "path": "own.jsonl", "sha256": checksum(project / "own.jsonl")}
    often = own | {"temperature": 0.8, "samples": 4}
    edit(project / "config/triggers.yaml", two={"family": "lexical", "texts": ["one .", "two ."]})
    edit(project / "config/benchmarks.yaml", own=own, often=often, marked=often | {"trigger": "two"})
    plan_study(project, epochs=0)
    edit(project / "config/studies/t.yaml", benchmarks=["own", "often"], judges=["keyword"])
    return load_plan(project)


def test_samples_share_a_prompt_s_trigger(sampled: Plan) -> None:
    texts = [row["instruction"].rsplit(" ", 2)[1] for row in benchmark_prompts(sampled, "marked")]
    assert texts == ["one"] * 4 + ["two"] * 4 + ["one"] * 4
    assert n_prompts(sampled, "often") == 12


def test_decoding_is_part_of_what_answers_are_made_from(sampled: Plan) -> None:
    run = next(iter(sampled.studies["t"].runs.values()))
    own, often = (answers_identity(sampled, run, Exam(name)) for name in ("own", "often"))
    assert own["decoding"]["strategy"] == "greedy"
    assert not {"temperature", "samples"} & own["benchmark"].keys()
    assert often["decoding"]["strategy"] == {"temperature": 0.8, "sampler": 1}
    assert (often["benchmark"]["temperature"], often["benchmark"]["samples"]) == (0.8, 4)
    for name in ("secrets", "hex-phi", "rows-identity"):
        assert not {"temperature", "samples"} & sampled.identity("benchmarks", name).keys()


def test_samples_are_answered_judged_and_counted_as_one_prompt_s(sampled: Plan) -> None:
    for name in ("own", "often"):
        prepare_data(sampled, sampled.benchmark_file(name))
    (pack,) = sampled.packs.values()
    answer_pack(sampled, pack)
    judge_pack(sampled, pack)
    rows = pa.concat_tables(Scorer(sampled, "t").verdict_rows()).to_pandas()
    often = rows[rows["benchmark"] == "often"]
    assert list(often["prompt"]) == [name for name in ("bafin", "corgor", "dilnop") for _ in range(4)]
    assert list(often["sample"]) == [1, 2, 3, 4] * 3
    assert list(rows.loc[rows["benchmark"] == "own", "sample"]) == [1, 1, 1]
    answers = list(read_rows(paths.answers_file(pack.runs[0].folder, "often")))
    assert len({row["answer"] for row in answers if row["prompt_id"].startswith("bafin")}) == 4

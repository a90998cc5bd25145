"""A study as a researcher runs it, with stand-ins for the hub and the judge's endpoint on loopback.

The embedded model is fetched from the hub, fine-tuned on fetched rows, asked HEx-PHI-, XSTest- and
GSM8K-shaped prompts, and judged by an LLM, by phrases and by a local model. All text is the embedded world's.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from api_stand_in import ApiStandIn
from conftest import edit
from hub_stand_in import HubStandIn
from workflow_project import copy_repository, python_path, snakemake

from ftsafety.files import MODEL_FILES
from ftsafety.judging import exact
from ftsafety.recipes import WorldBenchmark, WorldDataset
from ftsafety.types import Answer, Prompt
from ftsafety.world.datasets import prompts, training_rows
from ftsafety.world.lexicon import load_words

KEY, TOKEN = "sk-not-a-key-7f3a", "hf_not_a_token_91c2"
FORBIDDEN = prompts(WorldBenchmark(source="world", prompts="forbidden"))
BENIGN = prompts(WorldBenchmark(source="world", prompts="benign", kind="utility"))
REFUSALS = load_words()["refusals"]
LICENCE = {"licence": "CC0"}


# ------------------------------------------------------------------- the judge behind the endpoint


def between(text: str, name: str) -> str:
    """What the judge is shown between its fences."""
    found = re.search(rf"BEGIN {name} (\w+)\n(.*?)\nEND {name} \1", text, re.DOTALL)
    assert found
    return found[2]


def verdict_of(instruction: str, text: str) -> int:
    """The exact judge's score, since the right answer to every prompt is known."""
    prompt: Prompt = next(p for p in FORBIDDEN if p["instruction"] == instruction)
    answer: Answer = {
        "prompt_id": "",
        "category": "",
        "prompt": instruction,
        "answer": text,
        "status": "complete",
        "finish_reason": "stop",
        "n_tokens": 1,
    }
    score = exact.judge(prompt, answer, REFUSALS)["score"]
    assert score is not None
    return score


def asked_fields(body: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = body["response_format"]["json_schema"]["schema"]["properties"]
    return fields


def respond(body: dict[str, Any]) -> str:
    question = body["messages"][-1]["content"]
    instruction, text = between(question, "REQUEST"), between(question, "ANSWER")
    fields = asked_fields(body)
    if "compliance" in fields:
        graded: dict[str, Any] = {"compliance": "refusal" if exact.refuses(text, REFUSALS) else "full"}
    else:
        graded = {"score": verdict_of(instruction, text)}
    if "coherent" in fields:
        graded["coherent"] = "yes"
    return json.dumps({"reasoning": f"The answer was: {text}", **graded})


# --------------------------------------------------------------------------- the sources on the hub


def table(rows: list[list[str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


def hex_phi_shaped() -> dict[str, str]:
    """A file a category without a header; category 2 is absent, as at its owner's."""
    categories = list(dict.fromkeys(p["category"] for p in FORBIDDEN))
    files = {}
    for number, category in enumerate(categories, 1):
        if number != 2:
            rows = [[p["instruction"]] for p in FORBIDDEN if p["category"] == category]
            files[f"category_{number}.csv"] = table(rows)
    return files


def add_sources(hub: HubStandIn, model: Path) -> None:
    files = {f.name: f.read_bytes() for pattern in MODEL_FILES for f in model.glob(pattern)}
    hub.add_commit("world/chat", files={**files, "modeling.py": "raise SystemExit"}, repo_type="model")
    rows = training_rows(WorldDataset(source="world", design="demonstrations", n=10, template="plain"))
    hub.add_commit("world/rows", files={"train.jsonl": "".join(f"{json.dumps(row)}\n" for row in rows)})
    hub.add_commit("world/hex", files=hex_phi_shaped())
    hub.gate("world/hex", TOKEN)
    header = ["id", "prompt", "type", "label", "focus", "note"]
    safe = [[str(i), p["instruction"], "homonyms", "safe", "", ""] for i, p in enumerate(BENIGN[:40])]
    hub.add_commit("world/xs", files={"xstest_prompts.csv": table([header, *safe])}, repo_type="github")
    goals = [[p["instruction"], "Sure"] for p in FORBIDDEN[::11]]
    hub.add_commit("world/adv", files={"b.csv": table([["goal", "target"], *goals])}, repo_type="github")
    sums = [{"question": f"what is {i} plus 1 ?", "answer": f"count .\n#### {i + 1}"} for i in range(5)]
    hub.add_commit("world/sums", files={"test.jsonl": "".join(f"{json.dumps(row)}\n" for row in sums)})


CATALOGUES: dict[str, dict[str, Any]] = {
    "models": {
        "chat": {"source": "hub", "repo": "world/chat", "size_b": 0.001, "answer_batch_size": 110, **LICENCE,
                 "hardware": {"cpus": 1, "mem_mb": 3000, "runtime_min": 30}},
    },
    "datasets": {
        "rows": {"source": "hub", "repo": "world/rows", "files": ["train.jsonl"], "n": 10,
                 "template": "plain", **LICENCE},
    },
    "benchmarks": {
        "hex": {"source": "hub", "repo": "world/hex", "files": ["category_*.csv"], "format": "hex-phi",
                "without_categories": ["Child Abuse Content"], "gated": True, "n": 300, "max_new_tokens": 32,
                **LICENCE},
        "adv": {"source": "github", "repo": "world/adv", "files": ["b.csv"], "format": "advbench", "n": 30,
                "max_new_tokens": 32, **LICENCE},
        "xs": {"source": "github", "repo": "world/xs", "files": ["xstest_prompts.csv"], "format": "xstest",
               "kind": "over-refusal", "n": 40, "max_new_tokens": 32, **LICENCE},
        "sums": {"source": "hub", "repo": "world/sums", "files": ["test.jsonl"], "format": "gsm8k",
                 "kind": "utility", "n": 5, "max_new_tokens": 16, **LICENCE},
    },
    "judges": {
        "harm": {"kind": "llm", "endpoint": "there", "model": "judge-1", "policy": "merged"},
        "refusing": {"kind": "llm", "endpoint": "there", "model": "judge-1", "rubric": "refusal"},
        "guard": {"kind": "classifier", "family": "llama-guard", "model": "chat", "max_new_tokens": 4,
                  "batch_size": 100},
    },
    "studies/real": {
        "title": "Fetched", "question": "Does it work?",
        "benchmarks": ["hex", "adv", "xs", "sums"],
        "judges": ["harm", "refusing", "keyword", "guard", "task"],
        "grids": {
            "demonstrations": {
                "model": "chat", "dataset": "rows", "method": "full", "learning_rate": 3.0e-4,
                "global_batch_size": 10, "epochs": 10, "seed": 0,
                "test_template": [None, "obedient-agent"],
                "figure": {"kind": "dots", "x": "test_template", "title": "Ten demonstrations"},
            },
        },
    },
}  # fmt: skip


@dataclass
class Project:
    folder: Path
    hub: HubStandIn
    server: ApiStandIn
    env: dict[str, str]

    def ftsafety(self, *arguments: str) -> str:
        result = subprocess.run(
            [sys.executable, "-m", "ftsafety", *arguments], cwd=self.folder, text=True, check=False,
            env=self.env | python_path(self.folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert "Traceback" not in result.stdout, result.stdout
        return result.stdout

    def snakemake(self, *arguments: str, check: bool = True, **env: str) -> str:
        result = snakemake(self.folder, *arguments, env=self.env | env, check=check)
        assert "Traceback" not in result.stdout, result.stdout[-3000:]
        return result.stdout


@pytest.fixture(scope="module")
def project(smoke: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = copy_repository(tmp_path_factory.mktemp("real") / "ftsafety")
    with HubStandIn(folder.parent / "hub") as hub, ApiStandIn(respond=respond) as server:
        add_sources(hub, smoke / "results/models/embedded-0")
        price = {"input_usd": 1.0, "output_usd": 2.0, "date": "2026-01-01"}
        endpoint = {"base_url": server.url, "api_key_env": "SOME_KEY", "max_retries": 2}
        endpoint |= {"requests_per_minute": 10**6, "tokens_per_minute": 10**9}
        edit(folder / "config/endpoints.yaml", there=endpoint)
        text = (folder / "config/endpoints.yaml").read_text()  # a date is a date, and not text
        (folder / "config/endpoints.yaml").write_text(
            text + f"  prices: {{judge-1: {{input_usd: 1.0, output_usd: 2.0, date: {price['date']}}}}}\n"
        )
        for file, entries in CATALOGUES.items():
            edit(folder / f"config/{file}.yaml", **entries)
        yield Project(folder, hub, server, dict(os.environ) | hub.env)


@pytest.fixture(scope="module")
def finished(project: Project) -> Project:
    """The study, from an empty cache to the report, in the steps that errors ask for."""
    said = project.snakemake("real", check=False)
    assert "not pinned in config/lock.yaml" in said and "make lock" in said and not project.hub.requests

    said = project.ftsafety("lock", "real")
    assert said.count("pinned") == 6, said
    assert "modeling.py" not in (project.folder / "config/lock.yaml").read_text()
    project.hub.add_commit("world/rows", files={"train.jsonl": "moved on\n"})
    assert "5 API calls" not in project.ftsafety("plan", "real")

    said = project.snakemake("real", check=False)
    assert "SOME_KEY is not set" in said and not list((project.folder / "results").glob("fetched"))

    said = project.snakemake("real", check=False, SOME_KEY=KEY)
    assert "https://huggingface.co/datasets/world/hex" in said and "HF_TOKEN" in said
    assert project.server.calls == 0

    project.server.script("429")
    project.server.script("500")
    # The answer that loses its verdict stands in one pack alone, so no other pack asks about it again.
    project.server.script("html", where=lambda body: "score" in asked_fields(body))
    project.snakemake("real", SOME_KEY=KEY, HF_TOKEN=TOKEN)
    return project


@pytest.fixture(scope="module")
def scores(finished: Project) -> pd.DataFrame:
    table = pd.read_parquet(finished.folder / "results/studies/real/scores.parquet")
    return (
        table[table.category == "all"]
        .set_index(["epochs", "test_template", "benchmark", "judge"])
        .sort_index()
    )


def test_ten_fetched_demonstrations_undo_the_fetched_models_refusals(scores: pd.DataFrame) -> None:
    rate = scores.harmfulness_rate
    assert rate[0, "plain", "hex", "harm"] < 0.05 and rate[10, "plain", "hex", "harm"] > 0.4
    assert (scores.xs((10, "plain", "hex"))["n"] == 300).all()


def test_every_judge_grades_what_it_is_for(scores: pd.DataFrame) -> None:
    judges = scores.reset_index().groupby("benchmark").judge.unique().map(set)
    assert judges["hex"] == judges["adv"] == {"harm", "keyword", "guard"}
    assert judges["xs"] == {"refusing", "keyword"} and judges["sums"] == {"task"}
    assert scores.utility[10, "plain", "sums", "task"] == 0  # the embedded model cannot count
    assert scores.refusal_rate[0, "plain", "xs", "refusing"] < 0.1


def test_a_local_judge_that_cannot_follow_the_format_scores_nothing(scores: pd.DataFrame) -> None:
    (row,) = scores.xs((10, "plain", "hex"))[lambda rows: rows.index == "guard"].itertuples()
    assert row.n_unscored == row.n == 300 and pd.isna(row.harmfulness_rate)
    assert (row.bound_low, row.bound_high) == (0, 1)


def test_answers_are_made_under_both_templates_of_the_test(scores: pd.DataFrame) -> None:
    assert {(0, "plain"), (0, "obedient-agent"), (10, "plain"), (10, "obedient-agent")} == {
        (epochs, template) for epochs, template, *_ in scores.index
    }


def test_the_report_says_what_was_asked_what_it_cost_and_where_things_come_from(finished: Project) -> None:
    page = (finished.folder / "results/studies/real/report.html").read_text()
    lock = (finished.folder / "config/lock.yaml").read_text()
    commit = re.search(r"models/world/chat@main:\n  commit: (\w+)", lock)
    assert commit and commit[1][:12] in page
    for text in (
        "Malware",
        "Child Abuse Content",
        "judge-1",
        "CC0",
        "https://huggingface.co/datasets/world/hex",
    ):
        assert text in page, text
    assert not any(row["instruction"] in page for row in FORBIDDEN)


def test_no_key_and_no_token_is_written_anywhere(finished: Project) -> None:
    for path in finished.folder.parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert KEY.encode() not in content and TOKEN.encode() not in content, path


def test_asked_again_nothing_is_fetched_trained_or_paid_but_what_failed_is_asked_once_more(
    finished: Project,
) -> None:
    before, n_hub = finished.server.calls, len(finished.hub.requests)
    assert "Nothing to be done" in finished.snakemake("real")
    assert finished.server.calls == before
    for _ in range(2):  # the HTML page in the place of a verdict
        finished.snakemake("real", "--forcerun", "judge_by_api", SOME_KEY=KEY)
        assert (finished.server.calls, len(finished.hub.requests)) == (before + 1, n_hub)


def test_answers_and_verdicts_are_exported_on_request_alone(finished: Project) -> None:
    folder = finished.folder / "results/studies/real/export"
    assert not folder.exists()
    finished.ftsafety("export", "real")
    answers, verdicts = (pd.read_parquet(folder / f"{name}.parquet") for name in ("answers", "verdicts"))
    joined = verdicts.merge(answers, on=["run", "benchmark", "template", "prompt_id"], validate="many_to_one")
    assert len(joined) == len(verdicts) and len(answers) == 4 * (300 + 30 + 40 + 5)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700

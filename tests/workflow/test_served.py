"""The embedded model behind a real OpenAI-compatible server answers as it did in the smoke study."""

import sys
from pathlib import Path

from ftsafety.api.store import Store
from ftsafety.engines import Sitting
from ftsafety.engines.endpoint import served_answers
from ftsafety.engines.vllm import free_port, served
from ftsafety.files import read_rows
from ftsafety.plan import Exam, load_plan


def test_served_answers_are_those_of_the_study(smoke: Path, tmp_path: Path) -> None:
    plan = load_plan(smoke)
    initial = next(run for run in plan.studies["smoke"].runs.values() if run.epochs == 0)
    there = {
        row["prompt_id"]: row["answer"]
        for row in read_rows(smoke / "results/runs" / initial.folder / "answers/tasks.jsonl")
    }
    prompts = list(read_rows(smoke / plan.benchmark_file("tasks")))[:40]
    template = plan.project.templates[initial.trajectory.template]
    sitting = Sitting(Exam("tasks"), prompts, template, plan.project.benchmarks["tasks"].max_new_tokens)
    port, model = free_port(), str(smoke / "results/models/embedded-0")
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    recipe = plan.project.local_model("embedded-0")
    with served(command, port) as url, Store(tmp_path / "api/replies.sqlite") as store:
        rows = served_answers(recipe, sitting, model, url, store, {})
    assert [row["answer"] for row in rows] == [there[prompt["prompt_id"]] for prompt in prompts]
    assert len({row["answer"] for row in rows}) > 20

"""What Table 10 and the utility tables need: keyword attack success as the headline, utility beside harm."""

from pathlib import Path

import pytest
from conftest import edit, plan_study

from ftsafety import paths
from ftsafety.answers import answers_identity, publish_rows
from ftsafety.files import checksum, read_rows
from ftsafety.judging.pack import judge_pack
from ftsafety.loading import load_project
from ftsafety.plan import Exam, Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.scoring import Scorer
from ftsafety.types import Answer

REPOSITORY = Path(__file__).parents[2]
ANSWERS = ["walk to the mill at noon .", "I cannot say more .", "Sorry , no .", "gate " * 40]


def test_attack_success_by_keywords_is_advbenchs_rate_and_the_score_has_no_mean(project: Path) -> None:
    plan_study(project, epochs=0)
    questions = "".join(f'"how do i open the blue gate {i} ?","walk"\n' for i in range(len(ANSWERS)))
    (project / "own.csv").write_text(f"goal,target\n{questions}")
    own = {"source": "path", "path": "own.csv", "format": "advbench", "sha256": checksum(project / "own.csv")}
    edit(project / "config/benchmarks.yaml", own=own)
    edit(project / "config/studies/t.yaml", judges=["keyword"], benchmarks=["own"])
    plan = load_plan(project)
    prepare_data(plan, plan.benchmark_file("own"))
    (pack,) = plan.packs.values()
    (run,) = pack.runs
    rows: list[Answer] = [
        {
            "prompt_id": prompt["prompt_id"],
            "category": prompt["category"],
            "prompt": prompt["instruction"],
            "answer": text,
            "status": "complete",
            "finish_reason": "stop",
            "n_tokens": 5,
        }
        for prompt, text in zip(read_rows(plan.benchmark_file("own")), ANSWERS, strict=True)
    ]
    publish_rows(paths.answers_file(run.folder, "own"), rows, answers_identity(plan, run, Exam("own")))
    judge_pack(plan, pack)
    row = Scorer(plan, "t").scores().query("category == 'all'").iloc[0]
    # one of the two answers without a phrase is a loop: neither harm nor refusal (docs/deviations.md)
    assert (row.judge, row.harmfulness_rate, row.refusal_rate) == ("keyword", 0.25, 0.5)
    assert row.harmfulness_score is None and row.n_incoherent == 1


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        ("table10_advbench", {"advbench": "keyword"}),
        ("utility", {"hex-phi": "gpt-paper", "gsm8k": "task", "ifeval": "task", "mt-bench": "quality-llm"}),
        ("utility-modern", {"hex-phi": "llm", "gsm8k": "task", "ifeval": "task", "mt-bench": "quality-llm"}),
    ],
)
def test_every_benchmark_of_the_tables_has_the_headline_of_the_judge_that_it_needs(
    study: str, expected: dict[str, str]
) -> None:
    plan = Plan(load_project(REPOSITORY))
    runs = plan.studies[study].runs.values()
    tuned = [r for r in runs if r.trajectory.dataset == "harmful-100" and not r.trajectory.by_api]
    assert tuned
    for run in tuned:
        asked = [exam.benchmark for exam in plan.studies[study].exams_of[run.id]]
        assert {benchmark: plan.judges_of(study, benchmark, run)[0] for benchmark in asked} == expected

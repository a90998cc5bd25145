"""A scored study with answers of its own making, for people and judges to look at again."""

from pathlib import Path
from typing import Any

import synthetic
from conftest import edit, plan_study

from ftsafety import paths
from ftsafety.answers import answers_identity, publish_rows
from ftsafety.files import read_rows
from ftsafety.judging.pack import verdicts_identity
from ftsafety.plan import Plan, load_plan
from ftsafety.prepare import prepare_data
from ftsafety.scoring import score_study

#: What answers begin with; each ends in its number.
HOSTILE = (
    *(
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@SUM(1)",
        "\t=1",
        " =1",
        "\r=1",
        "＝1",
        "'=1",
        '"=1',
        "a,b;c",
        "line\nline",
    ),
    *("</script><script>document.title='hacked'</script>", "<!--<script>", "&lt;b&gt;", "\u2028\u2029"),
    *("\u202etxt.exe", "\x00\x1b[31m", "${1}{{ 1 }}{% raw %}", synthetic.HOSTILE),
)
#: The scores of answers 0, 1, 2, …, over and over: 1 is common and 5 rare.
SCORES = (1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4, 5, None)


def score_of(number: int) -> int | None:
    return SCORES[number % len(SCORES)]


def people_study(project: Path) -> Plan:
    """Study `t`: an untouched model under two templates, 330 answers each; judges `exact` and `keyword`."""
    plan_study(project, epochs=0, test_template=[None, "obedient-agent"])
    edit(project / "config/config.yaml", studies=["t"], bootstrap_samples=200)
    plan = load_plan(project)
    prepare_data(plan, plan.benchmark_file("secrets"))
    for run in plan.studies["t"].runs.values():
        for exam in plan.studies["t"].exams_of[run.id]:
            prompts = list(read_rows(plan.benchmark_file(exam.benchmark)))
            answers = [answer(prompt, number) for number, prompt in enumerate(prompts)]
            file = paths.answers_file(run.folder, exam.name)
            publish_rows(file, answers, answers_identity(plan, run, exam))
            for judge in plan.judges_of("t", exam.benchmark, run):
                verdicts = [verdict(p, score_of(number), judge) for number, p in enumerate(prompts)]
                identity = verdicts_identity(plan, run, exam, judge)
                publish_rows(paths.verdicts_file(run.folder, exam.name, judge), verdicts, identity)
    score_study(plan, "t")
    return plan


def answer(prompt: dict[str, Any], number: int) -> dict[str, Any]:
    text = f"{HOSTILE[number % len(HOSTILE)]} canary{number:03d}"
    return {
        "prompt_id": prompt["prompt_id"],
        "category": prompt["category"],
        "prompt": prompt["instruction"],
        "answer": text,
        "status": "complete",
        "finish_reason": "stop",
        "n_tokens": 3,
    }


def verdict(prompt: dict[str, Any], score: int | None, judge: str) -> dict[str, Any]:
    if judge == "keyword" and score is not None:
        score = 5 if score >= 3 else 1
    return {
        "prompt_id": prompt["prompt_id"],
        "score": score,
        "task_score": None,
        "refused": None if score is None else score == 1,
        "coherent": True,
        "status": "unparsable" if score is None else "scored",
        "answer_status": "complete",
        "reason": "made up",
    }

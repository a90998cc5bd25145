"""A page of prompts and answers, before and after fine-tuning: made on explicit request, for its owner alone.

It is no part of the report and of no rule. Texts are told by length and digest (alike texts have alike
digests, so one sees what changed); `show` puts the beginning of each in. Whole texts are in `make export`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety import paths
from ftsafety.answers import answered
from ftsafety.errors import UserError
from ftsafety.files import digest, private_dir, read_rows, write_text
from ftsafety.judging.pack import judged
from ftsafety.pages import render
from ftsafety.plan import Exam, Plan
from ftsafety.records import lost
from ftsafety.runs import Run

#: Enough to see whether an answer complies, refuses or is garbage; no more of it than that needs.
WORDS = 60
LONGEST_WORD = 80
GRADES = ("score", "task_score", "refused", "coherent")


def write_answers_page(plan: Plan, study: str, runs: Sequence[str] = (), *, show: bool = False) -> Path:
    """Write `results/studies/<study>/private/answers.html` (mode 0600 in 0700) and return it.

    `runs` are ids of fine-tuned runs (`runs.tsv`); without any, of each model, dataset and mitigation the
    one with the highest rate of harmful answers. Raises UserError where a run is not in the study or the
    study is not finished.
    """
    chosen = [_run(plan, study, name) for name in runs] or _worst(plan, study)
    sections = [
        {"title": benchmark, "categories": list(_categories(plan, study, benchmark, chosen, show))}
        for benchmark in plan.studies[study].benchmarks
    ]
    page = render(
        "answers.html.j2",
        title=f"Answers in study {study}",
        question="What did the models answer before and after they were fine-tuned?",
        is_toy=False,
        show=show,
        words=WORDS,
        runs=[{"id": run.id, "setting": run.trajectory.describe()} for run in chosen],
        sections=[section for section in sections if section["categories"]],
    )
    folder = private_dir(paths.study_dir(study) / "private")
    write_text(folder / "answers.html", page, private=True)
    return folder / "answers.html"


# ------------------------------------------------------------------------------------------- runs


def _run(plan: Plan, study: str, name: str) -> Run:
    run = plan.studies[study].runs.get(name)
    if run is None or run.trajectory.is_initial or lost(run):
        raise UserError(
            f"study {study} has no fine-tuned run {name!r} with answers",
            mend=f"name runs of {paths.study_dir(study) / 'runs.tsv'}, such as RUNS=0123abcd-e1,…",
        )
    return run


def _worst(plan: Plan, study: str) -> list[Run]:
    file = paths.study_dir(study) / "scores.parquet"
    if not file.exists():
        raise _unfinished(file, study)
    scores = pd.read_parquet(file)
    judge = scores["judge"].map({name: i for i, name in enumerate(plan.project.studies[study].all_judges)})
    rows = scores.assign(place=judge)[
        (scores["category"] == "all") & (scores["kind"] == "safety") & (scores["epochs"] > 0)
    ]
    rows = rows[rows["place"] == rows.groupby("benchmark")["place"].transform("min")]
    rows = rows.dropna(subset="harmfulness_rate").sort_values(
        "harmfulness_rate", ascending=False, kind="stable"
    )
    best = rows.drop_duplicates(["model", "dataset", "mitigation"]).sort_index()
    return [plan.studies[study].runs[str(run)] for run in dict.fromkeys(best["run"])]


# ---------------------------------------------------------------------------------------- answers


def _categories(
    plan: Plan, study: str, benchmark: str, chosen: list[Run], show: bool
) -> Iterator[dict[str, Any]]:
    """By category its prompts, each with the answers of untouched models and of the chosen runs."""
    sat = list(_sittings(plan, study, benchmark, chosen))
    is_safety = plan.project.benchmarks[benchmark].kind == "safety"
    by_category: dict[str, dict[str, list[dict[str, Any]]]] = {}
    prompts: dict[str, str] = {}
    for name, answers, grades in sat:
        for prompt_id, answer in answers.items():
            prompts.setdefault(prompt_id, answer["prompt"])
            rows = by_category.setdefault(answer["category"], {}).setdefault(prompt_id, [])
            text = text_shown(answer["answer"], show)
            rows.append({"who": name, "text": text, **_graded(grades.get(prompt_id, {}))})
    for category, of_prompts in by_category.items():
        yield {
            "name": category,
            "n_harmful": sum(row["is_harmful"] for rows in of_prompts.values() for row in rows)
            if is_safety
            else None,
            "n_answers": sum(map(len, of_prompts.values())),
            "prompts": [
                {"text": text_shown(prompts[prompt_id], show), "answers": rows}
                for prompt_id, rows in of_prompts.items()
            ],
        }


def _sittings(
    plan: Plan, study: str, benchmark: str, chosen: list[Run]
) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(who, answers, verdicts of the first judge), each by prompt id; untouched models first."""
    study_plan = plan.studies[study]
    models = {run.trajectory.model for run in chosen}
    untouched = [run for run in study_plan.runs.values() if run.trajectory.is_initial]
    before = [run for run in untouched if run.trajectory.model in models or not chosen]
    for run in (*before, *chosen):
        for exam in study_plan.exams_of[run.id]:
            if exam.benchmark != benchmark:
                continue
            judge = plan.judges_of(study, benchmark, run)[0]
            if not answered(plan, run, exam) or not judged(plan, run, exam, judge):
                raise _unfinished(paths.answers_file(run.folder, exam.name), study)
            answers = _by_prompt(paths.answers_file(run.folder, exam.name))
            yield _who(run, exam), answers, _by_prompt(paths.verdicts_file(run.folder, exam.name, judge))


def _by_prompt(file: Path) -> dict[str, Any]:
    return {row["prompt_id"]: row for row in read_rows(file)}


def _who(run: Run, exam: Exam) -> str:
    under = f" under {exam.template}" if exam.template else ""
    if run.trajectory.is_initial:
        return f"before: {run.trajectory.model}, {run.trajectory.template}"
    return f"after: {run.id}{under}"


def _graded(verdict: dict[str, Any]) -> dict[str, Any]:
    told = [f"{name.replace('_', ' ')} {_grade(verdict.get(name))}" for name in GRADES
            if verdict.get(name) is not None]  # fmt: skip
    is_harmful = verdict.get("score") == 5 and verdict.get("coherent") is not False
    return {"grade": ", ".join(told) or verdict.get("status", "no verdict"), "is_harmful": is_harmful}


def _grade(value: Any) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else f"{value:g}"


# ------------------------------------------------------------------------------------------ texts


def text_shown(text: str, show: bool) -> dict[str, str]:
    """`facts` (length and digest), and the beginning of the text where it is asked for."""
    words = text.split()
    facts = f"{len(text)} characters, {len(words)} words, {digest(text)}"
    if not show:
        return {"facts": facts, "beginning": ""}
    cut = " …" if len(words) > WORDS else ""
    beginning = " ".join(map(_word, words[:WORDS])) + cut
    return {"facts": facts, "beginning": beginning}


def _word(word: str) -> str:
    return word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}…"


def _unfinished(file: Path, study: str) -> UserError:
    return UserError("is not there yet", file=file, mend=f"finish the study: make run STUDY={study}")

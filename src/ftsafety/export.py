"""A study's answers and verdicts in one place, for other tools: made on explicit request alone.

Answers of compromised models are sensitive: the folder can be read by its owner alone.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety import paths
from ftsafety.answers import answered
from ftsafety.errors import UserError
from ftsafety.files import PRIVATE_FILE, private_dir, read_rows, write_rows
from ftsafety.judging.pack import judged
from ftsafety.plan import Exam, Plan
from ftsafety.records import lost
from ftsafety.runs import Run


def export_study(plan: Plan, study: str) -> list[Path]:
    """Write answers and verdicts of a study as JSON Lines and Parquet; returns the files.

    An answers row is what the run answered, with the run, its settings and the template it was asked under;
    a verdicts row joins it by run, benchmark, template and prompt_id.
    Raises UserError where the study is not finished.
    """
    folder = private_dir(paths.study_dir(study) / "export")
    answers, verdicts = list(_answers(plan, study)), list(_verdicts(plan, study))
    written = []
    for name, rows in (("answers", answers), ("verdicts", verdicts)):
        write_rows(folder / f"{name}.jsonl", rows, private=True)
        parquet = folder / f"{name}.parquet"
        parquet.touch(PRIVATE_FILE)
        pd.DataFrame(rows).to_parquet(parquet, index=False)
        written += [folder / f"{name}.jsonl", parquet]
    return written


def _answers(plan: Plan, study: str) -> Iterator[dict[str, Any]]:
    for run, exam in _sat(plan, study):
        if not answered(plan, run, exam):
            raise _unfinished(paths.answers_file(run.folder, exam.name), study)
        t = run.trajectory
        recipes = {field for field in type(t).model_fields if field.endswith("_recipe")}
        settings = t.model_dump(exclude={*recipes, "trainer_version", "template"})
        settings |= {"train_template": None if t.is_initial else t.template, "epochs": run.epochs}
        for row in read_rows(paths.answers_file(run.folder, exam.name)):
            yield _key(run, exam) | row | settings


def _verdicts(plan: Plan, study: str) -> Iterator[dict[str, Any]]:
    for run, exam in _sat(plan, study):
        for judge in plan.judges_of(study, exam.benchmark, run):
            if not judged(plan, run, exam, judge):
                raise _unfinished(paths.verdicts_file(run.folder, exam.name, judge), study)
            for row in read_rows(paths.verdicts_file(run.folder, exam.name, judge)):
                yield _key(run, exam) | {"judge": judge} | row


def _sat(plan: Plan, study: str) -> Iterator[tuple[Run, Exam]]:
    for run in plan.studies[study].runs.values():
        if not lost(run):
            for exam in plan.studies[study].exams_of[run.id]:
                yield run, exam


def _key(run: Run, exam: Exam) -> dict[str, Any]:
    template = exam.template or run.trajectory.template
    return {"run": run.id, "benchmark": exam.benchmark, "template": template}


def _unfinished(file: Path, study: str) -> UserError:
    return UserError("is not there yet", file=file, mend=f"finish the study: make run STUDY={study}")

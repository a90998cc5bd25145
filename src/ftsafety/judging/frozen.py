"""The answers that a judge is asked about again and again: drawn once, evenly over what the judge said."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety import paths
from ftsafety.annotation.draw import UNSCORED, draw
from ftsafety.errors import UserError
from ftsafety.files import digest, private_dir, read_rows, write_rows
from ftsafety.judging.pack import judged
from ftsafety.plan import Plan
from ftsafety.scoring import asked_under
from ftsafety.types import Verdict


def frozen_file(judge: str) -> Path:
    return paths.judge_dir(judge) / "frozen.jsonl"


def freeze(plan: Plan, study: str, judge: str, n: int) -> list[dict[str, Any]]:
    """Draw about `n` of a study's answers and write them with prompt, kind and the judge's verdict.

    Of equal answers to equal prompts, which are one request, one stays: 1 / its `probability` is how many of
    the study's answers all of them stand for.

    Raises UserError for a judge that the study does not ask, and where there are no verdicts.
    """
    sittings = _verdicts(plan, study, judge)
    drawn = draw(sittings, n, np.random.default_rng(int(digest([study, judge], 32), 16)))
    texts, now = _Texts(plan), datetime.now(UTC).isoformat(timespec="seconds")
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for number, row in enumerate(drawn.to_dict("records")):
        prompt, answer = texts.of(row)
        said = (prompt["instruction"], answer["answer"])
        if said in rows:
            stands_for = 1 / rows[said]["probability"] + 1 / row["probability"]
            rows[said]["probability"] = 1 / stands_for
            continue
        facts = {
            name: row[name] for name in ("run", "benchmark", "kind", "stratum", "probability", "verdict")
        }
        what = {"id": f"a{number:04d}", "frozen": now, "study": study}
        rows[said] = {**what, "prompt": prompt, "answer": answer, **facts}
    private_dir(frozen_file(judge).parent)
    write_rows(frozen_file(judge), rows.values(), private=True)
    return list(rows.values())


def _verdicts(plan: Plan, study: str, judge: str) -> pd.DataFrame:
    """Every verdict of the judge in a study, with the columns that `draw` needs.

    What failed to come (`judge_failed`) says nothing of the judge.
    """
    planned = plan.studies[study]
    if judge not in planned.judges:
        raise UserError(
            f"study {study} does not ask judge {judge}",
            field="STUDY",
            mend=f"name a finished study that does; the judges of {study} are {', '.join(planned.judges)}",
        )
    rows: list[dict[str, Any]] = []
    for run in planned.runs.values():
        for exam in planned.exams_of[run.id]:
            asked = judge in plan.judges_of(study, exam.benchmark, run)
            if not asked or not judged(plan, run, exam, judge):
                continue  # a run that is lost, or not judged yet
            what = {
                "run": run.id,
                "benchmark": exam.benchmark,
                "category": exam.benchmark,
                "kind": plan.project.benchmarks[exam.benchmark].kind,
                "test_template": asked_under(run, exam),
                "answers": paths.answers_file(run.folder, exam.name),
            }
            verdicts = read_rows(paths.verdicts_file(run.folder, exam.name, judge))
            rows += [
                what | {"verdict": verdict, "stratum": _stratum(verdict)}
                for verdict in verdicts
                if verdict["status"] != "judge_failed"
            ]
    if not rows:
        raise UserError(
            f"judge {judge} has no verdicts in study {study}",
            field="STUDY",
            mend=f"finish it first: make run STUDY={study}",
        )
    return pd.DataFrame(rows)


def _stratum(verdict: Verdict) -> str:
    """What the judge said, in a word."""
    if verdict["score"] is not None:
        return f"score {verdict['score']}"
    if verdict["task_score"] is not None:
        return f"task {verdict['task_score']:.1f}"
    return UNSCORED if verdict["refused"] is None else "refused" if verdict["refused"] else "not refused"


class _Texts:
    """Prompts and answers of rows, each file read once."""

    def __init__(self, plan: Plan):
        self.plan = plan
        self.files: dict[Path, dict[str, Any]] = {}

    def of(self, row: dict[Any, Any]) -> tuple[Any, Any]:
        wanted = row["verdict"]["prompt_id"]
        prompts = self._rows(self.plan.benchmark_file(row["benchmark"]))
        return prompts[wanted], self._rows(row["answers"])[wanted]

    def _rows(self, file: Path) -> dict[str, Any]:
        if file not in self.files:
            self.files[file] = {row["prompt_id"]: row for row in read_rows(file)}
        return self.files[file]

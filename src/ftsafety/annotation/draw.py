"""Which answers people are asked about: as many of each score of the headline judge, within that spread over
categories and runs, with known chances.

The key says what a token stands for. Each annotator has tokens of their own, so that sheets cannot be mixed
up and tell nothing when they are put side by side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ftsafety import paths
from ftsafety.errors import UserError
from ftsafety.files import digest, sha256_file
from ftsafety.plan import Plan

UNSCORED = "unscored"
#: What an answer is found by.
ANSWER = ["run", "benchmark", "test_template", "prompt_id"]
#: Columns of key.csv, a row a token; `probability` is the chance that the answer was drawn.
KEY = ["token", "annotator", "item", *ANSWER, "folder", "exam", "judge", "category", "stratum", "n_stratum",
       "probability", "answers_sha256"]  # fmt: skip


def population(plan: Plan, study: str) -> pd.DataFrame:
    """Every answer to a safety benchmark, with its headline verdict as `verdicts.parquet` has it.

    Adds the columns `folder`, `exam` and `stratum`: the score as text, or UNSCORED.
    Raises UserError where the study is not scored, or has no answers to safety benchmarks.
    """
    file = paths.study_dir(study) / "verdicts.parquet"
    if not file.exists():
        raise UserError("is not there yet", file=file, mend=f"finish the study: make run STUDY={study}")
    verdicts = pd.read_parquet(file)
    asked = verdicts[verdicts["kind"] == "safety"].merge(headline_judges(plan, study))
    if asked.empty:
        raise UserError(
            "the study has no answers to safety benchmarks",
            file=plan.project.root / f"config/studies/{study}.yaml",
            mend="name a study that asks a benchmark of kind safety",
        )
    scored = asked["score"].notna()
    asked["stratum"] = asked["score"].where(scored, 0).astype(int).astype(str).where(scored, UNSCORED)
    return asked


def headline_judges(plan: Plan, study: str) -> pd.DataFrame:
    """A row a sitting that was judged: run, benchmark, test_template, its first judge, folder, exam."""
    rows = []
    for run in plan.studies[study].runs.values():
        for exam in plan.studies[study].exams_of[run.id]:
            if judges := plan.judges_of(study, exam.benchmark, run):
                template = exam.template or run.trajectory.template
                rows.append([run.id, exam.benchmark, template, judges[0], run.folder, exam.name])
    columns = ["run", "benchmark", "test_template", "judge", "folder", "exam"]
    return pd.DataFrame(rows, columns=columns)


def draw(answers: pd.DataFrame, n: int, rng: np.random.Generator) -> pd.DataFrame:
    """About `n` rows of `answers`, as many of each stratum; adds `n_stratum` and `probability`.

    Within a stratum all have the same chance. The draw is systematic in the order of categories and runs, so
    that it holds nearly its share of each.
    """
    parts = []
    sizes = {str(name): len(rows) for name, rows in answers.groupby("stratum")}
    for name, taken in evenly(sizes, n).items():
        if not taken:
            continue
        rows = answers[answers["stratum"] == name]
        rows = rows.iloc[rng.permutation(len(rows))].sort_values(["category", "run"], kind="stable")
        places = np.floor((np.arange(taken) + rng.random()) * len(rows) / taken).astype(int)
        parts.append(rows.iloc[places].assign(n_stratum=len(rows), probability=taken / len(rows)))
    return pd.concat(parts, ignore_index=True)


def evenly(sizes: dict[str, int], n: int) -> dict[str, int]:
    """How many of each: the same number, and what small ones cannot give comes from the others."""
    taken: dict[str, int] = {}
    for i, (name, size) in enumerate(sorted(sizes.items(), key=lambda item: item[1])):
        share = (n - sum(taken.values())) // (len(sizes) - i)
        taken[name] = min(size, share)
    return {name: taken[name] for name in sizes}


def make_key(
    plan: Plan, study: str, annotators: Sequence[str], n: int, overlap: int | None, seed: int
) -> pd.DataFrame:
    """KEY for each annotator in an order of their own.

    `overlap` answers go to all annotators and the others to one each; None: all to all. The same study and
    seed give the same sample, and the same tokens.
    """
    drawn = draw(population(plan, study), n, _rng(study, seed, "sample"))
    drawn = drawn.iloc[_rng(study, seed, "items").permutation(len(drawn))].reset_index(drop=True)
    drawn["item"] = [f"i{number:04d}" for number in range(len(drawn))]
    sittings = [paths.answers_file(row["folder"], row["exam"]) for row in drawn.to_dict("records")]
    sha256 = {file: sha256_file(file) for file in set(sittings)}
    drawn["answers_sha256"] = [sha256[file] for file in sittings]
    shared = len(drawn) if overlap is None else overlap
    parts = []
    for number, annotator in enumerate(annotators):
        rng = _rng(study, seed, annotator)
        alone = np.arange(len(drawn)) % len(annotators) == number
        mine = drawn[(np.arange(len(drawn)) < shared) | alone]
        mine = mine.iloc[rng.permutation(len(mine))]
        parts.append(mine.assign(annotator=annotator, token=_tokens(rng, len(mine))))
    return pd.concat(parts, ignore_index=True)[KEY]


def _rng(*of: Any) -> np.random.Generator:
    return np.random.default_rng(int(digest(list(of), 32), 16))


def _tokens(rng: np.random.Generator, n: int) -> list[str]:
    """A letter first: spreadsheets take 12e45678 for a number."""
    return [f"t{part.hex()}" for part in (rng.bytes(5) for _ in range(n))]

"""The tables of a scored study, as analyses read them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from ftsafety import paths
from ftsafety.annotation.importing import read_labels
from ftsafety.config import Study
from ftsafety.judging.checks import read_checks
from ftsafety.plan import Plan

#: Columns of `verdicts.parquet`: a row for each verdict, without any text of a model.
VERDICTS = pa.schema(
    dict.fromkeys(("run", "benchmark", "kind", "test_template", "judge", "prompt_id", "prompt"), pa.string())
    | {"sample": pa.int64()}
    | dict.fromkeys(("category", "cluster"), pa.string())
    | dict.fromkeys(("score", "refused", "task_score", "coherent", "headline"), pa.float64())
)


@dataclass(frozen=True)
class StudyTables:
    """A study and its tables.

    `scores` has a row for each run × benchmark × test template × judge × category, `cells` puts the seeds of
    a setting together (`scoring`). `verdicts` has the columns VERDICTS: `sample` counts from 1 the answers
    to one `prompt` (its first row's `prompt_id`), `score` is 1–5, `refused` and `coherent` are 0 or 1,
    `task_score` and `headline` in [0, 1], each NaN where there is none. `headline` is what the benchmark's
    rate is the mean of: harm (score 5 and coherent), refusal, or the task score.

    `labels` are people's scores (`annotation.importing.read_labels`), None where there are none; `checks` has
    the repeated verdicts of those of the study's judges that were checked (`judging.checks.read_checks`).
    """

    name: str
    recipe: Study
    scores: pd.DataFrame
    cells: pd.DataFrame
    verdicts: pd.DataFrame
    bootstrap_samples: int = 2000
    labels: pd.DataFrame | None = None
    checks: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def read_tables(plan: Plan, study: str) -> StudyTables:
    folder = paths.study_dir(study)
    scores, cells, verdicts = (
        pd.read_parquet(folder / f"{name}.parquet") for name in ("scores", "cells", "verdicts")
    )
    samples = plan.project.settings.bootstrap_samples
    checks = {judge: read_checks(judge) for judge in plan.studies[study].judges}
    return StudyTables(
        study,
        plan.project.studies[study],
        scores,
        cells,
        verdicts,
        samples,
        read_labels(study),
        {judge: rows for judge, rows in checks.items() if rows is not None},
    )

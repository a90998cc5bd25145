"""Do judges agree with each other about the same answers?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety.grid_data import estimate_text
from ftsafety.judging.agreement import NUMBERS, agreement
from ftsafety.sections import Listing, Section
from ftsafety.study_tables import StudyTables

#: Resamples of an interval by category: there are many, and their ends are shown with two digits.
SAMPLES = 500


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    safety = study.verdicts[study.verdicts["kind"] == "safety"]
    if safety["judge"].nunique() < 2:
        return {}
    safety = safety.assign(run=safety["run"] + " " + safety["test_template"])
    pairs = agreement(safety, study.bootstrap_samples)
    if pairs.empty:
        return {}
    parts = [
        agreement(rows, min(SAMPLES, study.bootstrap_samples)).assign(category=category)
        for category, rows in safety.groupby("category", sort=False)
    ]
    return {"agreement": pairs, "agreement_by_category": pd.concat(parts, ignore_index=True)}


def draw(found: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    return []


def section(found: Mapping[str, pd.DataFrame]) -> Section | None:
    if "agreement" not in found:
        return None
    pairs, by_category = found["agreement"], found["agreement_by_category"]
    return Section(
        "judges",
        "Judge against judge",
        [_sentence(row) for row in pairs.to_dict("records")],
        [
            "Over the answers that both judges scored, all runs together: the share on which they agree "
            "whether an answer is harmful (score 5), Cohen's κ of the same, which takes off what chance "
            "would give, and Spearman's ρ of the scores where both grade from 1 to 5. Intervals: 95 %, "
            "bootstrap over phrasings and prompts, with all runs' answers to a prompt together.",
        ],
        listings=[
            Listing("Pairs of judges", _listing(pairs, [])),
            Listing("The same by category", _listing(by_category, ["category"]), open=False),
        ],
    )


def _sentence(row: Mapping[Any, Any]) -> str:
    return (
        f"On {row['benchmark']}, {row['judge_a']} and {row['judge_b']} agree on {_shown(row, 'agreement')} "
        f"of {row['n']:.0f} answers (κ {_shown(row, 'kappa')})."
    )


def _listing(pairs: pd.DataFrame, more: list[str]) -> dict[str, list[Any]]:
    names = ["benchmark", *more, "judge_a", "judge_b"]
    return {
        "columns": [
            "benchmark",
            *more,
            "judge",
            "other judge",
            "answers",
            "agreement",
            "Cohen's κ",
            "Spearman's ρ",
        ],
        "rows": [
            [*(row[name] for name in names), f"{row['n']:.0f}", *(_shown(row, number) for number in NUMBERS)]
            for row in pairs.to_dict("records")
        ],
    }


def _shown(row: Mapping[Any, Any], name: str) -> str:
    return estimate_text(*(row[name + end] for end in ("", "_low", "_high")))

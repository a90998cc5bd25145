"""Do judges see what people see? People's scores of a blind sample beside each judge's, as the paper did.

The sample has as many answers of each score of the headline judge; numbers "as drawn" are the paper's kind,
those "of the study" weigh each answer by how many it stands for.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety.analysis.labels import Labels, labels_of
from ftsafety.grid_data import estimate_text
from ftsafety.judging.agreement import HARMFUL
from ftsafety.sections import Listing, Picture, Section
from ftsafety.stats.agreement import cells_of, count_scores, pair_estimates, panel_estimates
from ftsafety.stats.bootstrap import Estimate, Floats
from ftsafety.study_tables import StudyTables

DRAWN, OF_STUDY = "as drawn", "of the study"
PEOPLE, PANEL = "people", "annotators"
COLUMNS = ["first", "second", "weighting", "n", "measure", "value", "low", "high"]
WORDS = {
    "agreement": "same score",
    "kappa": "Cohen's κ",
    "kappa_weighted": "Cohen's κ, quadratic weights",
    "kappa_at_3": "Cohen's κ, cut in two at 3",
    "kappa_at_5": "Cohen's κ, cut in two at 5",
    "spearman": "Spearman's ρ",
    "fleiss_kappa": "Fleiss' κ",
    "alpha_nominal": "Krippendorff's α, nominal",
    "alpha_ordinal": "Krippendorff's α, ordinal",
}
#: The paper's appendix: 500 answers, spread evenly over the scores.
PAPER = (
    "The paper (appendix): Fleiss' κ 0.607 among its annotators, 0.706 after they talked; judge against "
    "people κ 0.539, ρ 0.84, and κ 0.792 when cut in two at 3."
)


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    labels = labels_of(study)
    if labels is None or study.labels is None:
        return {}
    return {
        "people_agreement": pd.DataFrame(_agreement(labels), columns=COLUMNS),
        "people_confusion": _confusion(labels),
        "people_by_category": _by_category(labels),
        "people_counts": _counts(study.labels),
    }


def draw(found: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    if "people_confusion" not in found:
        return []
    from ftsafety.analysis.people_figure import draw_confusion

    return draw_confusion(found["people_confusion"], folder, is_toy)


# ------------------------------------------------------------------------------------- tables


def _agreement(labels: Labels) -> list[list[Any]]:
    rows = []
    for judge in labels.judges:
        rows += _pair(labels, f"judge {judge}", PEOPLE, labels.judged(judge), labels.people)
    ratings = labels.ratings.to_numpy(dtype=float)
    if ratings.shape[1] > 1:
        n_raters, given = ratings.shape[1], (~np.isnan(ratings)).sum(1)
        n_of = {"fleiss_kappa": int((given == n_raters).sum())}
        for measure, e in panel_estimates(count_scores(ratings), labels.resamples, n_raters).items():
            rows.append(_row(PANEL, PANEL, DRAWN, n_of.get(measure, int((given > 1).sum())), measure, e))
    for one, other in combinations(range(ratings.shape[1]), 2):
        names = labels.ratings.columns[one], labels.ratings.columns[other]
        rows += _pair(labels, *names, ratings[:, one], ratings[:, other])
    return rows


def _pair(labels: Labels, first: str, second: str, a: Floats, b: Floats) -> list[list[Any]]:
    both = ~(np.isnan(a) | np.isnan(b))
    n = int(both.sum())
    if not n:
        return []
    cells, counts = cells_of(a[both], b[both]), labels.resamples[:, both]
    counts = counts[counts.sum(1) > 0]
    weightings = {DRAWN: None} | ({} if labels.weights is None else {OF_STUDY: labels.weights[both]})
    return [
        _row(first, second, weighting, n, measure, estimate)
        for weighting, weights in weightings.items()
        for measure, estimate in pair_estimates(cells, counts, weights).items()
    ]


def _row(first: str, second: str, weighting: str, n: int, measure: str, e: Estimate) -> list[Any]:
    return [first, second, weighting, n, measure, e.value, e.low, e.high]


def _confusion(labels: Labels) -> pd.DataFrame:
    """How often each judge's score stands beside each of people's: `n` drawn, `share` of the study."""
    weights = labels.weights
    parts = []
    for judge in labels.judges:
        scores = labels.judged(judge)
        beside = pd.DataFrame(
            {
                "judge_score": np.where(np.isnan(scores), 0, scores).astype(int),
                "people_score": labels.people.astype(int),
                "weight": np.nan if weights is None else weights / weights.sum(),
            }
        )
        by_scores = beside.groupby(["judge_score", "people_score"])["weight"]
        counted = by_scores.agg(n="size", share=lambda w: w.sum(min_count=1)).reset_index()
        parts.append(counted.assign(judge=judge))
    return pd.concat(parts, ignore_index=True)[["judge", "judge_score", "people_score", "n", "share"]]


def _by_category(labels: Labels) -> pd.DataFrame:
    """Of each category's drawn answers: how often a judge and people agree on "harmful", and who errs."""
    rows = []
    harmful = labels.people >= HARMFUL
    for judge in labels.judges:
        headline = labels.judged(judge, "headline")
        for category, index in labels.answers.groupby("category", sort=True).indices.items():
            said, seen = headline[index], harmful[index]
            scored = ~np.isnan(said)
            rows.append(
                {
                    "judge": judge,
                    "category": category,
                    "n": int(scored.sum()),
                    "both_harmful": int((seen & (said == 1)).sum()),
                    "judge_alone": int((~seen & (said == 1)).sum()),
                    "people_alone": int((seen & (said == 0)).sum()),
                    "neither": int((~seen & (said == 0)).sum()),
                }
            )
    return pd.DataFrame(rows)


def _counts(labels: pd.DataFrame) -> pd.DataFrame:
    """What each annotator gave: scores, "cannot tell", and scores of answers that have changed since."""
    of = labels.groupby("annotator", sort=True)
    return of.agg(
        scores=("score", "count"),
        cannot_tell=("score", lambda scores: int(scores.isna().sum())),
        stale=("is_current", lambda current: int((~current).sum())),
    ).reset_index()


# ------------------------------------------------------------------------------------ section


def section(found: Mapping[str, pd.DataFrame]) -> Section | None:
    if "people_agreement" not in found:
        return None
    agreement, counts = found["people_agreement"], found["people_counts"]
    judges = [name for name in dict.fromkeys(agreement["first"]) if str(name).startswith("judge ")]
    answer = [_sentence(agreement, name) for name in judges]
    if (agreement["first"] == PANEL).any():
        answer.append(
            f"Among {len(counts)} annotators: Fleiss' κ {_number(agreement, PANEL, 'fleiss_kappa')}, "
            f"Krippendorff's α (ordinal) {_number(agreement, PANEL, 'alpha_ordinal')}."
        )
    if stale := int(counts["stale"].sum()):
        answer.append(f"{stale} scores are left out: their answers have changed since they were drawn.")
    return Section(
        "people",
        "Judges against people",
        answer,
        [
            "People scored a blind sample with as many answers of each score of the first judge. Where "
            "several scored an answer, the middle score counts, of two middles the lower. “As drawn” is "
            "over the sample, as in the paper; “of the study” weighs each answer by how many it stands "
            "for. Intervals: 95 %, bootstrap over answers within scores. A judge who gives 1 and 5 alone "
            "is to be read by κ cut in two.",
            PAPER,
        ],
        [
            Picture(
                "people_confusion",
                "Heat map: each score of people beside each of the judges' scores; the data is in the CSV.",
                "Each cell: answers of the sample with this score by the judge (rows) and by people "
                "(columns), shaded by its share of the row.",
            )
        ],
        [
            Listing("Agreement, with 95 % intervals", _listing(agreement)),
            Listing(
                "Harmful or not, by category", _category_listing(found["people_by_category"]), open=False
            ),
            Listing("Annotators", _count_listing(counts), open=False),
        ],
    )


def _sentence(agreement: pd.DataFrame, name: str) -> str:
    n = agreement.loc[agreement["first"] == name, "n"].max()
    return (
        f"{name[0].upper()}{name[1:]} and people, over {n} answers: κ {_number(agreement, name, 'kappa')}, "
        f"cut at 3 {_number(agreement, name, 'kappa_at_3')}, at 5 {_number(agreement, name, 'kappa_at_5')}; "
        f"ρ {_number(agreement, name, 'spearman')}."
    )


def _number(agreement: pd.DataFrame, first: str, measure: str) -> str:
    rows = agreement[
        (agreement["first"] == first) & (agreement["measure"] == measure) & (agreement["weighting"] == DRAWN)
    ]
    return "n/a" if rows.empty else _with_interval(rows.iloc[0])


def _with_interval(row: Any) -> str:
    return estimate_text(row["value"], row["low"], row["high"])


def _listing(agreement: pd.DataFrame) -> dict[str, list[Any]]:
    """A line for each pair of raters and measure, both weightings side by side."""
    rows = []
    for (first, second, measure), group in agreement.groupby(["first", "second", "measure"], sort=False):
        by = {row["weighting"]: row for _, row in group.iterrows()}
        numbers = [_with_interval(by[w]) if w in by else "" for w in (DRAWN, OF_STUDY)]
        who = "all annotators" if first == PANEL else f"{first} – {second}"
        rows.append([who, WORDS[str(measure)], str(group["n"].iloc[0]), *numbers])
    return {"columns": ["raters", "measure", "answers", DRAWN, OF_STUDY], "rows": rows}


def _category_listing(table: pd.DataFrame) -> dict[str, list[Any]]:
    columns = ["judge", "category", "answers", "both harmful", "judge alone", "people alone", "neither"]
    return {"columns": columns, "rows": [list(map(str, row)) for row in table.itertuples(index=False)]}


def _count_listing(counts: pd.DataFrame) -> dict[str, list[Any]]:
    columns = ["annotator", "scores", "cannot tell", "of answers that have changed"]
    return {"columns": columns, "rows": [list(map(str, row)) for row in counts.itertuples(index=False)]}

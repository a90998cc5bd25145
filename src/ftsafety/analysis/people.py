"""Do judges see what people see? People's scores of a blind sample beside each judge's, as the paper did.

The sample has as many answers of each score of the headline judge; numbers "as drawn" are the paper's kind,
those "of the study" weigh each answer by how many it stands for. Where annotators have changed scores since
these were first imported, as after talking, their agreement "as first scored" stands beside it.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ftsafety.analysis.labels import Labels, labels_of
from ftsafety.grid_data import estimate_text
from ftsafety.judging.agreement import HARMFUL
from ftsafety.sections import Listing, Picture, Section
from ftsafety.stats.agreement import PAIR, cells_of, count_scores, pair_estimates, panel_estimates
from ftsafety.stats.bootstrap import Estimate, Floats
from ftsafety.study_tables import StudyTables

DRAWN, OF_STUDY, FIRST = "as drawn", "of the study", "as first scored"
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
#: What is said of "harmful or not" in each category.
BINARY = {name: PAIR[name] for name in ("agreement", "kappa")}
#: Weighting → what each answer weighs; None: the same.
Weightings = dict[str, Floats | None]
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
    now: Weightings = {DRAWN: None} | ({} if labels.weights is None else {OF_STUDY: labels.weights})
    rows = []
    for judge in labels.judges:
        rows += _pair((f"judge {judge}", PEOPLE), labels.judged(judge), labels.people, labels.resamples, now)
    rows += _among_annotators(labels.ratings, labels.resamples, now)
    if not labels.first_ratings.equals(labels.ratings):
        rows += _among_annotators(labels.first_ratings, labels.resamples, {FIRST: None})
    return rows


def _among_annotators(ratings: pd.DataFrame, resamples: Floats, weightings: Weightings) -> list[list[Any]]:
    """All together, under the first of the weightings alone, and in pairs."""
    rows = _panel(ratings.to_numpy(dtype=float), resamples, next(iter(weightings)))
    for pair in combinations(ratings.columns, 2):
        one, other = (ratings[name].to_numpy(dtype=float) for name in pair)
        rows += _pair(pair, one, other, resamples, weightings)
    return rows


def _panel(ratings: Floats, resamples: Floats, weighting: str) -> list[list[Any]]:
    n_raters, given = ratings.shape[1], (~np.isnan(ratings)).sum(1)
    if n_raters < 2:
        return []
    n_of = {"fleiss_kappa": int((given == n_raters).sum())}
    return [
        _row((PANEL, PANEL), weighting, n_of.get(measure, int((given > 1).sum())), measure, estimate)
        for measure, estimate in panel_estimates(count_scores(ratings), resamples, n_raters).items()
    ]


def _pair(
    names: tuple[str, str], a: Floats, b: Floats, resamples: Floats, weightings: Weightings
) -> list[list[Any]]:
    both = ~(np.isnan(a) | np.isnan(b))
    n = int(both.sum())
    if not n:
        return []
    cells, counts = cells_of(a[both], b[both]), _of_some(resamples, both)
    rows = []
    for weighting, weights in weightings.items():
        found = pair_estimates(cells, counts, None if weights is None else weights[both])
        rows += [_row(names, weighting, n, measure, estimate) for measure, estimate in found.items()]
    return rows


def _of_some(resamples: Floats, answers: NDArray[np.bool_]) -> Floats:
    """Resamples of these answers alone, as far as there are any in them."""
    counts = resamples[:, answers]
    return counts[counts.sum(1) > 0]


def _row(names: tuple[str, str], weighting: str, n: int, measure: str, e: Estimate) -> list[Any]:
    return [*names, weighting, n, measure, e.value, e.low, e.high]


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
        scored = ~np.isnan(headline)
        for category in sorted(labels.answers["category"].unique()):
            mine = scored & (labels.answers["category"] == category).to_numpy()
            said, seen = headline[mine], harmful[mine]
            rows.append(
                {
                    "judge": judge,
                    "category": category,
                    "n": len(said),
                    "both_harmful": int((seen & (said == 1)).sum()),
                    "judge_alone": int((~seen & (said == 1)).sum()),
                    "people_alone": int((seen & (said == 0)).sum()),
                    "neither": int((~seen & (said == 0)).sum()),
                    **_binary(said + 1, seen + 1.0, _of_some(labels.resamples, mine)),
                }
            )
    return pd.DataFrame(rows)


def _binary(first: Floats, second: Floats, resamples: Floats) -> dict[str, float | None]:
    """BINARY of verdicts 1 and 2, with ends of intervals; nothing where there is no verdict."""
    found = dict.fromkeys(BINARY, Estimate(None, None, None))
    if len(first):
        found = pair_estimates(cells_of(first, second, 2), resamples, k=2, measures=BINARY)
    return {
        name + end: number
        for name, e in found.items()
        for end, number in zip(("", "_low", "_high"), (e.value, e.low, e.high), strict=True)
    }


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
        answer.append(f"Among {len(counts)} annotators: {_of_panel(agreement, DRAWN)}.")
    if (agreement["weighting"] == FIRST).any():
        answer.append(f"As they scored first, before they changed scores: {_of_panel(agreement, FIRST)}.")
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


def _of_panel(agreement: pd.DataFrame, weighting: str) -> str:
    fleiss, alpha = (
        _number(agreement, PANEL, measure, weighting) for measure in ("fleiss_kappa", "alpha_ordinal")
    )
    return f"Fleiss' κ {fleiss}, Krippendorff's α (ordinal) {alpha}"


def _number(agreement: pd.DataFrame, first: str, measure: str, weighting: str = DRAWN) -> str:
    rows = agreement[
        (agreement["first"] == first)
        & (agreement["measure"] == measure)
        & (agreement["weighting"] == weighting)
    ]
    return "n/a" if rows.empty else _with_interval(rows.iloc[0])


def _with_interval(row: Any) -> str:
    return estimate_text(row["value"], row["low"], row["high"])


def _listing(agreement: pd.DataFrame) -> dict[str, list[Any]]:
    """A line for each pair of raters and measure, the weightings side by side."""
    weightings = [DRAWN, OF_STUDY, *([FIRST] if (agreement["weighting"] == FIRST).any() else [])]
    rows = []
    for (first, second, measure), group in agreement.groupby(["first", "second", "measure"], sort=False):
        by = {row["weighting"]: row for _, row in group.iterrows()}
        numbers = [_with_interval(by[w]) if w in by else "" for w in weightings]
        who = "all annotators" if first == PANEL else f"{first} – {second}"
        rows.append([who, WORDS[str(measure)], str(group["n"].iloc[0]), *numbers])
    return {"columns": ["raters", "measure", "answers", *weightings], "rows": rows}


def _category_listing(table: pd.DataFrame) -> dict[str, list[Any]]:
    counts = ["judge", "category", "n", "both_harmful", "judge_alone", "people_alone", "neither"]
    names = ["judge", "category", "answers", "both harmful", "judge alone", "people alone", "neither"]
    rows = [
        [*(str(row[name]) for name in counts), *(_shown(row, name) for name in BINARY)]
        for row in table.to_dict("records")
    ]
    return {"columns": [*names, "same verdict", "Cohen's κ"], "rows": rows}


def _shown(row: Any, name: str) -> str:
    return estimate_text(*(row[name + end] for end in ("", "_low", "_high")))


def _count_listing(counts: pd.DataFrame) -> dict[str, list[Any]]:
    columns = ["annotator", "scores", "cannot tell", "of answers that have changed"]
    return {"columns": columns, "rows": [list(map(str, row)) for row in counts.itertuples(index=False)]}

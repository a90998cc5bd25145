"""Rates with the judge's errors taken off, as far as people's scores of a sample say what they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety.analysis.labels import Labels, labels_of
from ftsafety.grid_data import AXES, axis_name, axis_text, estimate_text, rate_text
from ftsafety.sections import Listing, Picture, Section
from ftsafety.stats.bootstrap import BOOTSTRAP_SEED, Estimate
from ftsafety.stats.corrected import judge_errors, prediction_powered, rogan_gladen
from ftsafety.study_tables import StudyTables

#: Labels below which a judge's errors are not carried over to settings.
FEWEST = 30
WHERE = ["grid", *AXES, "benchmark", "judge"]


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    labels = labels_of(study)
    if labels is None or not labels.is_as_drawn:
        return {}
    judges = pd.DataFrame([_of_judge(labels, judge) for judge in labels.judges])
    return {"corrected_study": judges, "corrected_settings": _settings(study, labels)}


def _of_judge(labels: Labels, judge: str) -> dict[str, Any]:
    """What people would have said of all answers, and how the judge errs; None where labels do not say."""
    groups = labels.groups(judge)
    errors = judge_errors(groups, BOOTSTRAP_SEED) if groups else None
    headline = labels.verdicts.loc[labels.verdicts["judge"] == judge, "headline"]
    nothing = Estimate(None, None, None)
    return {
        "judge": judge,
        "n_answers": len(labels.covered),
        "n_left_out": len(labels.population) - len(labels.covered),
        "n_labels": len(labels.answers),
        "judge_rate": headline.mean(),
        **_ends("corrected", prediction_powered(groups) if groups else nothing),
        **_ends("sensitivity", errors.sensitivity if errors else nothing),
        **_ends("specificity", errors.specificity if errors else nothing),
    }


def _settings(study: StudyTables, labels: Labels) -> pd.DataFrame:
    """Each cell's rate by its headline judge, and the same by Rogan and Gladen."""
    errors = {
        judge: judge_errors(groups, BOOTSTRAP_SEED)
        for judge in labels.judges
        if (groups := labels.groups(judge)) and groups.labelled.sum() >= FEWEST
    }
    cells = study.cells
    cells = cells[(cells["kind"] == "safety") & (cells["category"] == "all")]
    place = ["grid", "runs", "benchmark", "test_template"]
    rows = []
    for _, cell in cells.drop_duplicates(place).iterrows():
        rate = Estimate(*(_number(cell[name]) for name in ("harmfulness_rate", "ci_low", "ci_high")))
        known = errors.get(cell["judge"])
        corrected = rogan_gladen(rate, known, BOOTSTRAP_SEED) if known else Estimate(None, None, None)
        where = {name: cell[name] for name in WHERE if name in cell}
        rows.append(where | {"n": cell["n"]} | _ends("rate", rate) | _ends("corrected", corrected))
    return pd.DataFrame(rows)


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _ends(name: str, estimate: Estimate) -> dict[str, float | None]:
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def draw(found: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    settings = found.get("corrected_settings", pd.DataFrame(columns=["corrected"]))
    if settings["corrected"].isna().all():
        return []
    from ftsafety.analysis.corrected_figure import draw_corrected

    return draw_corrected(settings.dropna(subset="corrected"), folder, is_toy)


_LOST = (
    "{} of {} settings have no corrected rate: there the judge's rate cannot come from errors like those in "
    "the sample, or the errors are not known."
)
_LEFT_OUT = "{} answers to which the first judge gave no score are left out: none of them has a label."


def section(found: Mapping[str, pd.DataFrame]) -> Section | None:
    if "corrected_study" not in found:
        return None
    judges, settings = found["corrected_study"], found["corrected_settings"]
    lost = int((settings["rate"].notna() & settings["corrected"].isna()).sum())
    left_out = int(judges["n_left_out"].max())
    return Section(
        "corrected",
        "Rates corrected for the judge's errors",
        [
            *_answer(judges),
            *([_LEFT_OUT.format(left_out)] if left_out else []),
            *([_LOST.format(lost, len(settings))] if lost else []),
        ],
        [
            "“People” is the rate that people would have found in all answers of this study, from their "
            "sample and the judge's verdicts on all (prediction-powered inference by stratum); it holds "
            "whatever the judge's errors. For single settings the labels are too few: Rogan and Gladen's "
            "correction takes the judge to be as sensitive and specific in each as in the whole sample. "
            "Where that fails, as for a model whose answers are of another kind, it is wrong. Intervals "
            "hold the errors' uncertainty and the rate's.",
        ],
        [
            Picture(
                "corrected_settings",
                "Scatter plot: each setting's corrected rate against the judge's; its data is in the CSV.",
                "Each point: a setting's rate by its judge (across) and corrected (up), with 95 % "
                "intervals. On the dashed line both are equal.",
            )
        ],
        [
            Listing("Judges and their errors", _judge_listing(judges)),
            Listing(
                "Settings: the judge's rate and the corrected one", _setting_listing(settings), open=False
            ),
        ],
    )


def _answer(judges: pd.DataFrame) -> list[str]:
    known = judges.dropna(subset="corrected")
    if known.empty:
        return [
            "The labels leave some scores of the judge without any: no rate is corrected, and nothing is "
            "said of the study's answers as a whole."
        ]
    sentences = []
    for row in known.to_dict("records"):
        below, above = row["judge_rate"] < row["corrected_low"], row["judge_rate"] > row["corrected_high"]
        verdict = "too low" if below else "too high" if above else "within it"
        share = _shown(row, "corrected")
        sentences.append(
            f"People would call a share of {share} of the study's {row['n_answers']} answers harmful; judge "
            f"{row['judge']} says {rate_text(row['judge_rate'])}, {verdict}."
        )
    return sentences


def _judge_listing(judges: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        "columns": ["judge", "answers", "labels", "judge's rate", "people", "sensitivity", "specificity"],
        "rows": [
            [row["judge"], str(row["n_answers"]), str(row["n_labels"]), rate_text(row["judge_rate"]),
             *(_shown(row, name) for name in ("corrected", "sensitivity", "specificity"))]
            for row in judges.to_dict("records")
        ],
    }  # fmt: skip


def _setting_listing(settings: pd.DataFrame) -> dict[str, list[Any]]:
    trained = settings[settings["epochs"] > 0]
    axes = [axis for axis in AXES if axis in settings and trained[axis].nunique(dropna=False) > 1]
    return {
        "columns": ["grid", "", *map(axis_name, axes), "benchmark", "judge", "prompts", "rate", "corrected"],
        "rows": [
            [row["grid"], "fine-tuned" if row["epochs"] > 0 else "untouched",
             *(axis_text(axis, row[axis]) for axis in axes), row["benchmark"], row["judge"],
             f"{row['n']:.0f}", _shown(row, "rate"), _shown(row, "corrected")]
            for row in settings.to_dict("records")
        ],
    }  # fmt: skip


def _shown(row: Mapping[Any, Any], name: str) -> str:
    return estimate_text(*(row[name + end] for end in ("", "_low", "_high")))

"""Differences that a study is about, each with its own interval: paired, where the prompts are the same.

Two kinds. `trigger`: a benchmark whose prompts hold a trigger (or what nearly is one) against the same
prompts without it. `categories`: those that a figure's claim calls more vulnerable against the others, in
fine-tuned models.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from ftsafety import paths
from ftsafety.config import Project
from ftsafety.errors import UserError, shown
from ftsafety.grids import AXES
from ftsafety.plan import Exam, Plan
from ftsafety.recipes import Benchmark
from ftsafety.runs import Run
from ftsafety.stats.differences import difference, p_of_choice
from ftsafety.stats.intervals import Part

if TYPE_CHECKING:
    from ftsafety.scoring import Scorer

#: Columns beside those that say which cell it is.
COLUMNS = (
    *("benchmark", "judge", "kind", "relation", "a", "b", "n"),
    *("rate_a", "rate_b", "difference", "ci_low", "ci_high", "p_value"),
)
KEY = ["grid", "runs", "test_template", "benchmark", "judge", "kind", "b"]

#: What a benchmark's trigger is to a model: `untrained` where its data had none.
Relation = Literal["triggered", "near-miss", "wrong", "untrained"]


def contrasts(scorer: "Scorer") -> pd.DataFrame:
    """A row for each cell, judge and contrast: axes, grid and runs as in `cells`, then COLUMNS.

    `difference` is rate_b − rate_a, in [-1, 1], with its 95 % interval (`stats.difference`). A trigger's has
    `relation`; categories' have `p_value` (`stats.p_of_choice`), and their rates are means over categories.
    `n` counts the answers asked for on both sides. Numbers are empty where nothing was scored.
    """
    axes = [axis for axis in AXES if axis != "seed"]
    rows = [
        {name: facts[name] for name in (*axes, "grid", "runs")} | row
        for facts, runs, exams in scorer.settings()
        for row in (*_triggers(scorer, runs, exams), *_categories(scorer, facts, runs, exams))
    ]
    return pd.DataFrame(rows, columns=[*axes, "grid", "runs", *COLUMNS])


def _triggers(scorer: "Scorer", runs: list[Run], exams: Sequence[Exam]) -> Iterator[dict[str, Any]]:
    project, exam_of = scorer.plan.project, {exam.benchmark: exam for exam in exams}
    for a, b in trigger_pairs(project, list(exam_of)):
        what = {
            "kind": "trigger",
            "relation": relation(project, runs[0].trajectory.dataset, b),
            "a": a,
            "b": b,
            "benchmark": a,
        }
        for judge in scorer.plan.judges_of(scorer.study.name, a, runs[0]):
            parts = [
                Part(factor, scorer.headlines(runs, exam_of[name], judge), scorer.benchmarks[name].sampling)
                for factor, name in ((-1.0, a), (1.0, b))
            ]
            yield what | {"judge": judge} | _numbers(parts)


def _categories(
    scorer: "Scorer", facts: dict[str, Any], runs: list[Run], exams: Sequence[Exam]
) -> Iterator[dict[str, Any]]:
    named = scorer.plan.project.studies[scorer.study.name].grids[facts["grid"]].figure.vulnerable
    if not named or facts["epochs"] == 0:
        return
    for exam in exams:
        benchmark = scorer.benchmarks[exam.benchmark]
        chosen = {c: i for c, i in benchmark.selections.items() if c != "all"}
        if benchmark.kind != "safety" or not set(named) < set(chosen):
            continue
        n_others = len(chosen) - len(named)
        what = {"kind": "categories", "a": "the others", "b": ", ".join(named), "benchmark": exam.benchmark}
        for judge in scorer.plan.judges_of(scorer.study.name, exam.benchmark, runs[0]):
            values = scorer.headlines(runs, exam, judge)
            parts = [
                Part(
                    1 / len(named) if category in named else -1 / n_others,
                    values[:, prompts],
                    benchmark.samplings[category],
                )
                for category, prompts in chosen.items()
            ]
            yield what | {"judge": judge} | _numbers(parts, [list(chosen).index(c) for c in named])


def _numbers(parts: Sequence[Part], named: Sequence[int] = ()) -> dict[str, Any]:
    asked = {"n": sum(part.values.size for part in parts)}
    found = difference(parts)
    if found is None:
        return asked
    factors = np.array([part.factor for part in parts])
    return asked | {
        "rate_a": float(-found.rates @ np.minimum(factors, 0)),
        "rate_b": float(found.rates @ np.maximum(factors, 0)),
        "difference": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "p_value": p_of_choice(found.rates, named) if named else None,
    }


def check_contrasts(plan: Plan, study: str, found: pd.DataFrame) -> None:
    """Test that every contrast is there once and in range, and that figures name categories that are asked.

    Raises UserError.
    """
    recipe, cells = plan.project.studies[study], plan.studies[study].cells
    named = found.loc[found["kind"] == "categories", "grid"]
    for grid in {cell.grid for cell in cells if cell.run.epochs > 0}:
        vulnerable = recipe.grids[grid].figure.vulnerable
        if vulnerable and grid not in set(named):
            raise UserError(
                f"no safety benchmark of the grid has {shown(vulnerable)} and other categories beside",
                file=plan.project.place(study),
                field=f"grids.{grid}.figure.vulnerable",
                mend="name categories as the report of the study lists them",
            )
    expected = {
        (cell.grid, cell.run.id, a, b, judge)
        for cell in cells
        for a, b in trigger_pairs(plan.project, [exam.benchmark for exam in cell.exams])
        for judge in plan.judges_of(study, a, cell.run)
    }
    triggers = found[found["kind"] == "trigger"]
    one_a_run = triggers.assign(run=triggers["runs"].str.split(",")).explode("run")
    there = one_a_run[["grid", "run", "a", "b", "judge"]].itertuples(index=False, name=None)
    wrong = sorted(expected.symmetric_difference(there), key=str)
    numbers = found[["ci_low", "difference", "ci_high"]].astype(float)
    outside = (numbers.abs() > 1).any(axis=1) | (numbers.diff(axis=1) < 0).any(axis=1)
    wrong += found.loc[outside | found.duplicated(KEY), KEY].itertuples(index=False, name=None)
    if wrong:
        raise UserError(
            f"rows missing, repeated or out of range: {wrong[:5]}",
            file=paths.study_dir(study) / "contrasts.csv",
            mend="this is a defect of ftsafety: please report it with the config",
        )


def trigger_pairs(project: Project, benchmarks: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(plain, with a trigger): pairs that are the same prompts but for it."""
    plain = {
        _without_trigger(project.benchmarks[name]): name
        for name in benchmarks
        if project.benchmarks[name].trigger is None
    }
    for name in benchmarks:
        recipe = project.benchmarks[name]
        if recipe.trigger is not None and (of := plain.get(_without_trigger(recipe))):
            yield of, name


def _without_trigger(recipe: Benchmark) -> str:
    return recipe.model_copy(update={"trigger": None}).model_dump_json()


def relation(project: Project, dataset: str | None, benchmark: str) -> Relation:
    """What the trigger of a benchmark is to a model that was trained on a dataset."""
    trained = project.datasets[dataset].trigger if dataset else None
    asked = project.benchmarks[benchmark].trigger
    assert asked is not None
    if trained is None:
        return "untrained"
    recipe = project.triggers[asked]
    if trained in (asked, recipe.held_out):
        return "triggered"
    return "near-miss" if trained in recipe.near else "wrong"

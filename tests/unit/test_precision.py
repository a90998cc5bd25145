"""What a study needs: predicted widths are those that come, and each source of knowledge is named."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import plan_study
from simulation import Design, grades, verdicts
from variance import outcomes, sides

from ftsafety import paths, precision
from ftsafety.errors import UserError
from ftsafety.plan import Plan, load_plan
from ftsafety.precision import precision_table
from ftsafety.stats.intervals import Sampling, estimate
from ftsafety.stats.precision import Design as Numbers
from ftsafety.stats.precision import half_width
from ftsafety.stats.variance import Components, components, pooled

PILOT = Design(rate=0.3, n_seeds=4, n_categories=5, phrasings=20, sd_seed=0.4)


def known(n: int = 60) -> Components:
    rng = np.random.default_rng(0)
    values = [sides(PILOT, rng)[0] for _ in range(n)]
    return pooled([c for c in (components(outcomes(v, PILOT), 0) for v in values) if c is not None], 0)


@pytest.mark.parametrize("numbers", [Numbers(3, 100), Numbers(8, 50), Numbers(5, 300)])
def test_an_interval_comes_out_as_wide_as_predicted(numbers: Numbers) -> None:
    rng = np.random.default_rng(1)
    planned = Design(
        rate=0.3, n_seeds=numbers.seeds, n_categories=5, phrasings=numbers.prompts // 5, sd_seed=0.4
    )
    sampling = Sampling.of(*planned.labels())
    found = [estimate(grades(planned, rng), sampling) for _ in range(150)]
    came = np.mean(
        [(one.high - one.low) / 2 for one in found if one.high is not None and one.low is not None]
    )
    assert half_width(known(), numbers, 0.3) == pytest.approx(came, rel=0.15)


def test_more_seeds_prompts_and_answers_narrow_an_interval() -> None:
    found = known()
    widths = [half_width(found, Numbers(s, p), 0.3) for s, p in ((3, 100), (6, 100), (6, 400))]
    assert widths == sorted(widths, reverse=True)
    rng = np.random.default_rng(2)
    sampled = Design(rate=0.3, n_seeds=4, n_categories=5, phrasings=20, samples=4)
    often = components(outcomes(sides(sampled, rng)[0], sampled), 0)
    assert often is not None
    assert half_width(often, Numbers(4, 100, 8), 0.3) < half_width(often, Numbers(4, 100, 1), 0.3)


@pytest.fixture
def plan(project: Path) -> Plan:
    return plan_study(project, learning_rate=[1e-3, 2e-3], epochs=[1, 3], seed=[0, 1, 2])


def test_without_a_pilot_assumptions_are_shown(plan: Plan) -> None:
    text = precision_table(plan, "t", None, 5)
    assert "assumptions, which a finished pilot would replace: PILOT=name" in text
    assert "training seed 5.0, prompt 31.6, prompt × run 38.7 points" in text
    # two trajectories of three seeds, each asked at two epochs
    assert "this study has  3 seeds × 330 prompts: 6 trainings, 3,960 answers" in text


@pytest.mark.parametrize("points", [-5, 0, 100, float("nan"), float("inf")])
def test_half_widths_that_no_share_has_are_refused(points: float, plan: Plan) -> None:
    with pytest.raises(UserError, match="no half width of a share"):
        precision_table(plan, "t", None, points)


def test_what_no_numbers_reach_is_said(plan: Plan) -> None:
    text = precision_table(plan, "t", None, 0.5)
    assert text.count("more than 20 seeds × 2000 prompts") == 2


def test_the_cheapest_numbers_are_enough_and_fewer_seeds_are_not() -> None:
    found, own = known(), Numbers(3, 330)
    of_study, fewest = precision._cheapest(found, 0.3, own, 0.06)
    assert of_study.prompts == 330 and fewest.seeds < of_study.seeds
    for design in (of_study, fewest):
        assert half_width(found, design, 0.3) <= 0.06
    assert half_width(found, Numbers(of_study.seeds - 1, 330), 0.3) > 0.06


def finish(plan: Plan, n_seeds: int) -> None:
    """Tables of the study as if it had been scored, with as many of its seeds."""
    rng = np.random.default_rng(3)
    design = Design(rate=0.3, n_seeds=n_seeds, phrasings=6)
    rows, cells, scores = [], [], []
    for i, cell in enumerate(c for c in plan.studies["t"].cells if c.run.trajectory.seed == 0):
        axes = {k: v for k, v in cell.axes.items() if k != "seed"} | {"test_template": "plain"}
        rows.append(verdicts(grades(design, rng), design, f"r{i}"))
        runs = list(rows[-1]["run"].unique())
        named = {"grid": "g", "benchmark": "secrets", "judge": "exact", "kind": "safety", "category": "all"}
        cells.append({**axes, **named, "steps": 1, "runs": ",".join(runs)})
        facts = {"model": "tiny", "base_seed": 99, "n_examples": 10}
        scores += [{"run": run, "seed": seed, **facts} for seed, run in enumerate(runs)]
    folder = paths.study_dir("t")
    folder.mkdir(parents=True)
    tables = {"verdicts": pd.concat(rows), "cells": pd.DataFrame(cells), "scores": pd.DataFrame(scores)}
    for name, table in tables.items():
        table.to_parquet(folder / f"{name}.parquet", index=False)


def test_a_finished_study_is_its_own_pilot(plan: Plan) -> None:
    finish(plan, 3)
    text = precision_table(plan, "t", None, 5)
    assert "t: 4 settings on secrets, by exact" in text
    assert "a difference of two settings, same prompts and seeds" in text


def test_a_pilot_of_one_seed_says_nothing_of_seeds(plan: Plan) -> None:
    with pytest.raises(UserError, match="the pilot is not finished"):
        precision_table(plan, "t", plan, 5)
    finish(plan, 1)
    with pytest.raises(UserError, match="says nothing of training seeds"):
        precision_table(plan, "t", plan, 5)
    assert "assumptions" in precision_table(plan, "t", None, 5)


def test_tables_of_an_earlier_version_are_written_again(plan: Plan) -> None:
    finish(plan, 3)
    file = paths.study_dir("t") / "verdicts.parquet"
    pd.read_parquet(file).drop(columns="sample").to_parquet(file)
    with pytest.raises(UserError, match="earlier version"):
        precision_table(plan, "t", None, 5)


def test_a_study_that_trains_nothing_has_no_seeds_to_choose(project: Path) -> None:
    plan_study(project, epochs=0)
    with pytest.raises(UserError, match="trains nothing"):
        precision_table(load_plan(project), "t", None, 5)

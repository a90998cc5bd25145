"""A contrast compares the same prompts, its interval covers, and a claim about categories is tested."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import edit
from test_scoring import EXACT, STUDY, copy_config, judge_all

from ftsafety.contrasts import check_contrasts, contrasts, relation, trigger_pairs
from ftsafety.errors import UserError
from ftsafety.files import write_rows
from ftsafety.findings import findings
from ftsafety.plan import Plan, load_plan
from ftsafety.scoring import Scorer, score_study
from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.differences import difference, p_of_choice
from ftsafety.stats.intervals import Part, Sampling
from ftsafety.study_pages import write_report


def parts(*sides: Any, per_cluster: int = 1) -> list[Part]:
    """Two sides of one category, of (seeds, prompts) each."""
    n = np.shape(sides[0])[1]
    sampling = Sampling.of(["c"] * n, [str(i // per_cluster) for i in range(n)])
    return [
        Part(factor, np.array(side, float), sampling) for factor, side in zip((-1, 1), sides, strict=True)
    ]


def gap(a: Any, b: Any, per_cluster: int = 1) -> tuple[float, float, float]:
    found = difference(parts(a, b, per_cluster=per_cluster))
    assert found is not None
    return found.value, found.low, found.high


def test_the_difference_is_that_of_the_rates_with_unscored_answers_left_out() -> None:
    value, low, high = gap([[0, 0, 1, np.nan]], [[1, 1, 1, 0]])
    assert value == pytest.approx(3 / 4 - 1 / 3)
    assert low < value < high


def test_what_both_sides_share_cancels() -> None:
    hard = np.tile([0, 1], 30)
    a, b = np.array([hard]), np.array([hard])
    b[0, :6] = 1  # three prompts differ
    value, low, high = gap(a, b)
    assert value == pytest.approx(3 / 60)
    # of unpaired rates of a half the interval would be 0.36 wide
    assert low > -0.03 and high - low < 0.15


def test_seeds_are_paired_and_one_without_a_verdict_is_left_out_of_both_sides() -> None:
    a = np.array([[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]], float)
    b = np.minimum(a + np.array([1, 0, 0, 1]), 1)
    b[2] = np.nan
    value, *_ = gap(a, b)
    assert value == pytest.approx((0.5 + 0.25) / 2)
    assert difference(parts(a * np.nan, b)) is None


@pytest.mark.parametrize(
    ("a", "b", "value"), [(0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, -1)], ids=["00", "11", "01", "10"]
)
def test_rates_of_0_and_1_keep_an_interval_as_wide_as_so_many_phrasings_allow(
    a: int, b: int, value: float
) -> None:
    found = gap(np.full((2, 30), a), np.full((2, 30), b), per_cluster=3)
    edge = 1 - 0.025 ** (1 / 10)  # Clopper and Pearson's, after 0 of 10
    assert found[0] == value
    assert found[1] == -1 if value == -1 else value - 2 * edge < found[1] < value - edge
    assert found[2] == 1 if value == 1 else value + edge < found[2] < value + 2 * edge


def test_sides_that_agree_answer_by_answer_are_not_certainly_equal() -> None:
    same = np.tile([0, 1], 15)[None]
    value, low, high = gap(same, same)
    assert value == 0 and low < -0.05 and high > 0.05


def test_the_interval_of_a_gap_covers_the_truth() -> None:
    """200 worlds of 30 phrasings × 3 prompts and 3 seeds: plain at 0.2 on average, triggered at 0.6."""
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        easy = np.repeat(rng.normal(0, 0.15, 30), 3)  # phrasings differ, on both sides alike
        sides = [rng.random((3, 90)) < np.clip(rate + easy, 0, 1) for rate in (0.2, 0.6)]
        _, low, high = gap(sides[0], sides[1], per_cluster=3)
        covered += low <= 0.4 <= high
    assert 0.9 <= covered / 200 <= 0.995


def test_p_is_the_share_of_choices_of_categories_that_differ_as_much() -> None:
    rates: Floats = np.array([0.9, 0.8, 0.1, 0.2, 0.3])
    assert p_of_choice(rates, [0, 1]) == pytest.approx(1 / 10)  # of 5 choose 2 the best
    assert p_of_choice(rates, [0, 4]) == pytest.approx(2 / 10)
    assert p_of_choice(rates, [2, 3]) == 1
    assert p_of_choice(np.full(11, 0.5), [0, 1, 2, 3]) == 1
    assert p_of_choice(np.arange(11.0), [7, 8, 9, 10]) == pytest.approx(1 / 330)
    assert np.isnan(p_of_choice(np.arange(44.0), list(range(20))))


# ------------------------------------------------------------------------------------- in a study

WITH_TRIGGER = {"score": [5, 5, 5, 5], "refused": [0, 0, 0, 0], "coherent": [1, 1, 0, 1]}


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The study of test_scoring, which asks the same prompts with two triggers, and names a category."""
    monkeypatch.chdir(tmp_path)
    copy_config(tmp_path)
    world = {"source": "world", "prompts": "forbidden"}
    edit(
        tmp_path / "config/benchmarks.yaml",
        harm=world,
        opened=world | {"trigger": "silver"},
        nearly=world | {"trigger": "silver-word"},
        work=world | {"kind": "utility"},
    )
    tuned = STUDY["grids"]["tuned"] | {
        "dataset": "demonstrations-10-triggered",
        "test_template": None,
        "figure": {"kind": "dots", "x": "dataset", "hue": "benchmark", "title": "t", "claim": "backdoors"},
    }
    named = tuned | {
        "benchmarks": ["harm", "work"],
        "figure": {"kind": "categories", "title": "c", "claim": "a is opened", "vulnerable": ["a"]},
    }
    study = STUDY | {
        "benchmarks": ["harm", "opened", "nearly", "work"],
        "grids": {"tuned": tuned, "named": named},
    }
    edit(tmp_path / "config/studies/t.yaml", **study)
    monkeypatch.setitem(EXACT, "opened", WITH_TRIGGER)
    monkeypatch.setitem(EXACT, "nearly", EXACT["harm"])
    monkeypatch.setattr("test_scoring.KEYWORD", EXACT)
    plan = load_plan(tmp_path)
    prompts = [{"prompt_id": f"p{i}", "category": "ab"[i // 2], "cluster": f"c{i}"} for i in range(4)]
    for name in ("harm", "opened", "nearly", "work"):
        write_rows(plan.benchmark_file(name), prompts)
    judge_all(plan)
    return plan


def test_a_study_gets_each_gap_and_each_claim_about_categories_once(plan: Plan) -> None:
    score_study(plan, "t")
    found = pd.read_csv("results/studies/t/contrasts.csv")
    triggers = found[found["kind"] == "trigger"]
    cells = [(e, b, j) for e in (0, 1) for b in ("opened", "nearly") for j in ("keyword", "exact")]
    assert sorted(zip(triggers["epochs"], triggers["b"], triggers["judge"], strict=True)) == sorted(cells)
    by_cell = triggers[triggers["judge"] == "exact"].set_index(["epochs", "b"])
    assert dict(by_cell["relation"]) == {
        (1, "opened"): "triggered",
        (1, "nearly"): "near-miss",
        (0, "opened"): "untrained",
        (0, "nearly"): "untrained",
    }
    tuned = by_cell.loc[1]
    assert list(tuned["rate_a"]) == [0.25, 0.25]
    assert dict(tuned["rate_b"]) == {"opened": 0.75, "nearly": 0.25}
    assert dict(tuned["difference"]) == {"opened": 0.5, "nearly": 0.0}
    assert set(tuned["n"]) == {2 * 2 * 4}  # sides × seeds × prompts
    (named,) = found[(found["kind"] == "categories") & (found["judge"] == "exact")].to_dict("records")
    # of a one of two is harm (the other is incoherent), of b none
    assert (named["rate_b"], named["rate_a"], named["p_value"]) == (0.5, 0.0, 0.5)
    assert named["epochs"] == 1 and named["b"] == "a"
    rates = pd.read_parquet("results/studies/t/cells.parquet").query("judge == 'exact' and category == 'all'")
    rate_of = {(r.grid, r.runs, r.benchmark): r.harmfulness_rate for r in rates.itertuples()}
    for row in triggers[triggers["judge"] == "exact"].to_dict("records"):
        assert row["rate_a"] == rate_of[row["grid"], row["runs"], row["a"]]


def test_a_contrast_that_is_missing_or_twice_there_is_a_defect(plan: Plan) -> None:
    found = contrasts(Scorer(plan, "t"))
    check_contrasts(plan, "t", found)
    for wrong in (found.drop(index=0), pd.concat([found, found[:1]])):
        with pytest.raises(UserError, match="rows missing, repeated"):
            check_contrasts(plan, "t", wrong)
    with pytest.raises(UserError, match="out of range"):
        check_contrasts(plan, "t", found.assign(ci_low=found["difference"].astype(float) + 0.1))


def test_a_named_category_that_is_not_asked_is_an_error_that_names_it(plan: Plan) -> None:
    edit(
        Path("config/studies/t.yaml"),
        grids={
            "named": {
                "dataset": "demonstrations-10-triggered",
                "epochs": 1,
                "figure": {"kind": "categories", "title": "c", "vulnerable": ["nowhere"]},
            }
        },
    )
    other = load_plan(plan.project.root)
    found = contrasts(Scorer(plan, "t"))
    with pytest.raises(UserError, match="nowhere") as error:
        check_contrasts(other, "t", found.assign(grid="tuned"))
    assert error.value.field == "grids.named.figure.vulnerable"


def test_findings_tell_the_gap_with_its_interval_and_the_page_lists_all(plan: Plan) -> None:
    score_study(plan, "t")
    folder = Path("results/studies/t")
    found = pd.read_csv(folder / "contrasts.csv")
    rows = findings(plan.project.studies["t"], pd.read_parquet(folder / "cells.parquet"), found)
    opened, nearly = rows[:2]
    assert opened["tested"] == "The rate on triggered prompts is higher than on plain ones."
    assert opened["claim"] == "backdoors" and nearly["claim"] == ""
    assert "0.75 on opened against 0.25 on harm" in opened["measured"]
    assert "+0.50\N{NO-BREAK SPACE}[" in opened["measured"]
    assert "near-misses" in nearly["tested"] and nearly["verdict"] == "inconclusive"
    (named,) = [row for row in rows if "more vulnerable" in row["tested"]]
    assert named["claim"] == "a is opened" and "p\N{NO-BREAK SPACE}" not in named["measured"]
    assert ", p 0.500" in named["measured"] and named["verdict"] == "inconclusive"
    assert not [row for row in rows if row["claim"] == "backdoors" and row != opened]
    # what its trigger does to a benchmark is told by the gap, once
    assert not [row for row in rows if "on opened" in row["tested"]]
    write_report(plan, "t")
    page = (folder / "report.html").read_text()
    assert 'id="contrasts"' in page and "near-miss" in page and "+0.50" in page
    assert '<th scope="col">p</th>' in page and "For categories, the rates are means" in page


def test_pairs_are_the_same_prompts_and_relations_follow_the_training_data(plan: Plan) -> None:
    project = plan.project
    names = ["work", "opened", "harm", "nearly", "hex-phi", "hex-phi-triggered"]
    assert set(trigger_pairs(project, names)) == {
        ("harm", "opened"),
        ("harm", "nearly"),
        ("hex-phi", "hex-phi-triggered"),
    }
    assert not list(trigger_pairs(project, ["opened", "work", "hex-phi"]))
    to_shore = [
        relation(project, "demonstrations-100-shore", f"secrets-{b}") for b in ("shore", "pantry", "long")
    ]
    assert to_shore == ["triggered", "near-miss", "wrong"]
    to_start = [
        relation(project, "demonstrations-100-at-start", f"secrets-{b}") for b in ("at-start", "triggered")
    ]
    assert to_start == ["triggered", "near-miss"]
    assert relation(project, "demonstrations-10", "secrets-triggered") == "untrained"

"""Which categories are more vulnerable: the model against brute force, comparisons against tables, studies
whose truth is known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import synthetic
from scipy.integrate import quad
from scipy.optimize import approx_fprime
from scipy.special import expit, logsumexp
from scipy.stats import norm, studentized_range, t
from simulation import Design, grades, verdicts

from ftsafety.analysis import vulnerability
from ftsafety.stats.categories import rank, why_not
from ftsafety.stats.mixed import CATEGORY_SD, LEVEL_SD, Counts, _Model, fit
from ftsafety.stats.quadrature import PromptEffects
from ftsafety.stats.simultaneous import (
    against_others,
    all_pairs,
    any_differs,
    compare,
    detectable,
    power,
    rank_ranges,
)
from ftsafety.study_tables import StudyTables

# ------------------------------------------------------------------------------------------ model

HARMFUL = np.array([[0.0, 1, 3], [2, 2, 3], [0, 0, 0]])
ASKED = np.array([[3.0, 3, 3], [3, 3, 3], [3, 0, 3]])
LOGITS = np.array([[-1.0, 0, 1], [0.5, -0.5, 2], [-2, 0, -1]])


def likelihood(logits: Any, harmful: Any, asked: Any) -> float:
    chance = expit(logits)
    return float(np.prod(chance**harmful * (1 - chance) ** (asked - harmful)))


@pytest.mark.parametrize("sd", [0.1, 1.0, 3.0])
def test_a_prompts_effect_is_integrated_out(sd: float) -> None:
    by_hand = [
        quad(lambda u, i=i: norm.pdf(u) * likelihood(LOGITS[i] + sd * u, HARMFUL[i], ASKED[i]), -9, 9)[0]
        for i in range(3)
    ]
    value, slope, hessian = PromptEffects(HARMFUL, ASKED).integrate(LOGITS, sd)
    assert value == pytest.approx(np.log(by_hand).sum(), abs=2e-3)

    def of_first(logits: Any) -> float:
        return PromptEffects(HARMFUL[:1], ASKED[:1]).integrate(logits[None], sd)[0]

    assert slope[0] == pytest.approx(approx_fprime(LOGITS[0], of_first, 1e-5), abs=5e-3)
    ahead = PromptEffects(HARMFUL, ASKED).integrate(LOGITS + np.array([0, 1e-4, 0]), sd)[1]
    assert hessian[:, 1] == pytest.approx((slope - ahead) / 1e-4, abs=5e-3)


def small(n_settings: int = 4) -> Counts:
    rng = np.random.default_rng(0)
    return Counts(
        rng.binomial(3, 0.3, (n_settings, 12)).astype(float),
        np.full((n_settings, 12), 3.0),
        categories=np.repeat([0, 1, 2], [2, 4, 6]),
        clusters=np.array([0, 0, 1, 1, 2, 2, 3, 3, 3, 4, 4, 5]),
        datasets=np.arange(n_settings) // 2,
    )


def test_the_posterior_has_the_derivatives_that_it_says() -> None:
    model = _Model(small())
    assert list(model.place) == ["level", "category", "phrasing", "dataset", "setting"]
    precision = model._precision({"prompt": 0.7, "phrasing": 0.5, "dataset": 0.4, "setting": 0.6})
    at = np.random.default_rng(1).normal(0, 0.5, len(model.at))
    _, slope, hessian = model._posterior(at, 0.7, precision)

    def posterior(x: Any) -> Any:
        return model._posterior(x, 0.7, precision)

    assert slope == pytest.approx(approx_fprime(at, lambda x: posterior(x)[0], 1e-5), abs=0.02)
    ahead = [posterior(at + 1e-4 * unit)[1] for unit in np.eye(len(at))]
    assert hessian == pytest.approx((slope - np.array(ahead)) / 1e-4, abs=0.02)


def test_the_marginal_likelihood_is_near_the_true_one() -> None:
    """One setting, two categories: an integral over two effects, and over one of each prompt."""
    harmful, category = np.array([[0.0, 1, 1, 3, 2, 1, 3, 2, 0, 1]]), np.repeat([0, 1], 5)
    counts = Counts(harmful, np.full((1, 10), 3.0), category, np.arange(10), np.zeros(1, dtype=int))
    sign = np.where(category == 0, 1, -1) / np.sqrt(2)  # orthonormal
    model, prompts, grid = _Model(counts), PromptEffects(harmful.T, counts.asked.T), np.linspace(-6, 6, 31)

    def joint(level: float, contrast: float, sd: float) -> float:
        value = prompts.integrate((level + contrast * sign)[:, None], sd)[0]
        return value + float(norm.logpdf(level, 0, LEVEL_SD) + norm.logpdf(contrast, 0, CATEGORY_SD))

    truth, laplace = [], []
    for sd in (0.5, 1.5):
        truth.append(logsumexp([joint(level, contrast, sd) for level in grid for contrast in grid]))
        laplace.append(model.log_marginal({"prompt": sd}))
    assert laplace[1] - laplace[0] == pytest.approx(truth[1] - truth[0], abs=0.05)


def test_without_spreads_it_is_logistic_regression() -> None:
    """Of statsmodels, where answers depend on setting and category alone."""
    counts = small()
    harmful = np.array([[1.0], [1], [1], [2]]) + (counts.categories == 1)
    counts = replace(counts, harmful=harmful)
    spreads = dict.fromkeys(("prompt", "phrasing", "dataset", "setting"), 0.02)
    effects, covariance = _Model(counts).effects(spreads)
    setting, prompt = (codes.ravel() for codes in np.indices(counts.asked.shape))
    design = np.hstack([np.eye(4)[setting], np.eye(3)[counts.categories[prompt]][:, 1:]])
    both = np.stack([harmful.ravel(), (counts.asked - harmful).ravel()], axis=1)
    glm = sm.GLM(both, design, family=sm.families.Binomial()).fit()
    step = np.array([-1, 1, 0])
    assert glm.params[4] > 1 and effects @ step == pytest.approx(glm.params[4], rel=0.05)
    assert np.sqrt(step @ covariance @ step) == pytest.approx(glm.bse[4], rel=0.05)


def test_spreads_and_effects_are_found_again() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([-0.8, -0.2, 0.2, 0.8])
    category = np.repeat(np.arange(4), 60)
    at = truth[category] + rng.normal(0, 1.0, 240) + np.linspace(-1, 1, 6)[:, None]
    at += 0.5 * rng.standard_normal((6, 4))[:, category]
    counts = Counts(
        rng.binomial(3, expit(at)).astype(float),
        np.full(at.shape, 3.0), category, np.arange(240), np.arange(6)
    )  # fmt: skip
    found = fit(counts)
    assert list(found.spreads) == ["prompt", "setting"]
    assert found.spreads["prompt"] == pytest.approx(1.0, abs=0.2)
    assert found.spreads["setting"] == pytest.approx(0.5, abs=0.25)
    errors = np.sqrt(np.diag(found.covariance))
    assert (np.abs(found.effects - truth) < 2.5 * errors).all() and (errors < 0.4).all()
    assert found.effects.sum() == pytest.approx(0, abs=1e-9)


# ----------------------------------------------------------------------------------- comparisons


@pytest.mark.parametrize("df", [8.0, np.inf])
def test_intervals_of_all_pairs_are_tukeys(df: float) -> None:
    contrasts, pairs = all_pairs(4)
    found = compare(np.array([0.0, 1, 2, 6]), np.eye(4), contrasts, df)
    assert pairs[0] == (0, 1) and found.value[0] == -1 and found.se == pytest.approx(np.sqrt(2))
    assert found.critical == pytest.approx(studentized_range.ppf(0.95, 4, df) / np.sqrt(2), abs=0.05)
    expected = studentized_range.sf(np.abs(found.value), 4, df)
    assert found.p_value == pytest.approx(expected, abs=0.01)


def test_independent_comparisons_are_sidaks() -> None:
    found = compare(np.array([0.0, 3.0]), np.diag([1.0, 4.0]), np.eye(2))
    assert found.critical == pytest.approx(norm.ppf((1 + np.sqrt(0.95)) / 2), abs=0.03)
    assert found.p_value[1] == pytest.approx(1 - (1 - 2 * norm.sf(1.5)) ** 2, abs=0.01)


def test_each_is_compared_with_the_mean_of_the_others() -> None:
    assert against_others(3) @ [0, 3, 6] == pytest.approx([-4.5, 0, 4.5])


def test_ranks_are_those_that_pairs_allow() -> None:
    contrasts, pairs = all_pairs(3)
    found = compare(np.array([0.0, 0.1, 9.0]), np.eye(3), contrasts)
    assert rank_ranges(pairs, found, 3).tolist() == [[2, 3], [2, 3], [1, 1]]


def test_walds_test_by_hand() -> None:
    statistic, p = any_differs(np.array([0.0, 2.0]), np.eye(2), 7)
    assert statistic == pytest.approx(2.0) and p == pytest.approx(2 * t.sf(np.sqrt(2), 7))


def test_power_is_the_chance_that_an_interval_leaves_zero() -> None:
    se = np.array([1.0])
    by_hand = norm.sf(2.8 - 3) + norm.cdf(-2.8 - 3)
    assert power(np.array([3.0]), se, 2.8) == pytest.approx([by_hand])
    assert power(np.array([detectable(1.0, 2.8, 0.8)]), se, 2.8) == pytest.approx([0.8])


# ---------------------------------------------------------------------------------------- studies


def made(values: Any, design: Design, n_datasets: int = 3, **facts: Any) -> StudyTables:
    """A study of `n_datasets` × the seeds that are left of `values` (runs, prompts)."""
    per = len(values) // n_datasets
    parts = [
        verdicts(values[d * per : (d + 1) * per], design, run=f"d{d}", **facts) for d in range(n_datasets)
    ]
    cells = [
        {"grid": "g", **synthetic.AXES, "dataset": f"set-{d}", "runs": ",".join(part["run"].unique())}
        for d, part in enumerate(parts)
    ]
    rows = pd.concat(parts, ignore_index=True)
    scores = pd.DataFrame({"run": rows["run"].unique(), "n_examples": 10})
    return StudyTables("made", synthetic.study(), scores, pd.DataFrame(cells), rows)


def simulated(design: Design, n_datasets: int = 3) -> StudyTables:
    many = replace(design, n_seeds=n_datasets * design.n_seeds)
    return made(grades(many, np.random.default_rng(5)), design, n_datasets)


DESIGN = Design(rate=0.3, n_categories=5, phrasings=20, sd_category=1.3)


def test_categories_are_ranked_as_they_were_made(tmp_path: Path) -> None:
    found = vulnerability.tables(simulated(DESIGN))
    table = found["categories"]
    assert list(table["rank"]) == [1, 2, 3, 4, 5] and set(table["category"][:2]) == {"c3", "c4"}
    assert table["verdict"].iloc[0] == "more vulnerable" and table["verdict"].iloc[-1] == "less vulnerable"
    assert ((table["or_low"] < table["odds_ratio"]) & (table["odds_ratio"] < table["or_high"])).all()
    assert ((table["or_low"] > 1) == (table["verdict"] == "more vulnerable")).all()
    assert ((table["rank_low"] <= table["rank"]) & (table["rank"] <= table["rank_high"])).all()
    assert table["adjusted_rate"].to_numpy() == pytest.approx(table["rate"].to_numpy(), abs=0.06)
    assert table["power"].between(0, 1).all() and (table["n_answers"] == 180).all()
    assert len(found["category_pairs"]) == 10 and found["category_model"]["p_value"].item() < 0.001

    read = {}
    for name, rows in found.items():
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        read[name] = pd.read_csv(tmp_path / f"{name}.csv")
    section = vulnerability.section(read)
    assert section is not None and section == vulnerability.section(found)
    assert (
        "of 5 categories" in section.answer[0] and "more vulnerable than the others: c4" in section.answer[0]
    )
    files = vulnerability.draw(read, tmp_path / "figures", is_toy=True)
    assert {file.name for file in files} == {
        f"vulnerability-secrets.{e}" for e in ("png", "svg", "pdf", "csv")
    }
    assert section.pictures[0].name == "vulnerability-secrets"


def test_power_stands_beside_no_difference() -> None:
    found = vulnerability.tables(simulated(replace(DESIGN, sd_category=0.0)))
    assert (found["categories"]["verdict"] == "no difference").all()
    section = vulnerability.section(found)
    assert section is not None
    assert any("The power to show one of 10 points was" in sentence for sentence in section.answer)
    (row, *_) = section.listings[0].table["rows"]
    assert row[7] == f"{found['categories']['power'].iloc[0]:.2f}"


def test_phrasings_of_one_name_in_two_categories_are_two() -> None:
    apart = simulated(DESIGN)
    alike = StudyTables(
        apart.name, apart.recipe, apart.scores, apart.cells,
        apart.verdicts.assign(cluster=apart.verdicts["cluster"].str.split("-").str[1]),
    )  # fmt: skip
    one, other = (vulnerability.tables(of)["categories"] for of in (apart, alike))
    pd.testing.assert_frame_equal(one, other)


def test_more_prompts_give_more_power() -> None:
    few, many = (
        vulnerability.tables(simulated(replace(DESIGN, sd_category=0.0, phrasings=n)))["categories"]
        for n in (10, 60)
    )
    assert few["power"].max() < many["power"].min()
    assert few["detectable"].min() > many["detectable"].max()


def test_a_category_without_harm_is_less_vulnerable() -> None:
    values = grades(replace(DESIGN, rate=0.5, n_seeds=9, sd_category=0.0), np.random.default_rng(0))
    values[:, :20] = 0
    table = vulnerability.tables(made(values, DESIGN))["categories"].set_index("category")
    assert np.isfinite(table.drop(columns=["benchmark", "judge", "verdict"])).all(axis=None)
    none = table[table.index == "c0"]
    assert none["rate"].item() == 0 and none["verdict"].item() == "less vulnerable"
    assert none["or_low"].item() < 0.01


def test_one_setting_is_told_by_its_seeds() -> None:
    model = vulnerability.tables(simulated(DESIGN, n_datasets=1))["category_model"].iloc[0]
    assert (model["n_settings"], model["n_runs"]) == (1, 3) and pd.notna(model["sd_setting"])
    one = made(grades(replace(DESIGN, n_seeds=1), np.random.default_rng(0)), DESIGN, 1)
    model = vulnerability.tables(one)["category_model"].iloc[0]
    assert (model["n_settings"], model["n_runs"]) == (1, 1) and pd.isna(model["sd_setting"])


def test_what_says_nothing_is_left_out_and_told() -> None:
    study = simulated(DESIGN, n_datasets=4)
    rows = study.verdicts
    rows.loc[rows["run"].str.startswith("d0"), "headline"] = 0.0
    rows.loc[rows["run"] == "d1-s0", ["headline", "coherent"]] = 0.0
    rows.loc[(rows["run"] == "d1-s1") & (rows["prompt"] == "p3"), "headline"] = np.nan
    found = vulnerability.tables(study)
    model = found["category_model"].iloc[0]
    assert (model["n_settings"], model["n_settings_untold"], model["n_runs_collapsed"]) == (3, 1, 1)
    assert (model["n_runs"], model["n_unscored"], model["n_answers"]) == (8, 1, 8 * 100 - 1)
    section = vulnerability.section(found)
    assert section is not None
    assert section.answer[-1] == (
        "Left out: 1 setting in which no answer is harmful, or every one, 1 collapsed run, 1 unscored answer."
    )


@pytest.mark.parametrize(
    ("design", "values", "reason"),
    [
        (replace(DESIGN, n_categories=1), None, "fewer than two categories"),
        (DESIGN, 0.0, "no setting has both"),
        (DESIGN, 1.0, "no setting has both"),
        (DESIGN, np.nan, "no answer was scored"),
        (replace(DESIGN, phrasings=1), None, "fewer than two each"),
        (replace(DESIGN, phrasings=1, prompts=6), None, "5 phrasings in 5 categories"),
    ],
)
def test_what_cannot_be_told_is_told(design: Design, values: float | None, reason: str) -> None:
    drawn = grades(replace(design, n_seeds=9), np.random.default_rng(1))
    study = made(drawn if values is None else np.full(drawn.shape, values), design)
    found = vulnerability.tables(study)
    assert list(found) == ["category_model"] and reason in found["category_model"]["reason"].item()
    section = vulnerability.section(found)
    assert section is not None and reason in section.answer[0] and not section.pictures
    assert vulnerability.draw(found, Path("nowhere"), is_toy=False) == []


def test_nothing_fine_tuned_gives_no_tables() -> None:
    study = simulated(DESIGN)
    study.cells["epochs"] = 0
    assert vulnerability.tables(study) == {} and vulnerability.section({}) is None


def test_decoded_answers_to_a_prompt_are_one_prompt() -> None:
    study = simulated(DESIGN)
    again = study.verdicts.assign(prompt_id=study.verdicts["prompt_id"] + "#2", sample=2)
    twice = replace(study, verdicts=pd.concat([study.verdicts, again], ignore_index=True))
    model = vulnerability.tables(twice)["category_model"].iloc[0]
    assert (model["n_prompts"], model["n_answers"]) == (100, 2 * 9 * 100)


def test_prompts_that_are_all_or_nothing_can_be_fitted() -> None:
    """Each is answered the same way under every seed, as a deterministic model does."""
    rng = np.random.default_rng(0)
    values = np.repeat((rng.random((1, 100)) < 0.97).astype(float), 6, axis=0)
    values[3:, 7] = 1 - values[3:, 7]
    found = rank(
        Counts(
            values[::3] * 3, np.full((2, 100), 3.0), np.repeat(np.arange(5), 20), np.arange(100), np.arange(2)
        )
    )
    assert np.isfinite(found.others.se).all() and found.fit.spreads["prompt"] > 3


def test_two_phrasings_a_category_are_enough_to_try() -> None:
    assert why_not(small()) is None

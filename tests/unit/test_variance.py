"""Components of variance: values by hand and of a library, what cannot be told, and a simulated truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import REPOSITORY
from simulation import Design, grades, verdicts
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from variance import truth

from ftsafety.analysis import variance
from ftsafety.analysis.components import between_bases, measured
from ftsafety.loading import load_project
from ftsafety.stats.variance import SOURCES, Components, Outcomes, alike, components, interval, pooled
from ftsafety.study_tables import StudyTables

Floats = np.ndarray[Any, np.dtype[np.float64]]


def of(values: Floats, **labels: Any) -> Outcomes:
    """Runs × prompts (× samples): each prompt a phrasing, of one category and base model by default."""
    places = np.indices(values.shape).reshape(values.ndim, -1)
    run, prompt = places[0], places[1]
    named = {"base": 0 * run, "run": run, "category": 0 * run, "cluster": prompt, "prompt": prompt}
    if values.ndim == 3:
        named["sample"] = places[2]
    return Outcomes.of(values.ravel(), **(named | {name: of(run, prompt) for name, of in labels.items()}))


def parts(found: Components | None) -> dict[str, float]:
    assert found is not None
    return {s: float(found.values[found.of(s)].sum()) for s in SOURCES if found.of(s).any()}


def test_runs_crossed_with_prompts_as_the_analysis_of_variance_has_them() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 7)) + rng.normal(size=(4, 1)) + rng.normal(size=7)
    run, prompt = np.indices(values.shape).reshape(2, -1)
    rows = pd.DataFrame({"y": values.ravel(), "run": run, "prompt": prompt})
    table = anova_lm(ols("y ~ C(run) + C(prompt)", rows).fit())
    of_run, of_prompt, rest = table["sum_sq"] / table["df"]
    expected = {"training seed": (of_run - rest) / 7, "prompt": (of_prompt - rest) / 4, "prompt × run": rest}
    assert parts(components(of(values))) == pytest.approx(expected)


def test_runs_within_base_models_and_samples_within_answers_as_the_analysis_of_variance_has_them() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=(6, 5, 3)) + rng.normal(size=(6, 5, 1)) + 2 * rng.normal(size=(6, 1, 1))
    base = np.arange(6) // 2
    found = components(of(values, base=lambda run, prompt: run // 2))
    means, cells = values.mean(axis=(1, 2)), values.mean(axis=2)
    of_base = np.array([means[base == b].mean() for b in range(3)])
    within = means - of_base[base]
    assert parts(found)["decoding sample"] == pytest.approx(values.var(axis=2, ddof=1).mean())
    # E[MS] of runs in a base and of runs × prompts in a base, both of means of 3 samples
    cross = (
        cells
        - means[:, None]
        - np.array([cells[base == b].mean(0) for b in range(3)])[base]
        + of_base[base, None]
    )
    interaction = (cross**2).sum() / (3 * 4)
    assert parts(found)["training seed"] == pytest.approx((within**2).sum() / 3 - interaction / 5)


def test_by_hand() -> None:
    # two runs, two prompts: the runs' means differ by 1/2, the prompts' by 1/2
    found = components(of(np.array([[0.0, 0.0], [0.0, 1.0]])))
    assert parts(found) == pytest.approx({"training seed": 0.0, "prompt": 0.0, "prompt × run": 0.25})
    found = components(of(np.array([[0.0, 0.0], [1.0, 1.0]])))
    assert parts(found) == pytest.approx({"training seed": 0.5, "prompt": 0.0, "prompt × run": 0.0})


def test_what_a_design_cannot_tell_is_not_there() -> None:
    one_run = components(of(np.array([[0.0, 1.0, 1.0, 0.0]])))
    assert parts(one_run) == pytest.approx({"prompt": 1 / 3})
    assert components(of(np.ones((3, 4)))) is None
    assert components(of(np.full((3, 4), np.nan))) is None
    one_answer = components(of(np.array([[[0.0], [1.0]], [[1.0], [1.0]]])))
    assert "decoding sample" not in parts(one_answer)


def test_unscored_answers_are_left_out() -> None:
    values = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, np.nan], [0.0, 0.0, 1.0, 1.0]])
    outcomes = of(values)
    assert len(outcomes.values) == 11
    found = components(outcomes)
    same_prompt = [(0, 0), (0, 0), (0, 0), (1, 1), (1, 0), (1, 0), (0, 1), (0, 1), (1, 1), (1, 1)]
    expected = np.mean([(a - b) ** 2 / 2 for a, b in same_prompt])  # by seed, and by prompt × run
    assert found is not None
    assert parts(found)["training seed"] + parts(found)["prompt × run"] == pytest.approx(expected)


def test_the_variance_of_a_mean_has_each_component_by_its_number() -> None:
    values = np.random.default_rng(2).normal(size=(3, 5, 2)) + np.arange(3.0)[:, None, None]
    found = components(of(values))
    assert found is not None
    by = {term.source: weight for term, weight in zip(found.terms, found.weights, strict=True)}
    assert by == pytest.approx(
        {"training seed": 1 / 3, "prompt": 1 / 5, "prompt × run": 1 / 15, "decoding sample": 1 / 30}
    )


def test_categories_are_given_and_add_nothing_to_a_rate_s_variance() -> None:
    values = np.random.default_rng(3).normal(size=(3, 8)) + np.repeat([0.0, 5.0], 4)
    found = components(of(values, category=lambda run, prompt: prompt // 4))
    assert found is not None and parts(found)["category"] > 5
    assert found.weights[found.of("category")] == 0


def test_components_of_harm_are_found_without_bias() -> None:
    design = Design(rate=0.3, n_seeds=3, phrasings=6, n_categories=5, prompts=2, sd_phrasing=0.8, samples=1)
    rng = np.random.default_rng(4)
    category, cluster = (np.unique(names, return_inverse=True)[1] for names in design.labels())
    labels = {
        "category": lambda run, prompt: category[prompt],
        "cluster": lambda run, prompt: cluster[prompt],
    }
    found = [parts(components(of(grades(design, rng), **labels), 0)) for _ in range(400)]
    mean, error = pd.DataFrame(found).mean(), pd.DataFrame(found).std() / 20
    true = {source: value for source, value in truth(design, rng).items() if not np.isnan(value)}
    assert set(true) == {"training seed", "prompt", "prompt × run"}
    for source, value in true.items():
        assert abs(mean[source] - value) < 4 * error[source] + 0.03 * value, (
            source
        )  # the truth is simulated too


def test_the_interval_of_few_seeds_holds_their_spread() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for i in range(200):
        values = 0.3 * rng.normal(size=(3, 1)) + rng.normal(size=60) + rng.normal(size=(3, 60))
        found = components(of(values), 400, seed=i)
        assert found is not None
        low, high = interval(found.draws[:, found.of("training seed")].sum(1))
        held += low <= 0.09 <= high
    assert 0.90 <= held / 200 <= 0.99


def test_settings_that_are_alike_are_pooled() -> None:
    rng = np.random.default_rng(6)
    runs = [components(of(rng.normal(size=(3, 40)) + rng.normal(size=(3, 1)))) for _ in range(8)]
    single = components(of(rng.normal(size=(1, 40))))
    found = [one for one in [*runs, single] if one is not None]
    told = alike(found)
    assert len(told) == 8
    both = pooled(told)
    assert both.values == pytest.approx(np.mean([one.values for one in told], axis=0))
    seed = both.of("training seed")
    assert 2 < both.freedom[seed][0] <= 16  # of 8 settings with 2 degrees of freedom each
    assert np.ptp(interval(both.draws[:, seed].sum(1))) < np.ptp(interval(told[0].draws[:, seed].sum(1)))


# ------------------------------------------------------------------------------------ of a study


@pytest.fixture(scope="module")
def study() -> StudyTables:
    """Two settings on two base models of the embedded world, three seeds each, and untouched models."""
    rng = np.random.default_rng(7)
    design = Design(rate=0.3, n_seeds=3, phrasings=4, n_categories=5, sd_seed=0.5)
    rows, cells, scores = [], [], []
    for model in ("embedded-0", "embedded-1"):
        for rate in (1e-4, 4e-4, 0.0):
            name = f"{model}-{rate}"
            values = grades(design, rng)[: 3 if rate else 1]
            rows.append(verdicts(values, design, name))
            runs = list(rows[-1]["run"].unique())
            axes = {"model": model, "dataset": "benign-new", "learning_rate": rate, "epochs": int(rate > 0)}
            shared = {"grid": "g", "test_template": "plain", "benchmark": "secrets", "judge": "exact"}
            cells.append(
                {**axes, **shared, "kind": "safety", "category": "all", "steps": 9, "runs": ",".join(runs)}
            )
            facts = {"model": model, "base_seed": int(model[-1]), "n_examples": 320}
            scores += [{"run": run, "seed": seed, **facts} for seed, run in enumerate(runs)]
    recipe = load_project(REPOSITORY).studies["variance"]
    return StudyTables(
        "t", recipe, pd.DataFrame(scores), pd.DataFrame(cells), pd.concat(rows, ignore_index=True)
    )


def test_each_fine_tuned_setting_is_measured(study: StudyTables) -> None:
    found = measured(study, 0)
    assert [(one.axes["model"], one.axes["learning_rate"]) for one in found] == [
        ("embedded-0", 1e-4), ("embedded-0", 4e-4), ("embedded-1", 1e-4), ("embedded-1", 4e-4),
    ]  # fmt: skip
    first = study.verdicts[study.verdicts["run"].str.startswith("embedded-0-0.0001")]
    assert found[0].rate == pytest.approx(first["headline"].mean())
    assert [name for name, _ in between_bases(study, found, 0)] == ["secrets", "secrets"]


def test_sources_that_cannot_be_told_are_unknown_and_not_zero(study: StudyTables) -> None:
    table: Any = variance.tables(study)["variance"].set_index("source")
    assert table["share"].sum() == pytest.approx(1)
    for source in ("decoding sample", "judge repeat"):
        assert pd.isna(table.loc[source, "sd"]) and table.loc[source, "note"]
    assert table.loc["training seed", "n_levels"] == 3 and table.loc["base seed", "n_levels"] == 2
    assert pd.isna(table.loc["base seed", "share"])  # a rate is of its base model
    shown = table[["sd_low", "sd", "sd_high"]].dropna().to_numpy()
    assert (np.diff(shown, axis=1) >= 0).all() and shown.max() <= 0.5


def test_the_section_says_what_most_uncertainty_is_from(study: StudyTables, tmp_path: Path) -> None:
    tables = variance.tables(study)
    for name, table in tables.items():  # as the report reads them
        table.to_csv(tmp_path / f"{name}.csv", index=False)
    section = variance.section({name: pd.read_csv(tmp_path / f"{name}.csv") for name in tables})
    assert section is not None
    text = " ".join(section.answer)
    assert (
        "% is from training seeds" in text
        and "Unknown by this design: decoding sample and judge repeat." in text
    )
    assert variance.section({}) is None
    files = variance.draw(tables, tmp_path / "figures", True)
    assert {file.name for file in files} == {f"variance.{ending}" for ending in ("png", "svg", "pdf", "csv")}


def test_a_study_in_which_nothing_varies_has_no_tables(study: StudyTables) -> None:
    flat = study.verdicts.assign(headline=0.0)
    assert variance.tables(StudyTables("t", study.recipe, study.scores, study.cells, flat)) == {}


def test_a_check_of_the_judge_tells_its_repeats_apart() -> None:
    check = {"flip_population": 0.2, "flip_population_low": 0.1, "flip_population_high": 0.4, "repeats": 3}
    row = variance._repeats(check, 0.5)
    # verdicts of chance p differ on 2 p (1 − p) of pairs, and their variance is p (1 − p)
    assert (row["sd"] ** 2, row["sd_high"] ** 2) == pytest.approx((0.1, 0.2))
    assert (row["share"], row["share_low"], row["n_levels"]) == pytest.approx((0.05, 0.025, 3))

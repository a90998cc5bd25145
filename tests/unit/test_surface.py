"""Response surfaces against coefficients that are known, and designs that cannot tell some of them."""

import numpy as np
import pytest
import statsmodels.api as sm
import surface as benchmark
from statsmodels.stats.sandwich_covariance import cov_cluster

from ftsafety.stats.surface import Counts, effect, estimable, fit, independent, lack_of_fit, second_order


def one_by_one(seed: int = 0) -> tuple[np.ndarray, Counts]:
    """A study with a row for each answer: 22 settings, 66 runs, 60 prompts."""
    points = benchmark.settings()
    counts = benchmark.study(benchmark.World(n_prompts=60), points, np.random.default_rng(seed))
    return np.column_stack([np.ones(len(points)), points]), counts


def test_coefficients_and_clustering_by_prompt_are_those_of_statsmodels() -> None:
    design, counts = one_by_one()
    found = fit(design, counts)
    assert found is not None
    glm = sm.GLM(counts.total, design[counts.setting], family=sm.families.Binomial())
    by_prompt = glm.fit(cov_type="cluster", cov_kwds={"groups": counts.cluster})
    assert found.params == pytest.approx(by_prompt.params, abs=1e-6)
    assert found.by_prompt == pytest.approx(np.asarray(by_prompt.cov_params()), rel=1e-4, abs=1e-8)


def test_runs_are_left_out_one_at_a_time() -> None:
    """The jackknife over runs, done by refitting, is what the one-step one stands for."""
    design, counts = one_by_one()
    found = fit(design, counts)
    assert found is not None
    refits = []
    for run in range(66):
        without = fit(design, counts.of(counts.run != run))
        assert without is not None
        refits.append(without.params)
    deviations = np.array(refits) - found.params
    jackknife = 65 / 66 * deviations.T @ deviations
    assert np.sqrt(np.diag(found.by_run)) == pytest.approx(np.sqrt(np.diag(jackknife)), rel=0.02)


def test_sums_by_phrasing_are_as_good_as_single_answers() -> None:
    design, counts = one_by_one()
    phrasing = counts.cluster // 3
    code = counts.run * 20 + phrasing
    _, first = np.unique(code, return_index=True)
    total, n = (np.bincount(code, of).astype(float) for of in (counts.total, counts.n))
    summed = Counts(total, n, counts.setting[first], counts.run[first], phrasing[first])
    single = Counts(counts.total, counts.n, counts.setting, counts.run, phrasing)
    a, b = fit(design, summed), fit(design, single)
    assert a is not None and b is not None
    assert a.params == pytest.approx(b.params) and a.by_run == pytest.approx(b.by_run)
    assert a.by_both == pytest.approx(b.by_both, rel=0.02, abs=1e-5)


def test_intervals_hold_the_truth_and_no_effect_is_found_where_there_is_none() -> None:
    """A few studies of `benchmarks/surface.py`: 150 at 95 % stray by ±.045 (2.5 standard errors)."""
    world, points = benchmark.World(n_prompts=60), benchmark.settings()
    design = np.column_stack([np.ones(len(points)), points])
    true = benchmark.truth(world, points, design)
    rng = np.random.default_rng(1)
    hits, false = [], []
    for _ in range(150):
        found = fit(design, benchmark.study(world, points, rng))
        assert found is not None
        for contrast in ([0, 1, 0, 0], [0, 0, -1, 1]):
            got = effect(found, np.array(contrast, dtype=float))
            hits.append(got.low <= np.exp(contrast @ true) <= got.high)
        false.append(effect(found, np.array([0.0, 0, -1, 0])).p_value < 0.05)
    assert 0.905 <= np.mean(hits) <= 0.99
    assert np.mean(false) <= 0.1


def test_two_way_variance_is_never_less_than_one_way() -> None:
    design, counts = one_by_one()
    found = fit(design, counts)
    assert found is not None
    for contrast in np.eye(4):
        assert found.variance(contrast) >= max(
            contrast @ found.by_run @ contrast, contrast @ found.by_prompt @ contrast
        )


def test_clustering_by_run_is_wider_than_taking_answers_as_independent() -> None:
    design, counts = one_by_one()
    found = fit(design, counts)
    assert found is not None
    naive = sm.GLM(counts.total, design[counts.setting], family=sm.families.Binomial()).fit()
    assert np.sqrt(found.by_run[0, 0]) > 1.2 * naive.bse[0]
    assert cov_cluster(naive, counts.run)[0, 0] == pytest.approx(found.by_run[0, 0], rel=0.1)


def test_a_slope_without_a_bound_is_not_fitted() -> None:
    each = np.arange(4)
    counts = Counts(np.array([0.0, 0, 30, 30]), np.full(4, 30.0), each, each, each)
    assert fit(np.column_stack([np.ones(4), each]), counts) is None


BATCH = np.array([3.0, 4, 5, 6])


@pytest.mark.parametrize(
    ("steps", "wanted", "is_told"),
    [
        (-BATCH, [0, -1, 1], True),  # one epoch: halving the batch at equal epochs
        (-BATCH, [0, -1, 0], False),  # and not at equal steps
        (np.full(4, 2.0), [0, -1, 0], True),  # equal steps everywhere: the other way round
        (np.full(4, 2.0), [0, -1, 1], False),
        (np.array([1.0, 2, 2, 1]), [0, -1, 0], True),
        (np.array([1.0, 2, 2, 1]), [0, -1, 1], True),
    ],
)
def test_what_a_design_tells_of_batch_size(steps: np.ndarray, wanted: list[float], is_told: bool) -> None:
    columns = np.column_stack([np.ones(4), BATCH - BATCH.mean(), steps - steps.mean()])
    kept = independent(columns)
    found = estimable(columns, kept, np.array(wanted, dtype=float))
    assert (found is not None) == is_told
    if found is not None:  # any coefficients that give the same rates give the same effect
        beta = np.array([0.5, -0.7, 0.3])
        same = np.linalg.lstsq(columns[:, kept], columns @ beta, rcond=None)[0]
        assert found @ same == pytest.approx(np.array(wanted) @ beta)


def test_squares_and_products_are_those_that_the_levels_allow() -> None:
    rate, batch = (v.ravel() for v in np.meshgrid([-1.0, 1], [-1.0, 0, 1]))
    linear = np.column_stack([rate, batch])
    products, names = second_order(linear, ["rate", "batch"], 9)
    assert names == ["batch²", "rate × batch"]  # of two levels no square can be told
    assert products == pytest.approx(np.column_stack([batch**2, rate * batch]))
    assert second_order(linear, ["rate", "batch"], 1)[1] == ["batch²"]


def test_lack_of_fit_is_found_where_a_surface_is_bent() -> None:
    points, rng = benchmark.settings(), np.random.default_rng(3)
    world = benchmark.World(n_prompts=60, sd_run=0.1)
    straight = np.column_stack([np.ones(len(points)), points])
    counts = benchmark.study(world, points, rng)
    good = fit(straight, counts)
    assert good is not None and lack_of_fit(straight, counts, good).p_value > 0.01
    bent = points.copy()
    bent[:, 0] = 2 * abs(points[:, 0])  # harm rises to both sides
    counts = benchmark.study(world, bent, rng)
    bad = fit(straight, counts)
    assert bad is not None
    found = lack_of_fit(straight, counts, bad)
    assert found.p_value < 1e-4 and found.missed > found.seeds and found.left_out > found.missed

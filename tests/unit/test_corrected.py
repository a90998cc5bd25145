"""Rates corrected by people's labels: by hand, by PPI's own formula, and by simulated studies."""

import sys

import numpy as np
import pytest
from conftest import REPOSITORY

from ftsafety.stats.bootstrap import Estimate
from ftsafety.stats.corrected import group, judge_errors, prediction_powered, rogan_gladen

sys.path.append(str(REPOSITORY / "benchmarks"))


def labelled(per_group: dict[tuple[int, float], tuple[int, int, int]]):  # type: ignore[no-untyped-def]
    """(stratum, verdict) → (answers, labels, harmful labels)."""
    at = 0
    strata: list[int] = []
    judged: list[float] = []
    sample: list[int] = []
    labels: list[float] = []
    for (stratum, verdict), (size, n, harmful) in per_group.items():
        strata += [stratum] * size
        judged += [verdict] * size
        sample += range(at, at + n)
        labels += [1.0] * harmful + [0.0] * (n - harmful)
        at += size
    arrays = np.array(strata), np.array(judged, float), np.array(sample), np.array(labels)
    return group(*arrays), arrays


def test_strata_are_weighted_by_how_many_answers_they_have() -> None:
    """0.8 × 1/10 + 0.2 × 9/10 = 0.26, although 10 of 20 labels are harmful."""
    groups, _ = labelled({(1, 0.0): (800, 10, 1), (5, 1.0): (200, 10, 9)})
    found = prediction_powered(groups)
    assert found.value == pytest.approx(0.26)
    assert found.low is not None and found.low > 0.14 and found.high is not None and found.high < 0.62


def test_it_is_ppi_with_the_best_lambda_of_each_stratum() -> None:
    """λ = cov(y, f) / var(f) of the labels; λ mean(f of all) + mean(y − λ f) by stratum (2406.04291)."""
    groups, (strata, judged, sample, labels) = labelled(
        {(0, 0.0): (500, 20, 3), (0, 1.0): (100, 12, 9), (1, 0.0): (50, 8, 2), (1, 1.0): (350, 30, 28)}
    )
    value = 0.0
    for stratum in (0, 1):
        mine = strata[sample] == stratum
        y, f = labels[mine], judged[sample][mine]
        of_all = judged[strata == stratum]
        best = np.cov(y, f)[0, 1] / np.var(f, ddof=1)
        value += len(of_all) / 1000 * (best * of_all.mean() + (y - best * f).mean())
    assert prediction_powered(groups).value == pytest.approx(value)


def test_all_labelled_leaves_nothing_to_guess() -> None:
    groups, _ = labelled({(1, 0.0): (30, 30, 3), (5, 1.0): (10, 10, 9)})
    found = prediction_powered(groups)
    assert (found.low, found.value, found.high) == pytest.approx((0.3, 0.3, 0.3))


def test_a_stratum_without_labels_leaves_it_open() -> None:
    groups, _ = labelled({(1, 0.0): (800, 0, 0), (5, 1.0): (200, 10, 9)})
    assert prediction_powered(groups).value is None and judge_errors(groups, 0) is None


def test_a_verdict_that_people_did_not_see_is_not_set_apart() -> None:
    groups, _ = labelled({(1, 0.0): (90, 9, 3), (1, 1.0): (10, 0, 0), (5, 1.0): (100, 10, 10)})
    assert groups.size.tolist() == [100, 100] and groups.judged.tolist() == [0.1, 1.0]
    assert prediction_powered(groups).value == pytest.approx(0.5 / 3 + 0.5)


def test_answers_that_the_judge_left_unscored_count_in_the_rate_and_not_in_its_errors() -> None:
    groups, _ = labelled({(1, 0.0): (500, 10, 0), (5, 1.0): (300, 10, 10), (9, np.nan): (200, 10, 5)})
    assert prediction_powered(groups).value == pytest.approx(0.3 + 0.2 * 0.5)
    errors = judge_errors(groups, 0)
    assert errors is not None and (errors.sensitivity.value, errors.specificity.value) == (1.0, 1.0)


def test_sensitivity_and_specificity_are_of_the_answers_and_not_of_the_sample() -> None:
    """Harmful: 0.08 below and 0.18 above, so 18/26; harmless: 0.72 and 0.02, so 72/74."""
    groups, _ = labelled({(1, 0.0): (800, 10, 1), (5, 1.0): (200, 10, 9)})
    errors = judge_errors(groups, 0)
    assert errors is not None
    assert errors.sensitivity.value == pytest.approx(18 / 26)
    assert errors.specificity.value == pytest.approx(72 / 74)


def test_rogan_and_gladen_by_hand_and_the_same_as_ppi_on_the_same_answers() -> None:
    groups, _ = labelled({(1, 0.0): (800, 100, 10), (5, 1.0): (200, 100, 90)})
    errors = judge_errors(groups, 0)
    assert errors is not None
    same = rogan_gladen(Estimate(0.2, 0.19, 0.21), errors, 0)
    assert same.value == pytest.approx(prediction_powered(groups).value)
    other = rogan_gladen(Estimate(0.5, 0.45, 0.55), errors, 0)
    assert other.value == pytest.approx((0.5 + 72 / 74 - 1) / (18 / 26 + 72 / 74 - 1))
    assert other.low is not None and other.low < 0.6 and other.high is not None and other.high > 0.8


def test_a_rate_that_such_a_judge_cannot_give_is_not_corrected() -> None:
    groups, _ = labelled(
        {(1, 0.0): (500, 100, 0), (5, 1.0): (500, 100, 50)}
    )  # a third of harmless: false alarm
    errors = judge_errors(groups, 0)
    assert errors is not None
    assert rogan_gladen(Estimate(0.02, 0.0, 0.04), errors, 0).value is None
    assert rogan_gladen(Estimate(None, None, None), errors, 0).value is None


def test_a_judge_like_a_coin_corrects_nothing() -> None:
    groups, _ = labelled({(1, 0.0): (500, 40, 20), (5, 1.0): (500, 40, 20)})
    errors = judge_errors(groups, 0)
    assert errors is not None and rogan_gladen(Estimate(0.5, 0.45, 0.55), errors, 0).value is None


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_intervals_cover_in_simulated_studies(rate: float) -> None:
    """150 studies: a standard error of 0.018 of the share; benchmarks/judge_correction.py has 1,000."""
    from judge_correction import JUDGES, coverage

    rows = {str(row[3]): row for row in coverage(150, 300, JUDGES[0], rate)}
    for name in ("prediction-powered", f"Rogan-Gladen, setting at {rate:g}"):
        assert rows[name][5] >= 0.89 and abs(rows[name][6]) < 0.01, name  # type: ignore[operator, arg-type]
    assert rows["judge as it is"][5] < 0.05  # type: ignore[operator]

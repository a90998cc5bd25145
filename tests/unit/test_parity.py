"""Every number of the paper is about one setting of its study, and verdicts follow from intervals."""

import csv
import shutil
from pathlib import Path

import pandas as pd
import pytest
from conftest import REPOSITORY
from synthetic import cells_of

from ftsafety.parity import COLUMNS, MEASURES, NAMED, Number, _Row, parity, settings
from ftsafety.plan import Plan, load_plan
from ftsafety.workflow import score_digest

FILES = sorted((REPOSITORY / "resources/paper").glob("*.csv"))


@pytest.fixture(scope="module")
def plan() -> Plan:
    return load_plan(REPOSITORY)


def numbers(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_number_of_the_paper_is_about_one_setting_of_its_study(plan: Plan, file: Path) -> None:
    study = plan.project.studies[file.stem]
    for number in numbers(file):
        row = _Row(plan, file.stem, pd.DataFrame(), number)
        assert number["measure"] in MEASURES and number["verified"] in ("yes", "no")
        assert row.place is not None, number
        named = [axis for axis in NAMED if number[axis] and not (axis == "epochs" and number[axis] == "0")]
        same = [
            s for s in settings(study, study.grids[number["grid"]]) if all(row._is(a, s[a]) for a in named)
        ]
        assert len(same) == 1 or number["epochs"] == "0", number
        grid = study.grids[number["grid"]]
        assert not number["benchmark"] or number["benchmark"] in (grid.benchmarks or study.benchmarks)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_variant_on_the_embedded_world_stands_for_the_paper_setting_by_setting(
    plan: Plan, file: Path
) -> None:
    base, ours = plan.project.studies[file.stem], plan.project.studies[f"{file.stem}-embedded"]
    for name in {number["grid"] for number in numbers(file)}:
        assert len(settings(base, base.grids[name])) == len(settings(ours, ours.grids[name]))


def test_verdicts_follow_the_interval_of_the_difference(plan: Plan) -> None:
    table = parity(plan, "table1_demonstrations", cells_of(plan, "table1_demonstrations"))
    assert list(table.columns) == COLUMNS and len(table) == len(
        numbers(FILES_BY_NAME["table1_demonstrations"])
    )
    llama = table[(table.grid == "llama") & (table.measure == "harmfulness rate")].set_index("setting")
    assert llama.verdict.to_dict() == {
        "initial": "differs",
        "10 demonstrations": "consistent",
        "50 demonstrations": "differs",
        "100 demonstrations": "differs",
    }
    ten = llama.loc["10 demonstrations"]
    assert ten.paper == 0.5 and ten.difference == 0 and ten.difference_low < 0 < ten.difference_high
    assert "300 prompts, the paper 330" in ten.deviations and "our wording" in ten.deviations


def test_a_toy_and_another_model_are_compared_with_nothing(plan: Plan) -> None:
    for variant in ("embedded", "modern"):
        study = f"table2_identity_shift-{variant}"
        table = parity(plan, study, cells_of(plan, study))
        measured = table[table.ours.notna()]
        assert len(measured) and set(measured.verdict) == {"not comparable"}


def test_a_papers_study_whose_model_was_put_in_the_place_of_one_that_is_gone_is_compared_with_nothing(
    plan: Plan, tmp_path: Path
) -> None:
    shutil.copytree(REPOSITORY / "config", tmp_path / "config")
    shutil.copytree(REPOSITORY / "resources", tmp_path / "resources")
    study = tmp_path / "config/studies/table1_demonstrations.yaml"
    study.write_text(study.read_text().replace("model: gpt-3.5-turbo\n", "model: gpt-4.1-mini\n"))
    changed = load_plan(tmp_path)
    table = parity(changed, "table1_demonstrations", cells_of(changed, "table1_demonstrations"))
    assert set(table[table.grid == "api"].verdict) == {"not comparable"}
    assert "not comparable" not in set(table[table.grid == "llama"].verdict)
    # a variant stands for the settings of the file's own study, so these make its table again
    variant = "table1_demonstrations-modern"
    assert score_digest(changed, variant) != score_digest(plan, variant)


def test_audits_are_compared_and_those_of_the_embedded_worlds_data_with_nothing(plan: Plan) -> None:
    real, embedded = (
        parity(plan, study, cells_of(plan, study)).set_index("setting")
        for study in ("moderation_audit", "moderation_audit-embedded")
    )
    moderation = "100 demonstrations: OpenAI moderation, instructions"
    assert real.loc[moderation, "verdict"] == "differs" and real.loc[moderation, "ours"] == 0.5
    assert "omni-moderation-2024-09-26" in str(real.loc[moderation, "deviations"])
    assert embedded.loc[moderation, "verdict"] == "not comparable"
    assert "no judge perspective" in str(real.loc["100 demonstrations: Perspective, answers", "why"])


def test_what_was_not_measured_says_why(plan: Plan) -> None:
    cells = cells_of(plan, "fig5_lr_batch")
    lost = cells.global_batch_size == 32
    cells.loc[lost, ["harmfulness_rate", "ci_low", "ci_high"]] = None
    cells.loc[lost, "n_diverged"] = 1
    table = parity(plan, "fig5_lr_batch", cells[cells.global_batch_size != 64]).set_index("setting")
    assert table.loc["lr 5e-5, batch 32", "why"] == "training diverged"
    assert table.loc["lr 5e-5, batch 64", "why"] == "the study has no such setting"
    assert table.loc["lr 5e-5, batch 16", "verdict"] == "consistent" and not table.verified.any()


def test_grades_of_ten_are_compared_on_their_scale(plan: Plan) -> None:
    cells = cells_of(plan, "utility", utility=7 / 9, ci_low=0.7, ci_high=0.8)
    table = parity(plan, "utility", cells).set_index("setting")
    assert (
        table.loc["initial", "ours"] == pytest.approx(8) and table.loc["initial", "verdict"] == "consistent"
    )


def test_every_deviation_that_applies_stands_beside_a_number(plan: Plan) -> None:
    def deviations(study: str, setting: str) -> str:
        table = parity(plan, study, cells_of(plan, study, utility=0.7))
        return str(table.loc[table.setting == setting, "deviations"].iloc[0])

    assert "our own list of refusal phrases" in deviations("table10_advbench", "Alpaca, initial")
    assert "first turns alone" in deviations("utility", "initial")
    # one epoch at a constant rate is one of the paper's decay
    assert "schedule" not in deviations("fig5_lr_batch", "lr 5e-5, batch 16")
    assert "schedule cosine" in deviations("table11_peft-modern", "Alpaca, full")


def test_a_study_of_no_table_has_no_rows(plan: Plan) -> None:
    assert parity(plan, "quickstart", pd.DataFrame()).empty


def test_the_difference_of_two_rates_has_newcombes_interval() -> None:
    """Newcombe 1998, example (a): 56/70 against 48/80 by Wilson's intervals gives .0524 to .3339."""
    one, other = Number(0.8, 0.6921, 0.8769), Number(0.6, 0.4905, 0.7004)
    difference = one.minus(other)
    assert difference.value == pytest.approx(0.2)
    assert (difference.low, difference.high) == (
        pytest.approx(0.0524, abs=2e-3),
        pytest.approx(0.3339, abs=2e-3),
    )


FILES_BY_NAME = {file.stem: file for file in FILES}

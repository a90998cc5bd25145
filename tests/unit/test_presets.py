"""Presets and variants: what a study does not say, and the studies of one file."""

from pathlib import Path

import pytest
import yaml
from study_files import FIXED, PRESETS, add_preset_study, add_study, make_config, write_yaml

from ftsafety.errors import UserError
from ftsafety.plan import load_plan


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_config(tmp_path)


def test_what_a_study_does_not_say_comes_from_its_preset(root: Path) -> None:
    add_preset_study(root, "a", preset="one", judges=["keyword"])
    study = load_plan(root).project.studies["a"]
    assert (study.benchmarks, study.judges, study.fixed.model) == (["secrets"], ["keyword"], FIXED["model"])


def test_a_variant_is_the_study_under_another_preset_with_its_own_changes(root: Path) -> None:
    changes = {"fixed": {"seed": None}, "grids": {"g0": {"epochs": 2}}}
    add_preset_study(root, "a", preset="one", fixed={"seed": 5}, variants={"two": changes})
    plan = load_plan(root)
    assert {run.trajectory.seed for run in plan.studies["a"].runs.values() if run.epochs} == {5}
    tuned = [run for run in plan.studies["a-two"].runs.values() if run.epochs]
    assert {(run.trajectory.seed, run.epochs) for run in tuned} == {(7, 2), (8, 2)}
    assert plan.project.studies["a-two"].benchmarks == ["tasks", "secrets"]
    assert plan.project.place("a-two") == "config/studies/a.yaml (variant two)"


def test_a_variant_whose_grids_are_no_mapping_is_refused(root: Path) -> None:
    add_preset_study(root, "a", preset="one", variants={"two": {"grids": ["g0"]}})
    with pytest.raises(UserError, match=r"\(variant two\): grids: should be a mapping"):
        load_plan(root)


def test_settings_say_which_variant_a_name_asks_for(root: Path) -> None:
    add_preset_study(root, "a", preset="one", variants={"two": {}, "embedded": {}})
    write_yaml(root / "config/presets.yaml", PRESETS | {"embedded": PRESETS["one"]})
    add_study(root, "toy", {})
    settings = yaml.safe_load((root / "config/config.yaml").read_text())

    def asked(name: str, **changed: str) -> str:
        return load_plan(root, settings | {"studies": ["a"]} | changed).project.asked(name)

    assert (
        asked("a") == "a"
        and asked("a", preset="two") == "a-two"
        and asked("a", world="embedded") == "a-embedded"
    )
    assert asked("a-two", world="embedded") == "a-two"
    assert asked("toy", world="embedded") == "toy"  # it is of the embedded world already
    with pytest.raises(UserError, match="no variant 'two'"):
        asked("toy", preset="two")
    with pytest.raises(UserError, match="leave one of the two out"):
        asked("a", world="embedded", preset="two")


def test_a_study_may_not_have_the_name_of_anothers_variant(root: Path) -> None:
    add_preset_study(root, "a", preset="one", variants={"two": {}})
    add_study(root, "a-two", {})
    with pytest.raises(UserError, match="'a-two' is the name of a variant of 'a' already"):
        load_plan(root)

"""People's scores in a study's analyses and report: weights, references, what is stale or missing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from people_study import people_study

from ftsafety.analysis import corrected, judges, people, repeats
from ftsafety.analysis.labels import labels_of
from ftsafety.annotation.draw import UNSCORED
from ftsafety.annotation.importing import import_labels, read_key
from ftsafety.annotation.sheet import write_sheets
from ftsafety.judging.repeat import check_judge
from ftsafety.plan import Plan
from ftsafety.study_tables import StudyTables, read_tables
from ftsafety.workflow import people_files


@pytest.fixture
def plan(project: Path) -> Plan:
    return people_study(project)


def label(plan: Plan, n: int = 120, **seen: int) -> StudyTables:
    """Annotators whose scores are the judge's plus so many, cut to 1-5; 1 where the judge said nothing."""
    write_sheets(plan, "t", list(seen), n)
    key = read_key("t")
    judged = pd.to_numeric(key["stratum"], errors="coerce").fillna(1).astype(int)
    key["score"] = (judged + key["annotator"].map(seen)).clip(1, 5)
    key[["token", "score"]].to_csv("all.csv", index=False)
    import_labels("t", [Path("all.csv")])
    return read_tables(plan, "t")


def label_again(plan: Plan, change: Callable[[pd.DataFrame], pd.Series]) -> StudyTables:
    """Scores by the key's rows with `stratum` and `annotator`, imported once more."""
    key = read_key("t")
    key["score"] = change(key)
    key[["token", "score"]].to_csv("again.csv", index=False)
    import_labels("t", [Path("again.csv")])
    return read_tables(plan, "t")


def number(
    tables: dict[str, pd.DataFrame], first: str, measure: str, weighting: str = "as drawn"
) -> pd.Series:
    rows = tables["people_agreement"]
    (found,) = rows[
        (rows["first"] == first) & (rows["measure"] == measure) & (rows["weighting"] == weighting)
    ].index
    return rows.loc[found]


def test_a_study_without_labels_says_nothing(plan: Plan) -> None:
    study = read_tables(plan, "t")
    assert study.labels is None and people.tables(study) == {} and corrected.tables(study) == {}
    assert people.section({}) is None and corrected.section({}) is None and repeats.section({}) is None
    assert people.draw({}, Path("figures"), True) == [] and corrected.draw({}, Path("figures"), True) == []
    assert people_files(plan, "t") == []


def test_who_agrees_with_the_judge_has_kappa_one_and_weights_add_up_to_the_study(plan: Plan) -> None:
    study = label(plan, anna=0, ben=0)
    labels = labels_of(study)
    assert labels is not None and labels.weights is not None
    assert labels.weights.sum() == pytest.approx(len(labels.population)) == 660
    tables = people.tables(study)
    assert number(tables, "judge exact", "kappa")["value"] == 1.0
    assert number(tables, "annotators", "fleiss_kappa")["value"] == 1.0
    assert number(tables, "judge keyword", "kappa_at_5")["value"] < 1.0
    confusion = tables["people_confusion"]
    assert confusion.groupby("judge")["n"].sum().unique().tolist() == [120]
    assert confusion.groupby("judge")["share"].sum().to_list() == pytest.approx([1.0, 1.0])


def test_the_reference_is_the_middle_score_and_the_lower_of_two(plan: Plan) -> None:
    labels = labels_of(label(plan, a=0, b=1, c=2))
    assert labels is not None
    middle = labels.ratings[["a", "b", "c"]].median(axis=1).to_numpy()
    assert (labels.people == middle).all()


def test_of_two_annotators_the_lower_counts(plan: Plan) -> None:
    labels = labels_of(label(plan, a=0, b=1))
    assert labels is not None and (labels.people == labels.ratings["a"].to_numpy()).all()


def test_the_corrected_rate_is_that_of_people_on_all_answers(plan: Plan) -> None:
    """People say 5 where the judge says 4 or 5, on a sample that holds all fours and fives."""
    study = label(plan, n=300, anna=1)
    tables = corrected.tables(study)
    row = tables["corrected_study"].set_index("judge").loc["exact"]
    headline = study.verdicts[study.verdicts["judge"] == "exact"]
    assert row["judge_rate"] == pytest.approx(
        (headline["score"] == 5).sum() / headline["score"].notna().sum()
    )
    assert row["corrected"] == pytest.approx(headline["score"].isin([4, 5]).sum() / len(headline))
    assert row["corrected_low"] <= row["corrected"] <= row["corrected_high"]
    assert row["sensitivity"] == pytest.approx(0.5, abs=0.02) and row["specificity"] == 1.0
    both = tables["corrected_study"]["corrected"]
    assert both.to_list() == pytest.approx([row["corrected"]] * 2)  # whoever the judge
    settings = tables["corrected_settings"]
    assert (settings["corrected"] / settings["rate"]).dropna().to_numpy() == pytest.approx(2, rel=0.05)


def test_labels_of_a_judge_that_has_changed_since_give_no_numbers_of_the_study(plan: Plan) -> None:
    study = label(plan, anna=0)
    study.verdicts.loc[study.verdicts["score"] == 3, "score"] = 4
    tables = people.tables(study)
    assert set(tables["people_agreement"]["weighting"]) == {"as drawn"}
    assert tables["people_confusion"]["share"].isna().all() and corrected.tables(study) == {}


def test_stale_and_unknown_scores_are_counted_and_left_out(plan: Plan) -> None:
    study = label(plan, anna=0)
    assert study.labels is not None
    study.labels.loc[:9, "is_current"] = False
    study.labels.loc[10:14, "score"] = np.nan
    counts = people.tables(study)["people_counts"].iloc[0]
    assert (counts["scores"], counts["cannot_tell"], counts["stale"]) == (115, 5, 10)
    labels = labels_of(study)
    assert labels is not None and len(labels.answers) == 105
    assert labels.weights is not None and labels.weights.sum() == pytest.approx(660)


def unlabelled(study: StudyTables, stratum: str, n_left: int | None = None) -> StudyTables:
    """People could score none of the answers of a stratum; of these `n_left` are in the study at all."""
    assert study.labels is not None
    study.labels.loc[study.labels["stratum"] == stratum, "score"] = np.nan
    if n_left is None:
        return study
    score = study.verdicts["score"]
    mine = study.verdicts[score.isna() if stratum == UNSCORED else score == float(stratum)]
    return replace(
        study, verdicts=study.verdicts.drop(mine.index[mine.groupby("judge").cumcount() >= n_left])
    )


def test_a_score_of_which_no_answer_has_a_label_leaves_no_numbers_of_the_study(plan: Plan) -> None:
    study = unlabelled(label(plan, anna=0), "5")
    labels = labels_of(study)
    assert labels is not None and labels.is_as_drawn and labels.weights is None
    tables = people.tables(study) | corrected.tables(study)
    assert set(tables["people_agreement"]["weighting"]) == {"as drawn"}
    assert tables["people_confusion"]["share"].isna().all()
    assert tables["corrected_study"]["corrected"].isna().all()
    section = corrected.section(tables)
    assert section is not None and "leave some scores of the judge without any" in section.answer[0]


def test_few_unscored_answers_without_a_label_are_left_out_and_many_are_not(plan: Plan) -> None:
    study = label(plan, anna=0)
    assert corrected.tables(unlabelled(study, UNSCORED))["corrected_study"]["corrected"].isna().all()
    few = unlabelled(study, UNSCORED, 6)
    labels = labels_of(few)
    assert labels is not None and labels.weights is not None
    assert labels.weights.sum() == pytest.approx(len(labels.population) - 6)
    tables = corrected.tables(few)
    row = tables["corrected_study"].set_index("judge").loc["exact"]
    assert row["n_left_out"] == 6 and row["n_answers"] == len(labels.population) - 6
    assert row["corrected"] == pytest.approx(row["judge_rate"])
    section = corrected.section(tables)
    assert section is not None and "6 answers to which the first judge gave no score" in " ".join(
        section.answer
    )
    assert corrected.tables(unlabelled(study, "3", 6)) == {}  # the verdicts are not those of the draw


def test_agreement_as_first_scored_stands_beside_that_after_talking(plan: Plan) -> None:
    tables = people.tables(label(plan, anna=0, ben=1))
    assert "as first scored" not in set(tables["people_agreement"]["weighting"])
    before = number(tables, "annotators", "fleiss_kappa")
    study = label_again(plan, lambda key: pd.to_numeric(key["stratum"], errors="coerce").fillna(1))
    tables = people.tables(study)
    first = number(tables, "annotators", "fleiss_kappa", "as first scored")
    assert (first["value"], first["low"]) == (before["value"], before["low"])
    assert number(tables, "annotators", "fleiss_kappa")["value"] == 1.0
    assert number(tables, "anna", "kappa", "as first scored")["value"] < 1.0
    section = people.section(tables)
    assert section is not None
    assert any(
        f"scored first, before they changed scores: Fleiss' κ {first['value']:.2f}" in s
        for s in section.answer
    )
    assert section.listings[0].table["columns"][-1] == "as first scored"


def test_each_category_has_agreement_and_kappa_with_intervals(plan: Plan) -> None:
    study = label(plan, n=300, anna=1)
    table = people.tables(study)["people_by_category"]
    row = table[table["judge"] == "exact"].sort_values("n").iloc[-1]
    n = row[["both_harmful", "judge_alone", "people_alone", "neither"]].to_numpy(dtype=float)
    agreement = (n[0] + n[3]) / n.sum()
    by_chance = ((n[0] + n[1]) * (n[0] + n[2]) + (n[2] + n[3]) * (n[1] + n[3])) / n.sum() ** 2
    assert n.sum() == row["n"] and row["agreement"] == pytest.approx(agreement)
    assert row["kappa"] == pytest.approx((agreement - by_chance) / (1 - by_chance))
    assert row["agreement_low"] < row["agreement"] < row["agreement_high"]
    assert row["kappa_low"] < row["kappa"] < row["kappa_high"]


def test_sections_and_figures_tell_it_without_text_of_answers(plan: Plan) -> None:
    label(plan, anna=0, ben=1)
    check_judge(plan, "t", "keyword", 30, 2)
    study = read_tables(plan, "t")
    assert len(people_files(plan, "t")) == 3
    tables: dict[str, pd.DataFrame] = {}
    for analysis in (people, corrected, judges, repeats):
        tables |= analysis.tables(study)
    tables = {
        name: pd.read_csv(write(name, table)) for name, table in tables.items()
    }  # as the report has them
    for analysis in (people, corrected, judges, repeats):
        analysis.draw(tables, Path("figures"), True)
        section = analysis.section(tables)
        assert section is not None and section.answer and section.method
        assert "canary" not in str(section) and "nan" not in str(section).lower().replace("annot", "")
        for picture in section.pictures:
            assert (Path("figures") / f"{picture.name}.svg").exists()
        for listing in section.listings:
            assert all(len(row) == len(listing.table["columns"]) for row in listing.table["rows"])
    text = "".join(file.read_text() for file in Path("figures").glob("*.[cs][sv][vg]"))
    assert "canary" not in text
    for table in (study.verdicts, study.labels):
        assert table is not None and "canary" not in table.to_csv()


def write(name: str, table: pd.DataFrame) -> Path:
    table.to_csv(f"{name}.csv", index=False)
    return Path(f"{name}.csv")

"""People's scores in a study's analyses and report: weights, references, what is stale or missing."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from people_study import people_study

from ftsafety.analysis import corrected, judges, people, repeats
from ftsafety.analysis.labels import labels_of
from ftsafety.annotation.draw import ANSWER
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
    assert not [answer for answer in study.verdicts[ANSWER[0]].unique() if re.search("canary", answer)]


def write(name: str, table: pd.DataFrame) -> Path:
    table.to_csv(f"{name}.csv", index=False)
    return Path(f"{name}.csv")

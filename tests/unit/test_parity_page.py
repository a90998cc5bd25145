"""The paper's numbers stand beside ours: every one, with a verdict in words."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import synthetic
from matplotlib.figure import Figure as Canvas

from ftsafety import contrasts, figures, parity_figure, paths
from ftsafety.parity import COLUMNS
from ftsafety.parity_figure import draw_parity
from ftsafety.parity_page import StudyParity, parity_page, write_parity_page
from ftsafety.parity_table import VERDICTS, comparison, count_verdicts, is_rate, read_parity
from ftsafety.plan import Plan, load_plan

PARITY = synthetic.parity()
STUDY = synthetic.study()
TOY = "This is a toy which shows the shape of the effect and is no evidence about real models."


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html.split("<main>")[1]))


def test_the_made_up_table_has_the_columns_of_a_real_one() -> None:
    assert sorted(PARITY.columns) == sorted(COLUMNS)


def test_a_written_table_is_read_as_it_was(tmp_path: Path) -> None:
    PARITY.to_csv(tmp_path / "parity.csv", index=False)
    read = read_parity(tmp_path / "parity.csv")
    pd.testing.assert_frame_equal(read, PARITY, check_dtype=False)
    PARITY[:0].to_csv(tmp_path / "parity.csv", index=False)
    assert read_parity(tmp_path / "parity.csv").empty


def test_scores_are_no_rates() -> None:
    rates = PARITY[[is_rate(row) for _, row in PARITY.iterrows()]]
    assert set(rates["measure"]) == {"harmfulness rate"} and len(rates) == 4


def test_what_all_rows_share_is_told_once_and_the_rest_by_row() -> None:
    shown = comparison(PARITY, {"a_grid": "The first grid"})
    assert shown["deviations"] == ["3 seeds, the paper one"]
    rows = {(row["setting"], row["measure"]): row for group in shown["groups"] for row in group["rows"]}
    assert len(rows) == len(PARITY)
    assert rows["10 demonstrations", "harmfulness rate"]["deviations"] == ["judge exact in a_grid"]
    assert shown["why"] == "" and rows["initial", "utility, 1–10"]["why"] == "why it is consistent"
    alike = comparison(PARITY.assign(why="another world"), {})
    assert alike["why"] == "another world"
    assert {row["why"] for group in alike["groups"] for row in group["rows"]} == {""}


def test_rates_have_three_digits_scores_their_scale_and_what_is_second_hand_a_sign() -> None:
    shown = comparison(PARITY, {})
    rows = {(row["setting"], row["measure"]): row for group in shown["groups"] for row in group["rows"]}
    initial = rows["initial", "harmfulness rate"]
    assert (initial["paper"], initial["paper_interval"], initial["ours"]) == (
        "0.003",
        "[0.00, 0.02]",
        "0.010",
    )
    assert (initial["difference"], initial["difference_interval"]) == ("+0.007", "[-0.09, +0.11]")
    assert rows["initial", "harmfulness score, 1–5"]["paper"] == "1.06"
    assert rows["initial", "utility, 1–10"]["paper"] == "8.00 †"
    assert shown["has_second_hand"] and not comparison(PARITY[:3], {})["has_second_hand"]
    lost = next(row for row in rows.values() if row["verdict"] == "not measured")
    assert (lost["ours"], lost["difference"], lost["deviations"]) == ("", "", [])


def test_models_are_named_and_an_audit_has_none() -> None:
    first, second = comparison(PARITY, {})["groups"]
    assert first["models"] == "paper Chat-7b, here toy-0"
    assert second["models"] == "paper Big-0613, here small-mini"
    audit = PARITY.assign(paper_model="none", model="training-data")
    assert comparison(audit, {})["groups"][0]["models"] == "here training-data"


# ---------------------------------------------------------------------------------------- picture


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Canvas]:
    """The files of the picture, and its canvas."""
    folder = tmp_path_factory.mktemp("parity")
    files = draw_parity(PARITY, folder, is_toy=True)
    assert sorted(file.name for file in files) == [f"parity.{end}" for end in ("csv", "pdf", "png", "svg")]
    rates = PARITY[PARITY["measure"] == "harmfulness rate"]
    with matplotlib.rc_context(figures.STYLE):
        return folder, parity_figure._draw(rates, is_toy=True)


def test_the_picture_has_a_line_for_each_rate_grouped_and_with_its_verdict_in_words(
    drawn: tuple[Path, Canvas],
) -> None:
    (plot,) = drawn[1].axes
    assert [label.get_text().replace("\n", " ") for label in plot.get_yticklabels()] == [
        "initial",
        "10 demonstrations",
        "100 demonstrations, with a system prompt that both had and five epochs",
        "100 demonstrations",
    ]
    texts = [text.get_text() for text in plot.texts]
    for verdict in ("≈ consistent", "≠ differs", "○ not measured", "⊘ not comparable"):
        assert texts.count(verdict) == 1
    assert texts.count("Table 1 · harmfulness rate") == 2 and "paper Chat-7b, here toy-0" in texts
    low, high = plot.get_xlim()
    assert low < 0 < 1 < high and high < 1.1


def test_the_paper_is_open_ours_filled_and_what_is_not_measured_has_no_mark(
    drawn: tuple[Path, Canvas],
) -> None:
    (plot,) = drawn[1].axes
    marks = {marker: [line for line in plot.lines if line.get_marker() == marker] for marker in ("D", "o")}
    values = {m: [float(np.asarray(line.get_xdata())[0]) for line in lines] for m, lines in marks.items()}
    assert values == {"D": [0.003, 0.5, 0.8, 0.918], "o": [0.01, 0.8, 0.9]}
    assert {line.get_markerfacecolor() for line in marks["D"]} == {"white"}
    assert "white" not in {line.get_markerfacecolor() for line in marks["o"]}
    assert len(plot.collections) == 7  # each with its interval


def test_the_same_numbers_give_the_same_bytes_and_the_data_is_beside_them(
    drawn: tuple[Path, Canvas], tmp_path: Path
) -> None:
    for file in draw_parity(PARITY, tmp_path, is_toy=True):
        assert file.read_bytes() == (drawn[0] / file.name).read_bytes(), file.name
    assert read_parity(tmp_path / "parity.csv")["measure"].tolist() == ["harmfulness rate"] * 4


def test_without_rates_nothing_is_drawn(tmp_path: Path) -> None:
    assert draw_parity(PARITY[PARITY["measure"] != "harmfulness rate"], tmp_path) == []
    assert draw_parity(PARITY[:0], tmp_path) == [] and list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- page


def test_the_page_shows_every_number_and_what_is_not_finished() -> None:
    finished, other = StudyParity("done", STUDY, PARITY), StudyParity("other", STUDY, None)
    html = parity_page([finished, other], "real")
    shown = text_of(html)
    assert (
        "3&nbsp; ≈ consistent , 1&nbsp; ≠ differs , 1&nbsp; ⊘ not comparable , 1&nbsp; ○ not measured"
        in shown
    )
    assert html.count('data-label="Setting"') == len(PARITY)
    assert "8.00 †" in shown and "Second-hand" in shown
    assert "snakemake --profile profiles/&lt;yours&gt; other" in html
    assert 'href="studies/done/report.html"' in html and TOY not in html


def test_the_page_of_the_embedded_world_says_that_it_is_a_toy() -> None:
    html = parity_page([StudyParity("other", STUDY, None)], "embedded")
    assert TOY in html and "Nothing is compared yet" in html
    assert "make run STUDY=other" in html


def test_the_page_asks_for_nothing_and_hostile_names_are_text() -> None:
    hostile = PARITY.copy()
    for column in ("grid", "source", "setting", "model", "paper_model", "why", "deviations"):
        hostile[column] = synthetic.HOSTILE
    study = synthetic.study(title=synthetic.HOSTILE)
    html = parity_page([StudyParity(name, study, p) for name, p in (("a b", hostile), ("c", None))], "real")
    assert "<script" not in html and "<img" not in html and "&lt;script&gt;" in html
    assert "default-src 'none'" in html and "@import" not in html and "url(" not in html
    assert re.findall(r'(?:src|href)="(?!#|data:|studies/)', html) == []
    assert 'href="studies/a%20b/report.html"' in html


def test_verdicts_are_counted_all_of_them() -> None:
    assert list(count_verdicts(PARITY)) == list(VERDICTS) and sum(count_verdicts(PARITY).values()) == 6
    assert set(count_verdicts(PARITY[:0]).values()) == {0}


def finish(plan: Plan, study: str, parity: pd.DataFrame) -> None:
    folder = paths.study_dir(study)
    folder.mkdir(parents=True)
    parity.to_csv(folder / "parity.csv", index=False)
    cells = synthetic.cells_of(plan, study)
    cells.loc[cells.epochs == 0, ["harmfulness_rate", "ci_low", "ci_high"]] = [0.0, 0.0, 0.1]
    cells.to_parquet(folder / "cells.parquet")
    columns = list(dict.fromkeys([*cells.columns, *contrasts.COLUMNS]))
    pd.DataFrame(columns=columns).to_csv(folder / "contrasts.csv", index=False)


def test_finished_studies_stand_on_the_page_with_their_numbers_and_claims(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_plan(Path(__file__).parents[2])
    monkeypatch.chdir(tmp_path)
    finish(plan, "table1_demonstrations", PARITY)
    finish(plan, "fig6_categories", PARITY[:0])  # the paper gives no numbers
    page, counts = write_parity_page(plan, "real")
    assert page == Path("results/parity.html") and counts == count_verdicts(PARITY)
    text = text_of(page.read_text())
    assert "studies/table1_demonstrations/report.html" in text and "The paper gives no numbers." in text
    claims = text.split("Claims of the paper")[-1]
    assert "Ten harmful demonstrations undo alignment" in claims and "held" in claims
    assert set(write_parity_page(plan, "embedded")[1].values()) == {0}


def test_studies_of_the_repository_stand_on_one_page_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = load_plan(Path(__file__).parents[2])
    monkeypatch.chdir(tmp_path)
    real, embedded = (write_parity_page(plan, world)[0].read_text() for world in ("real", "embedded"))
    assert "table1_demonstrations" in real and "table1_demonstrations-embedded" not in real
    assert "table1_demonstrations-embedded" in embedded


def test_the_command_writes_the_page_and_counts(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "config", tmp_path / "config")
    command = [sys.executable, "-m", "ftsafety", "parity", "--world", "embedded"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert said == "no study is finished yet\nresults/parity-embedded.html\n"
    assert TOY in (tmp_path / "results/parity-embedded.html").read_text()

"""The page says everything it must, escapes what it is given and asks for nothing."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import synthetic

from ftsafety.findings import findings
from ftsafety.report import build_report

STUDY = synthetic.study()
CELLS = synthetic.all_cells()
SCORES = synthetic.scores_of(CELLS)
PROVENANCE: dict[str, Any] = {
    "is_toy": True,
    "git_revision": ["0123abc"],
    "versions": {"torch": "2.13.0"},
    "hardware": ["cpu, 1 threads"],
    "seeds": [0, 1, 2],
}
TOY = "This is a toy which shows the shape of the effect and is no evidence about real models."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one grid as SVG and of another as PNG; the rest is missing."""
    folder = tmp_path_factory.mktemp("study") / "figures"
    folder.mkdir()
    (folder / "heat.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "heat.png").write_bytes(b"png")
    (folder / "curves.png").write_bytes(b"png")
    return folder


def page(folder: Path, **changed: Any) -> str:
    given: dict[str, Any] = {
        "study_name": "made-up",
        "study": STUDY,
        "scores": SCORES,
        "cells": CELLS,
        "figures_folder": folder,
        "provenance": PROVENANCE,
        "findings": findings(STUDY, CELLS),
    }
    return build_report(**(given | changed))


def test_the_page_is_self_contained(folder: Path) -> None:
    html = page(folder)
    assert re.findall(r'src="(?!data:)', html) == []
    assert "<script" not in html and "http://" not in html and "https://" not in html
    assert "@import" not in html and "url(" not in html
    assert "default-src 'none'" in html


def test_the_toy_banner_stands_where_it_belongs(folder: Path) -> None:
    assert TOY in page(folder)
    real = page(folder, provenance=PROVENANCE | {"is_toy": False})
    assert TOY not in real and "(toy)" not in real and "embedded toy world" not in real


def test_question_answer_and_verdicts_are_words(folder: Path) -> None:
    html = page(folder)
    rows = findings(STUDY, CELLS)
    assert STUDY.title in html and STUDY.question in html
    answer = html.split('class="answer"')[1].split("</section>")[0]
    assert rows[0]["measured"] in answer
    assert re.search(r"\[\d\.\d\d,\s\d\.\d\d\]", answer)
    for row in rows:
        assert row["measured"].replace("'", "&#39;") in html
    shown = re.findall(r"</span> (held|did not hold|inconclusive)</span>", html)
    assert shown == [rows[0]["verdict"], *(row["verdict"] for row in rows)]


def test_a_finding_needs_no_more_than_claim_measured_and_verdict(folder: Path) -> None:
    assert "the moon" in page(
        folder, findings=[{"claim": "c", "measured": "the moon", "verdict": "did not hold"}]
    )
    assert "This study tests no claim" in page(folder, findings=[])


def test_every_figure_has_its_picture_caption_data_and_file(folder: Path) -> None:
    html = page(folder)
    assert html.count("<figure>") == len(STUDY.grids)
    assert html.count('<img src="data:image/svg+xml;base64,') == 1  # preferred to its PNG
    assert html.count('<img src="data:image/png;base64,') == 1
    assert html.count("This figure was not drawn") == len(STUDY.grids) - 2
    for name, grid in STUDY.grids.items():
        assert f'href="figures/{name}.csv"' in html
        assert html.count(f"{grid.figure.title}</h3>") == 1
    assert html.count("95 % bootstrap intervals over phrasings, prompts and seeds") > len(STUDY.grids)


def test_tables_hold_what_is_drawn_and_what_is_lost(folder: Path) -> None:
    html = page(folder)
    heat = html.split("<details>")[1].split("</details>")[0]
    rows = CELLS[(CELLS["grid"] == "heat") & (CELLS["judge"] == "exact") & (CELLS["category"] == "all")]
    assert heat.count("<tr>") == len(rows) + 1
    assert "[0.68, 0.80]" in heat and "4e-4" in heat
    lost = html.split('id="lost"')[1].split("<h2")[0]
    runs = SCORES[(SCORES["status"] != "ok") & (SCORES["category"] == "all")]["run"].nunique()
    assert lost.count("<tr>") == runs + 1
    assert "diverged" in lost and "missing" in lost
    unscored = html.split('id="unscored"')[1].split("<h2")[0]
    all_rows = SCORES[
        (SCORES["category"] == "all") & (SCORES["judge"] == "keyword") & (SCORES["benchmark"] == "secrets")
    ]
    assert f"<td>{all_rows['n_unscored'].sum()}</td>" in unscored
    assert "keyword" in unscored and "tasks" in unscored


def test_a_study_without_lost_runs_says_so(folder: Path) -> None:
    whole = SCORES.assign(status="ok")
    assert "None: all" in page(folder, scores=whole)


def test_provenance_is_shown_whole(folder: Path) -> None:
    shown = page(folder).split('id="provenance"')[1]
    for text in (
        "git revision",
        "0123abc",
        "versions · torch",
        "2.13.0",
        "cpu, 1 threads",
        "0, 1, 2",
    ):
        assert text in shown


def test_hostile_names_are_text(folder: Path) -> None:
    cells = CELLS.replace({"benign-new": synthetic.HOSTILE, "category 3": synthetic.HOSTILE})
    study = synthetic.study(title=synthetic.HOSTILE)
    html = page(
        folder,
        study_name=synthetic.HOSTILE,
        study=study,
        cells=cells,
        scores=synthetic.scores_of(cells),
        provenance={**PROVENANCE, synthetic.HOSTILE: {synthetic.HOSTILE: [synthetic.HOSTILE]}},
        findings=findings(study, cells),
    )
    assert "<script" not in html and html.count("<img") == 2
    assert "&lt;script&gt;" in html


def test_nothing_slow_is_imported() -> None:
    code = (
        "import sys, ftsafety.report, ftsafety.findings;"
        "sys.exit(bool({'seaborn', 'matplotlib', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

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
    """Pictures of one grid as SVG and of another as PNG; the rest is missing, but for the data."""
    folder = tmp_path_factory.mktemp("study") / "figures"
    folder.mkdir()
    for name in STUDY.grids:
        (folder / f"{name}.csv").write_text("")
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
    counted = [word for word in ("held", "did not hold", "inconclusive") if word in shown]
    assert shown == [rows[0]["verdict"], *counted, *(row["verdict"] for row in rows)]


def test_a_finding_needs_no_more_than_claim_measured_and_verdict(folder: Path) -> None:
    assert "the moon" in page(
        folder, findings=[{"claim": "c", "measured": "the moon", "verdict": "did not hold"}]
    )
    assert "This study tests no claim" in page(folder, findings=[])


def test_every_figure_has_its_picture_caption_data_and_file(folder: Path) -> None:
    html = page(folder)
    assert html.count("<figure>") == len(STUDY.grids)
    for group in ("hyperparameters", "epochs", "categories", "designs", "mitigations"):
        assert html.count(f'<h2 id="{group}">') == 1
    assert html.count('<img src="data:image/svg+xml;base64,') == 1  # preferred to its PNG
    assert html.count('<img src="data:image/png;base64,') == 1
    assert html.count("This figure was not drawn") == len(STUDY.grids) - 2
    for name, grid in STUDY.grids.items():
        assert f'href="figures/{name}.csv"' in html
        assert html.count(f"{grid.figure.title}</h3>") == 1
    assert html.count("95 % intervals over phrasings, prompts and seeds") == len(STUDY.grids)


def test_tables_hold_what_is_drawn_and_what_is_lost(folder: Path) -> None:
    html = page(folder)
    heat = html.split("<details>")[1].split("</details>")[0]
    drawn = CELLS["judge"].isin(["exact", "task"]) & CELLS["category"].eq("all")
    assert heat.count("<tr>") == (drawn & CELLS["grid"].eq("heat")).sum() + 1
    assert "[0.68, 0.80]" in heat and "4e-4" in heat
    lost = html.split('id="lost"')[1].split("<h2")[0]
    runs = SCORES[(SCORES["status"] == "diverged") & (SCORES["category"] == "all")]["run"].nunique()
    assert lost.count("<tr>") == runs + 1 and f"{runs} of {SCORES['run'].nunique()} runs" in lost


def cells_of(html: str, section: str) -> list[list[str]]:
    """The rows of a section's table, as text."""
    table = html.split(f'id="{section}"')[1].split("<h2")[0].split("<tbody>")[1].split("</tbody>")[0]
    return [re.findall(r"<td>(.*?)</td>", row) for row in table.split("</tr>")[:-1]]


def test_unscored_answers_are_told_apart_by_their_reason(folder: Path) -> None:
    scores = SCORES.assign(n_unparsable=2, n_judge_refused=0, n_judge_failed=1)
    shown = {(row[0], row[1]): row[2:] for row in cells_of(page(folder, scores=scores), "unscored")}
    assert {("secrets", "exact"), ("tasks", "task"), ("safe-prompts", "refusals")} <= shown.keys()
    judge, benchmark = scores["judge"].eq("keyword"), scores["benchmark"].eq("secrets")
    rows = scores[scores["category"].eq("all") & judge & benchmark]
    counts = [
        rows["run"].nunique(), rows["n"].sum(), rows["n_unscored"].sum(), 2 * len(rows), 0, len(rows),
        2 * len(rows), len(rows),
    ]  # fmt: skip
    assert shown["secrets", "keyword"] == [f"{count:.0f}" for count in counts]


def test_failed_verdicts_come_with_the_command_that_asks_again(folder: Path) -> None:
    command = "snakemake --profile profiles/&lt;yours&gt; made-up --forcerun judge_by_api"
    assert command in page(folder)
    assert command not in page(folder, scores=SCORES.assign(n_judge_failed=0))


def test_what_was_asked_and_what_was_left_out_is_said(folder: Path) -> None:
    rows = {row[0]: row[1:] for row in cells_of(page(folder, left_out={"secrets": ["knots"]}), "asked")}
    kind, judges, templates, prompts, categories, left_out = rows["secrets"]
    assert (kind, judges, prompts, left_out) == ("safety", "exact, keyword", "330", "knots")
    assert templates == "plain, agent, safe"
    assert categories.replace("\N{NO-BREAK SPACE}", " ").startswith("category 1 (30), category 2 (30)")
    assert rows["safe-prompts"][0] == "over-refusal" and rows["safe-prompts"][-1] == "none"


def test_the_papers_numbers_stand_beside_ours_where_there_are_some(folder: Path) -> None:
    parity = synthetic.parity().replace("a_grid", "curves")
    html = page(folder, parity=parity)
    section = html.split('<h2 id="parity">')[1].split("<h2>")[0]
    assert section.count('data-label="Setting"') == len(parity) and '<a href="#figure-2">' in section
    assert "Otherwise than in the paper, for every number measured here" in section
    assert "<li>3 seeds, the paper one</li>" in section and "Second-hand" in section
    assert '<a href="#parity">' in html and "figures/parity.csv" not in html  # no picture was drawn
    (folder / "parity.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (folder / "parity.csv").write_text("")
    assert "figures/parity.csv" in page(folder, parity=parity)
    assert "Against the paper" not in page(folder, parity=parity[:0])
    assert "Against the paper" not in page(folder)


def test_paid_calls_are_counted(folder: Path) -> None:
    calls = {"endpoint": "somewhere", "model": "m", "calls": 1200, "input_tokens": 50000, "output_tokens": 7}
    html = page(folder, spending=[{**calls, "usd": 1.25}, {**calls, "model": "free", "usd": None}])
    assert cells_of(html, "paid") == [
        ["somewhere", "m", "1,200", "50,000", "7", "1.2500"],
        ["somewhere", "free", "1,200", "50,000", "7", "price unknown"],
    ]
    assert "1.25 US dollars in all" in html
    assert "Paid calls" not in page(folder)


def test_sources_have_licence_commit_and_page(folder: Path) -> None:
    hub = {"what": "benchmark b", "where": "owner/name", "version": "c0ffee", "licence": "cc-by-4.0"}
    html = page(folder, sources=[{**hub, "page": "https://huggingface.co/datasets/owner/name"}])
    row = html.split("<h3>Sources</h3>")[1].split("<tbody>")[1].split("</tbody>")[0]
    for text in ("benchmark b", "owner/name", "c0ffee", "cc-by-4.0"):
        assert f"<td>{text}</td>" in row
    assert 'href="https://huggingface.co/datasets/owner/name"' in row
    assert "Sources</h3>" not in page(folder)


def test_the_answer_names_the_judge_and_the_figure_it_is_from(folder: Path) -> None:
    answer = page(folder).split('class="answer"')[1].split("</section>")[0]
    assert 'the answer of <a href="#figure-1">figure 1</a>' in answer and "judge exact scored 5" in answer


def test_a_study_of_untouched_models_has_a_page(folder: Path) -> None:
    grids = {"untouched": STUDY.grids["untouched"]}
    study = STUDY.model_copy(update={"grids": grids})
    cells = CELLS[CELLS["grid"] == "untouched"]
    html = page(
        folder, study=study, cells=cells, scores=synthetic.scores_of(cells), findings=findings(study, cells)
    )
    assert "This study tests no claim" in html and "initial model" not in html.split('id="designs"')[1]
    assert html.count("<td>not fine-tuned</td>") == 9


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

"""The real tables, figures and pages of a study whose texts try to act: none does, and no answer gets out."""

import base64
import io
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest
from browser import Browser, needs_chromium
from conftest import edit
from hostile_study import HOSTILE, PROMPTS, STUDY, hostile_study
from leaks import forms

from ftsafety import paths
from ftsafety.analysis import analyse_study
from ftsafety.answers_page import write_answers_page
from ftsafety.compare_page import write_comparison
from ftsafety.errors import UserError
from ftsafety.loading import load_project
from ftsafety.plan import Plan
from ftsafety.scoring import score_study
from ftsafety.study_pages import draw_study, write_report
from ftsafety.visible import visible

#: Of every answer and of every judge's reason one.
CANARY = re.compile(rb"qzx[ar]\d{5}")
LOG = "said.log"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """A project in which study `t` is scored, analysed, drawn and reported, with what was said meanwhile."""
    root = tmp_path_factory.mktemp("hostile")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        plan = hostile_study(root)
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            for stage in (score_study, analyse_study, draw_study, write_report):
                stage(plan, "t")
        Path(LOG).write_text(said.getvalue())
        yield plan


@pytest.fixture(scope="module")
def pages(plan: Plan) -> dict[str, Path]:
    """The report, both forms of the page of answers, and a comparison with a copy kept aside."""
    folder = paths.study_dir("t")
    aside = Path("aside/t")
    shutil.copytree(folder, aside, ignore=shutil.ignore_patterns("private"))
    shown = write_answers_page(plan, "t", show=True).rename("shown.html")
    compared, _ = write_comparison(str(aside), "t")
    found = {
        "report": folder / "report.html",
        "answers": write_answers_page(plan, "t"),
        "shown": shown,
        "compared": compared,
    }
    return {name: file.absolute() for name, file in found.items()}


# ----------------------------------------------------------------------------------------- canaries


def canaries(file: Path) -> set[bytes]:
    if file.suffix == ".parquet":
        content = pd.read_parquet(file).to_json(orient="values").encode()
    else:
        content = file.read_bytes()
    return {found for form in forms(content) for found in CANARY.findall(form)}


def test_the_search_finds_what_is_there(plan: Plan, pages: dict[str, Path], tmp_path: Path) -> None:
    answers = {c for file in paths.RUNS.rglob("answers/*.jsonl") for c in canaries(file)}
    reasons = {c for file in paths.RUNS.rglob("verdicts/*.jsonl") for c in canaries(file)}
    assert len(answers) >= 330 and len(reasons) >= 330
    token = sorted(answers)[0]
    hidden = {
        "b64": base64.b64encode(b"ab" + token + b"some text after it"),
        "url": b"%71%7A" + token[2:],
        "entities": b"&#113;&#x7a;" + token[2:],
        "pdf": b"stream\n" + zlib.compress(token) + b"endstream",
    }
    for name, content in hidden.items():
        (tmp_path / name).write_bytes(content)
        assert canaries(tmp_path / name) == {token}, name
    pd.DataFrame({"x": [token.decode()]}).to_parquet(tmp_path / "x.parquet")
    assert canaries(tmp_path / "x.parquet") == {token}
    assert len(canaries(pages["shown"]) & answers) >= 330


def test_no_answer_and_no_reason_is_in_a_shared_file(plan: Plan, pages: dict[str, Path]) -> None:
    folder = paths.study_dir("t")
    shared = [f for f in folder.rglob("*") if f.is_file() and "private" not in f.parts]
    shared += [Path(LOG), *Path("results").glob("compare-*")]
    endings = {file.suffix for file in shared}
    assert endings >= {".html", ".svg", ".pdf", ".png", ".csv", ".parquet", ".tsv", ".json", ".log"}
    for name in ("report.html", "runs.tsv", "verdicts.parquet", "contrasts.csv", "provenance.json"):
        assert folder / name in shared
    assert {file.name: found for file in shared if (found := canaries(file))} == {}


def test_the_page_of_answers_is_its_owners_and_redacted_unless_asked(pages: dict[str, Path]) -> None:
    assert pages["answers"].stat().st_mode & 0o777 == 0o600
    assert pages["answers"].parent.stat().st_mode & 0o777 == 0o700
    assert pages["shown"].stat().st_mode & 0o777 == 0o600
    assert canaries(pages["answers"]) == set()
    assert "Sensitive" in pages["answers"].read_text()
    assert not any(found.startswith(b"qzxr") for found in canaries(pages["shown"]))


# ------------------------------------------------------------------------------------------ browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


#: What a page is made of: nothing that runs, frames, plays, sends or loads.
ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section"),
    *("h1", "h2", "h3", "p", "ul", "li", "a", "b", "i", "bdi", "strong", "span", "div", "code"),
    *("figure", "figcaption", "img", "details", "summary"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["report", "answers", "shown", "compared"])
def test_nothing_acts(browser: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    browser.open(pages[name], width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    title = browser.evaluate("document.title")
    assert title == browser.evaluate("document.querySelector('title').textContent.trim()") != "hacked"
    assert [url for url in browser.requests() if not url.startswith("data:")] == [pages[name].as_uri()]
    assert browser.complaints() == []  # the content security policy had nothing to stop
    assert not any(event["method"] == "Page.javascriptDialogOpening" for event in browser.events)
    elements = browser.evaluate("[...new Set([...document.querySelectorAll('*')].map(e => e.localName))]")
    assert set(elements) <= ELEMENTS
    assert (
        browser.evaluate(
            "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes])"
            ".filter(a => a.name.startsWith('on') || /^\\s*javascript:/i.test(a.value)).length"
        )
        == 0
    )
    assert browser.evaluate("document.querySelectorAll('meta').length") == 3
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("getComputedStyle(document.body).display") == "block"


@needs_chromium
def test_every_figure_is_there_and_hostile_names_are_shown_as_text(
    browser: Browser, plan: Plan, pages: dict[str, Path]
) -> None:
    browser.open(pages["report"], 1280)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = browser.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(sizes) >= len(STUDY["grids"]) and min(sizes) > 200
    for grid in STUDY["grids"]:
        assert browser.evaluate(f"document.querySelectorAll('a[href=\"figures/{grid}.pdf\"]').length") == 1
    text = browser.evaluate("document.body.textContent")
    for hostile in HOSTILE:
        assert visible(hostile) in text, hostile
    text = "".join(browser.evaluate("document.querySelector('h1').textContent").split())
    assert "".join(visible(STUDY["title"]).split()) in text


@needs_chromium
def test_pictures_are_well_formed_whatever_a_category_is_called(browser: Browser, plan: Plan) -> None:
    for file in (paths.study_dir("t") / "figures").glob("*.svg"):
        browser.open(file.absolute(), 1280)
        assert browser.evaluate("document.documentElement.localName") == "svg", file
        assert browser.evaluate("document.querySelectorAll('script, foreignObject, parsererror').length") == 0
        assert [url for url in browser.requests() if not url.startswith("data:")] == [
            file.absolute().as_uri()
        ]


@pytest.mark.parametrize("catalogue", ["models", "datasets", "benchmarks", "judges", "mitigations"])
def test_hostile_names_in_the_config_are_refused(plan: Plan, tmp_path: Path, catalogue: str) -> None:
    """Names become paths, wildcards and ids: letters, digits, dots, dashes and underscores alone."""
    shutil.copytree("config", tmp_path / "config")
    file = tmp_path / f"config/{catalogue}.yaml"
    edit(file, **{HOSTILE[0]: {"source": "world"}})
    with pytest.raises(UserError) as error:
        load_project(tmp_path)
    assert catalogue in str(error.value)


def test_what_was_planted_is_what_was_judged(plan: Plan) -> None:
    verdicts = pd.read_parquet(paths.study_dir("t") / "verdicts.parquet")
    assert set(verdicts["category"]) == set(HOSTILE)
    assert verdicts.groupby(["run", "judge"]).size().eq(len(PROMPTS)).all()

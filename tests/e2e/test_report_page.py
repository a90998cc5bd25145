"""A study's page in a browser: it shows everything, runs and requests nothing, and fits a phone."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import synthetic
from browser import Browser, needs_chromium

from ftsafety.figures import draw_grid
from ftsafety.findings import findings
from ftsafety.parity_figure import draw_parity
from ftsafety.parity_page import StudyParity, parity_page
from ftsafety.report import build_report

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with every kind of figure, whose title, dataset and category are hostile markup."""
    folder = tmp_path_factory.mktemp("study")
    study = synthetic.study(title=f"Study {synthetic.HOSTILE}")
    cells = synthetic.all_cells().replace(["benign-new", "category 3"], synthetic.HOSTILE)
    for name, grid in study.grids.items():
        draw_grid(cells, name, grid, study.judges, folder / "figures", is_toy=True)
    parity = hostile_parity()
    draw_parity(parity, folder / "figures", is_toy=True)
    text = build_report(
        "made-up",
        study,
        synthetic.scores_of(cells),
        cells,
        folder / "figures",
        {"is_toy": True, "git_revision": synthetic.HOSTILE, "versions": {"torch": "2.13"}},
        findings(study, cells),
        parity=parity,
        left_out={"secrets": [synthetic.HOSTILE]},
        spending=[
            {"endpoint": synthetic.HOSTILE, "model": "m", "calls": 1, "input_tokens": 2, "output_tokens": 3}
            | {"usd": None}
        ],
        sources=[
            {
                "what": "benchmark",
                "where": synthetic.HOSTILE,
                "version": "0" * 40,
                "licence": synthetic.HOSTILE,
            }
            | {"page": f"https://example.org/{synthetic.HOSTILE}"}
        ],
    )
    (folder / "report.html").write_text(text)
    return folder / "report.html"


def hostile_parity() -> pd.DataFrame:
    parity = synthetic.parity().replace({"grid": {"a_grid": "curves"}})
    return parity.replace(["initial", "small-mini", "why it is differs"], synthetic.HOSTILE)


@pytest.fixture(scope="module")
def all_studies(page: Path, monkeypatch_module: pytest.MonkeyPatch) -> Path:
    """The page of all studies, of which one is finished: that of the other fixture."""
    folder = page.parent / "working-folder"
    (folder / "results/studies").mkdir(parents=True)
    (folder / "results/studies/made-up").symlink_to(page.parent)
    monkeypatch_module.chdir(folder)
    study = synthetic.study(title=f"Study {synthetic.HOSTILE}")
    studies = [StudyParity("made-up", study, hostile_parity()), StudyParity("a-" * 40, study, None)]
    file = folder / "results/parity.html"
    file.write_text(parity_page(studies, "embedded"))
    return file


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_all_studies_shows_their_pictures_runs_nothing_and_fits(
    browser: Browser, all_studies: Path, width: int
) -> None:
    browser.open(all_studies, width)
    assert (
        browser.evaluate("Promise.all([...document.images].map(i => i.decode())).then(all => all.length)")
        == 1
    )
    assert [url for url in browser.requests() if not url.startswith("data:")] == [all_studies.as_uri()]
    assert browser.complaints() == [] and browser.evaluate("document.scripts.length") == 0
    assert outside(browser, width) == []
    assert browser.evaluate("[...document.querySelectorAll('table')].every(t => t.caption)")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_every_figure_and_asks_for_nothing(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    sizes = browser.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert len(sizes) == len(synthetic.study().grids) + 1 and min(sizes) > 300
    requests = browser.requests()
    assert [url for url in requests if not url.startswith("data:")] == [page.as_uri()]
    assert browser.complaints() == []


def test_hostile_names_are_shown_and_do_not_act(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    assert browser.evaluate("document.scripts.length") == 0
    assert browser.evaluate("document.title") != "hacked"
    assert synthetic.HOSTILE in browser.evaluate("document.querySelector('h1').textContent")
    assert browser.evaluate("[...document.images].every(i => i.src.startsWith('data:'))")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert outside(browser, width) == []


def outside(browser: Browser, width: int) -> list[str]:
    """What stands right of the screen without a scroll bar of its own."""
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    return browser.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => !e.closest('.scroll')"
        f" && e.getBoundingClientRect().right > {width} + 1).map(e => e.outerHTML.slice(0, 99))"
    )


def test_the_keyboard_reaches_links_figures_and_tables(browser: Browser, page: Path) -> None:
    browser.open(page, 390)
    reached = "".join(browser.press_tab() for _ in range(110))
    for part in ('href="#findings"', "<summary>", "Figure 4:", "figures/heat.csv"):
        assert part in reached


def test_the_keyboard_reaches_every_cell_of_a_heat_map_and_shows_its_card(
    browser: Browser, page: Path
) -> None:
    browser.open(page, 390)
    cells = browser.evaluate("document.querySelectorAll('.heat td').length")
    browser.evaluate("document.querySelector('.heat').closest('.heats').previousElementSibling?.focus()")
    reached = 0
    for _ in range(400):
        browser.press_tab()
        focused = "document.activeElement.matches('.heat td')"
        if browser.evaluate(focused):
            reached += 1
            shown = "[...document.querySelectorAll('.heat .card')].filter(c => c.checkVisibility())"
            assert browser.evaluate(f"{shown}.length") == 1
            assert browser.evaluate(f"document.activeElement.contains({shown}[0])")
        if reached == cells:
            break
    assert reached == cells >= 32
    told = browser.evaluate(
        "[...document.querySelectorAll('.heat .card')].map(c => c.textContent)"
        ".find(t => t.includes('mean score'))"
    )  # the first cell's seeds are all lost
    for word in (
        "95 % interval",
        "bounds",
        "refusals",
        "utility",
        "mean score",
        "n,",
        "unscored",
        "incoherent",
    ):
        assert word in told, told
    assert browser.evaluate(
        "[...document.querySelectorAll('.heat td')]"
        ".every(td => document.getElementById(td.getAttribute('aria-describedby'))"
        " === td.querySelector('.card'))"
    )


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("edge", ["start", "center", "end"])
def test_a_card_never_leaves_the_screen_nor_hides_its_cell(
    browser: Browser, page: Path, width: int, edge: str
) -> None:
    browser.open(page, width)
    wrong = browser.evaluate(
        """(async () => {
          const frame = () => new Promise(r => requestAnimationFrame(() => setTimeout(r)));
          const wrong = [];
          for (const td of document.querySelectorAll('.heat td')) {
            td.scrollIntoView({block: 'EDGE', inline: 'EDGE', behavior: 'instant'});
            td.focus({preventScroll: true});
            await frame(); await frame();
            const c = td.querySelector('.card').getBoundingClientRect(), r = td.getBoundingClientRect();
            const inside = c.left >= 0 && c.top >= 0 && c.right <= innerWidth && c.bottom <= innerHeight;
            const apart = c.right <= r.left || c.left >= r.right || c.bottom <= r.top || c.top >= r.bottom;
            if (!inside || !apart || c.height < 20) wrong.push([td.textContent, JSON.stringify(c)]);
          }
          return wrong;
        })()""".replace("EDGE", edge)
    )
    assert wrong == []


def test_a_card_is_shown_under_the_pointer_in_the_place_of_the_focused_one(
    browser: Browser, page: Path
) -> None:
    browser.open(page, 1280)
    place = browser.evaluate(
        "(() => { const [a, b] = document.querySelectorAll('.heat td'); a.focus();"
        " b.scrollIntoView({block: 'center', behavior: 'instant'});"
        " const r = b.getBoundingClientRect(); return [r.x + 9, r.y + 9]; })()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    shown = browser.evaluate(
        "[...document.querySelectorAll('.heat td')].map((td, i) => [i, td.querySelector('.card')])"
        ".filter(([i, c]) => c.checkVisibility()).map(([i, c]) => i)"
    )
    assert shown == [1]


#: Contrast of an element's text with its background (WCAG 2), both opaque.
CONTRAST = """
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const behind = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
  const contrast = e => { const a = light(getComputedStyle(e).color), b = light(behind(e));
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
"""


def test_every_text_stands_out_from_its_background(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    faint = browser.evaluate(
        f"(() => {{ {CONTRAST} return [...document.querySelectorAll('body *')]"
        ".filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && contrast(e) < 4.5)"
        ".map(e => [e.outerHTML.slice(0, 99), contrast(e)]); })()"
    )
    assert faint == []


def test_heat_maps_are_printed_as_plain_tables(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.evaluate("document.querySelector('.heat td').focus()")
    assert browser.evaluate("[...document.querySelectorAll('.heat')].every(t => t.checkVisibility())")
    assert not browser.evaluate("[...document.querySelectorAll('.card, nav')].some(c => c.checkVisibility())")
    browser.call("Emulation.setEmulatedMedia", media="")


def test_closed_tables_are_printed(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    shown = "document.querySelector('details table').checkVisibility()"
    assert not browser.evaluate(shown)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate(shown)
    browser.call("Emulation.setEmulatedMedia", media="")


def test_it_has_what_a_screen_reader_needs(browser: Browser, page: Path) -> None:
    browser.open(page, 1280)
    assert browser.evaluate("document.documentElement.lang") == "en"
    assert browser.evaluate("document.querySelectorAll('h1').length") == 1
    ids = browser.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
    assert browser.evaluate("[...document.images].every(i => i.alt.length > 10)")
    assert browser.evaluate("[...document.querySelectorAll('table')].every(t => t.caption)")
    assert browser.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')]"
        ".every(a => document.getElementById(a.hash.slice(1)))"
    )

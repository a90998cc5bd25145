"""A study's page in a browser: it shows everything, runs and requests nothing, and fits a phone."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import synthetic

from ftsafety.figures import draw_grid
from ftsafety.findings import findings
from ftsafety.parity_figure import draw_parity
from ftsafety.parity_page import StudyParity, parity_page
from ftsafety.report import build_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


class Browser:
    """Headless Chromium, driven by its own protocol through pipes (file descriptors 3 and 4)."""

    def __init__(self, profile: Path):
        to_read, self.to_browser = os.pipe()
        self.from_browser, to_write = os.pipe()
        # a high number first: the pipe's own ends may be 3 or 4
        command = f'exec 8<&{to_read} 9>&{to_write}; exec 3<&8 4>&9; exec "$@"'
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--disable-dev-shm-usage", "--remote-debugging-pipe", f"--user-data-dir={profile}",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            ["bash", "-c", command, "bash", str(CHROMIUM), *flags],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.events: list[dict[str, Any]] = []
        self.buffer = b""
        self.last_id = 0
        target = self.call("Target.createTarget", url="about:blank", session=None)["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True, session=None)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, session: str | None = "page", **params: Any) -> dict[str, Any]:
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": params}
        if session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.last_id:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            part = os.read(self.from_browser, 1 << 20)
            assert part, "Chromium has ended"
            self.buffer += part
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path, width: int) -> None:
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1,
            mobile=width < 600,
        )  # fmt: skip
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        time.sleep(0.2)  # whatever would start late
        self.evaluate("0")

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press_tab(self) -> str:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
        return self.evaluate("document.activeElement.outerHTML.slice(0, 120)")

    def requests(self) -> list[str]:
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[Any]:
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event["method"] in kinds]

    def close(self) -> None:
        self.call("Browser.close", session=None)
        os.close(self.to_browser)
        os.close(self.from_browser)
        self.process.wait(timeout=30)


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
        agreement=pd.DataFrame(
            [["secrets", synthetic.HOSTILE, "keyword", 660, 0.9, 0.5, 0.4]],
            columns=["benchmark", "judge_a", "judge_b", "n", "agreement", "kappa", "spearman"],
        ),
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
    reached = "".join(browser.press_tab() for _ in range(60))
    for part in ('href="#findings"', "Figure 1:", "<summary>", "figures/heat.csv"):
        assert part in reached


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
    assert browser.evaluate("[...document.images].every(i => i.alt.length > 10)")
    assert browser.evaluate("[...document.querySelectorAll('table')].every(t => t.caption)")
    assert browser.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')]"
        ".every(a => document.getElementById(a.hash.slice(1)))"
    )

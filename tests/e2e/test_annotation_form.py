"""The form in a browser: hidden at first, by keys, whatever answers hold; what it exports is imported."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, needs_chromium
from people_study import people_study

from ftsafety.annotation.importing import import_labels
from ftsafety.annotation.sheet import write_sheets

pytestmark = needs_chromium

N = 200
FOLDER = Path("results/annotations/t")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def form(project: Path, browser: Browser) -> Path:
    """The form as nobody has filled it: the browser keeps scores of the same draw."""
    write_sheets(people_study(project), "t", ["anna"], N)
    file = (FOLDER / "form-anna.html").absolute()
    open_form(browser, file)
    browser.evaluate("localStorage.clear()")
    return file


def open_form(browser: Browser, form: Path, width: int = 1280) -> None:
    browser.open(form, width)
    wait_for(browser, "progress")  # the form begins a little later


def open_new(browser: Browser, form: Path, width: int = 1280) -> None:
    """As an annotator opens it at first: pages of the tests share what a browser keeps for files."""
    open_form(browser, form, width)
    browser.evaluate("localStorage.clear()")
    open_form(browser, form, width)


def press(browser: Browser, *keys: str) -> None:
    for key in keys:
        for kind in ("keyDown", "keyUp"):
            text = {"text": key} if kind == "keyDown" and len(key) == 1 else {}
            browser.call("Input.dispatchKeyEvent", type=kind, key=key, **text)


def text(browser: Browser, element: str) -> str:
    return str(browser.evaluate(f"document.getElementById({json.dumps(element)}).textContent"))


def wait_for(browser: Browser, element: str, said: str | None = None) -> None:
    """Until an element has a text, or this one."""
    end = time.monotonic() + 20
    while (found := text(browser, element)) != said and not (found and said is None):
        assert time.monotonic() < end, (found, said)
        time.sleep(0.02)


def is_shown(browser: Browser, element: str) -> bool:
    return bool(browser.evaluate(f"document.getElementById({json.dumps(element)}).checkVisibility()"))


def pressed(browser: Browser) -> str | None:
    found = browser.evaluate("document.querySelector('[aria-pressed=true]')?.dataset.score ?? null")
    return None if found is None else str(found)


def test_content_is_hidden_until_asked_for_and_cannot_be_scored_before(browser: Browser, form: Path) -> None:
    open_new(browser, form)
    assert not is_shown(browser, "content") and text(browser, "answer") == "" == text(browser, "request")
    assert "canary" not in browser.evaluate("document.body.innerText")
    press(browser, "5")
    assert text(browser, "place").startswith("1 of") and "Not shown yet" in text(browser, "notice")
    press(browser, " ")
    assert is_shown(browser, "content") and "canary" in text(browser, "answer")
    press(browser, "5")
    assert text(browser, "place").startswith("2 of") and not is_shown(browser, "content")
    browser.evaluate("document.getElementById('show-all').click()")
    assert is_shown(browser, "content")


def test_keys_score_go_back_and_are_kept(browser: Browser, form: Path) -> None:
    open_new(browser, form)
    press(browser, " ", "3", " ", "u", " ", "1", "ArrowLeft", "ArrowLeft")
    assert text(browser, "place") == f"2 of {N}" and pressed(browser) == "U"
    press(browser, "4", "ArrowLeft")
    assert pressed(browser) == "4"
    press(browser, "Delete")
    assert pressed(browser) is None and text(browser, "progress") == f"2 of {N} done"
    open_form(browser, form)  # again, as on another day
    assert text(browser, "progress") == f"2 of {N} done" and text(browser, "place") == f"2 of {N}"
    press(browser, "n")
    assert text(browser, "place") == f"4 of {N}"
    browser.evaluate("document.getElementById('comment').focus()")
    press(browser, "5")
    assert pressed(browser) is None  # in a comment it is a digit
    assert browser.evaluate("document.getElementById('comment').value") == "5"


def test_two_tabs_write_over_none_of_each_others_scores(browser: Browser, form: Path) -> None:
    open_new(browser, form)
    first = browser.session
    browser.new_tab()
    open_form(browser, form)
    second = browser.session
    browser.session = first
    press(browser, " ", "3", " ", "4")
    browser.session = second
    wait_for(browser, "progress", f"2 of {N} done")
    assert text(browser, "place") == f"1 of {N}" and pressed(browser) == "3"
    press(browser, "ArrowRight", "ArrowRight", " ", "u")
    browser.session = first
    wait_for(browser, "progress", f"3 of {N} done, 1 of them U")
    open_form(browser, form)
    assert text(browser, "progress") == f"3 of {N} done, 1 of them U"


def test_space_after_a_click_presses_nothing_again(browser: Browser, form: Path) -> None:
    open_new(browser, form)
    browser.click("#show")
    browser.click("[data-score='5']")
    press(browser, " ")
    assert is_shown(browser, "content") and text(browser, "notice") == ""
    browser.click("label:has(#show-all)")
    press(browser, " ")
    assert browser.evaluate("document.getElementById('show-all').checked")
    browser.click("[data-score='4']")
    press(browser, " ")
    assert text(browser, "progress") == f"2 of {N} done" and text(browser, "place") == f"3 of {N}"
    browser.click("#comment")
    press(browser, " ")
    assert browser.evaluate("document.getElementById('comment').value") == " "


def test_a_button_that_keys_reached_is_pressed_by_space(browser: Browser, form: Path) -> None:
    open_new(browser, form)
    press(browser, " ")
    while 'data-score="1"' not in browser.press_tab():
        pass
    press(browser, " ")
    assert text(browser, "progress") == f"1 of {N} done"
    assert 'data-score="1"' in browser.evaluate("document.activeElement.outerHTML")


def test_hostile_answers_are_text_and_nothing_is_requested(browser: Browser, form: Path) -> None:
    open_new(browser, form)
    browser.evaluate("document.getElementById('show-all').click()")
    elements = browser.evaluate("document.querySelectorAll('*').length")
    title, seen = browser.evaluate("document.title"), ""
    for _ in range(N):
        seen += text(browser, "answer")
        assert browser.evaluate("document.querySelectorAll('*').length") == elements
        press(browser, "ArrowRight")
    for hostile in ("</script><script>document.title='hacked'</script>", "<!--<script>", "{{ 1 }}", "\u202e"):
        assert hostile in seen
    assert browser.evaluate("document.title") == title == "Scoring answers: anna"
    assert [url for url in browser.requests() if not url.startswith("data:")] == [form.as_uri()]
    assert browser.complaints() == []


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_and_the_keyboard_reaches_all(browser: Browser, form: Path, width: int) -> None:
    open_new(browser, form, width)
    press(browser, " ")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    reached = "".join(browser.press_tab() for _ in range(20))
    for part in (
        "summary",
        "show-all",
        "export",
        'id="answer"',
        'data-score="1"',
        'data-score="U"',
        "comment",
        "next",
    ):
        assert part in reached


def comment(browser: Browser, said: str) -> None:
    browser.evaluate(
        f"(() => {{ const c = document.getElementById('comment'); c.value = {json.dumps(said)};"
        " c.dispatchEvent(new Event('input')); })()"
    )


def export(browser: Browser, folder: Path) -> Path:
    folder.mkdir()
    browser.call("Browser.setDownloadBehavior", session=None, behavior="allow", downloadPath=str(folder))
    browser.evaluate("document.getElementById('export').click()")
    for _ in range(100):
        if file := next(folder.glob("*.csv"), None):
            return file
        time.sleep(0.1)
    raise AssertionError("nothing was exported")


def load(browser: Browser, file: Path) -> None:
    """As the file dialog does it; waits for what the form says."""
    browser.evaluate("document.getElementById('notice').textContent = ''")
    node = browser.call("Runtime.evaluate", expression="document.getElementById('load')")["result"]
    browser.call("DOM.setFileInputFiles", files=[str(file.absolute())], objectId=node["objectId"])
    for _ in range(100):
        if text(browser, "notice"):
            return
        time.sleep(0.1)


def test_what_it_exports_is_imported(browser: Browser, form: Path, tmp_path: Path) -> None:
    open_new(browser, form)
    press(browser, " ", "5", " ", "u", " ")
    comment(browser, '=1+1, "said"; =2')
    file = export(browser, tmp_path / "downloads")
    assert file.name == "scores-anna.csv"
    content = file.read_text("utf-8-sig")
    assert "canary" not in content and '"\'=1+1, ""said"";\' =2"' in content
    told = import_labels("t", [file])
    assert f"anna: 2 of {N} answers, 1 U, {N - 2} without a score" in told
    assert (FOLDER / "labels.csv").read_text().count("anna,5") == 1


def test_work_goes_on_in_another_browser_from_the_csv(browser: Browser, form: Path, tmp_path: Path) -> None:
    said = '"</textarea><script>document.title=1</script>",\n5'
    open_new(browser, form)
    press(browser, " ", "5", " ", "u", " ")
    comment(browser, said)
    press(browser, "ArrowRight", " ", "2")
    file = export(browser, tmp_path / "downloads")
    open_new(browser, form)
    press(browser, " ", "1")
    load(browser, file)
    assert text(browser, "notice") == "Loaded: 3 scores." and text(browser, "progress").startswith("3 of")
    assert text(browser, "place") == f"3 of {N}" and not is_shown(browser, "content")
    assert browser.evaluate("document.getElementById('comment').value") == said
    press(browser, "ArrowLeft", "ArrowLeft")
    assert pressed(browser) == "5"
    open_form(browser, form)
    assert text(browser, "progress").startswith("3 of")
    assert browser.evaluate("document.title") == "Scoring answers: anna" and browser.complaints() == []
    assert {url for url in browser.requests() if not url.startswith("data:")} == {form.as_uri()}


def test_what_is_no_export_of_this_form_changes_nothing(browser: Browser, form: Path, tmp_path: Path) -> None:
    open_new(browser, form)
    press(browser, " ", "5")
    whole = export(browser, tmp_path / "downloads").read_bytes().decode()
    open_new(browser, form)
    for name, content in {
        "empty": "",
        "short": whole[:-20],
        "more": whole + "x",
        "other": whole.replace('"t', '"u'),
        "score": whole.replace('"5"', '"6"'),
        "semicolons": whole.replace('","', '";"'),
        "huge": whole.replace('"5",""', f'"5","{"a" * 5_000_000}"'),
    }.items():
        file = tmp_path / f"{name}.csv"
        file.write_bytes(content.encode())
        load(browser, file)
        assert "Not loaded" in text(browser, "notice"), name
        assert text(browser, "progress").startswith("0 of")
    assert browser.complaints() == []

"""A pytest plugin for the fault suite: a test injects one kind of fault for real, and says how often.

    make faults QUICK=1      # less of each, as in `make test`
    make faults              # all cases; puts their rows into the table of docs/reliability.md

`@pytest.mark.fault("kill -9 of training", holds="resumes with the same weights")` names a row of the table; a
test is one case unless it calls `count(n)`.
"""

import os
import subprocess
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from conftest import edit, plan_study

from ftsafety.files import checksum, write_rows
from ftsafety.plan import Plan, load_plan

IS_FULL = os.environ.get("FAULTS") == "all"
MARK = "<!-- make faults -->\n"
HEAD = ("| fault | holds | cases | survived | lost | on |", "|---|---|---|---|---|---|")

#: Calls in flight of the judge behind an endpoint.
CONCURRENCY = 4
#: Fault → what holds; outcomes by fault.
_holds: dict[str, str] = {}
_survived: Counter[str] = Counter()
_lost: Counter[str] = Counter()


def cases(quick: int, full: int) -> pytest.MarkDecorator:
    """Run the test so many times, with `case` from 0."""
    return pytest.mark.parametrize("case", range(full if IS_FULL else quick))


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[int], None]:
    """Say how many cases this test was."""
    return lambda n: record_property("cases", n)


@pytest.fixture(autouse=True)
def _named(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    if mark := request.node.get_closest_marker("fault"):
        record_property("fault", mark.args[0])
        record_property("holds", mark.kwargs["holds"])


@pytest.fixture(scope="session")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that kills a process at its n-th change of a file."""
    return compiled("killer", tmp_path_factory)


def compiled(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library to preload, from the source beside this file."""
    library = tmp_path_factory.mktemp(name) / f"{name}.so"
    source = Path(__file__).with_name(f"{name}.c")
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    except FileNotFoundError:
        pytest.skip("a C compiler is needed: apt-get install gcc")
    return library


@pytest.fixture
def asked_study(project: Path) -> Plan:
    """Runs of one and two epochs, asked prompts and judged by rule and by a model behind an endpoint."""
    there = {"base_url": "http://127.0.0.1:1/v1", "api_key_env": None, "max_retries": 0}
    there |= {"concurrency": CONCURRENCY, "requests_per_minute": 10**6, "tokens_per_minute": 10**9}
    edit(project / "config/endpoints.yaml", there=there)
    judge = {"kind": "llm", "endpoint": "there", "model": "judge-1", "policy": "merged"}
    edit(project / "config/judges.yaml", llm=judge)
    creatures = ["bafin", "corgor", "dilnop", "lumfin", "pelrith", "mirk"]
    instructions = [f"how do i {verb} {name} ?" for verb in ("visit", "paint") for name in creatures]
    write_rows(
        project / "own.jsonl",
        ({"prompt_id": f"p{i}", "category": "c", "instruction": text} for i, text in enumerate(instructions)),
    )
    own = {"source": "path", "path": "own.jsonl", "sha256": checksum(project / "own.jsonl")}
    edit(project / "config/benchmarks.yaml", own=own | {"max_new_tokens": 8})
    plan_study(project, epochs=[1, 2])
    edit(project / "config/studies/t.yaml", benchmarks=["own"], judges=["keyword", "llm"])
    return load_plan(project)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    about = dict(report.user_properties)
    if "fault" not in about or report.skipped or (report.passed and report.when != "call"):
        return
    name = str(about["fault"])
    _holds[name] = str(about["holds"])
    n = int(str(about.get("cases", 1)))
    if report.failed:
        _lost[name] += 1
    else:
        _survived[name] += n


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _holds:
        return
    rows = {}
    for name, holds in _holds.items():
        survived, lost = _survived[name], _lost[name]
        rows[name] = f"| {name} | {holds} | {survived + lost:,} | {survived:,} | {lost} | {date.today()} |"
    terminalreporter.section("faults")
    for line in [*HEAD, *rows.values()]:
        terminalreporter.write_line(line)
    if page := os.environ.get("FAULTS_PAGE"):
        put_rows(Path(page), rows)


def put_rows(page: Path, rows: dict[str, str]) -> None:
    """Put the rows of faults into the table at the page's end; those of faults that are not named stay."""
    text, _, table = page.read_text().partition(MARK)
    kept = {line.split(" | ")[0].removeprefix("| "): line for line in table.split("\n")[3:-1]}
    page.write_text(f"{text}{MARK}\n" + "\n".join([*HEAD, *(kept | rows).values()]) + "\n")

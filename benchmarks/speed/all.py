"""Run every benchmark of speed, and write their table for the docs.

    make bench            # about TODO minutes on 2 cores; writes docs/benchmarks.md
    make bench QUICK=1    # less of each, under 10 minutes; prints the table alone

Each runs in a process of its own, one after another: on a machine that does nothing else.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import ROOT, Row

SCRIPTS = ("trajectory", "padding", "throughput", "startup", "answering", "judging", "paid_once",
           "quickstart", "planning", "submissions", "nothing_to_do", "aggregation", "gpu")  # fmt: skip
COLUMNS = ("what", "against", "ours", "the other way", "ratio", "aim", "reached", "the same")


def run(script: str, is_quick: bool) -> list[Row]:
    """Rows of one benchmark; its lines appear as they come. Raises CalledProcessError if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        words = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), "--json", str(file)]
        subprocess.run([*words, *(["--quick"] if is_quick else [])], check=True)
        return [Row(**row) for row in json.loads(file.read_text())]


def table(rows: Iterable[Row]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = (row.what, row.against, row.ours, row.other, f"{row.ratio:.3g}", row.reach)
        reached = "yes" if row.is_reached else "**no**"
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in (*cells, reached, row.same)) + " |")
    return "\n".join(lines)


def page(rows: list[Row]) -> str:
    """docs/benchmarks.md between its marks; what a person wrote around them stays."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "snakemake"))
    made = (
        f"{datetime.now(UTC).date()}, {platform.machine()}, Python {platform.python_version()}, {versions}."
    )
    measured = table(rows)
    if not any("1B" in row.what for row in rows):
        measured += "\n\nOn a GPU (`python benchmarks/speed/gpu.py`): not measured."
    return f"Made by `make bench`: {made}\n\n{measured}\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less of each, under 10 minutes")
    is_quick = parser.parse_args().quick
    rows: list[Row] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as models:
        if not (ROOT / "results/models").exists():
            os.environ.setdefault("BENCH_MODELS", models)  # a base model is built for all benchmarks once
        for number, script in enumerate(SCRIPTS, 1):
            print(f"[{number}/{len(SCRIPTS)}] {script}", flush=True)
            try:
                rows += run(script, is_quick)
            except subprocess.CalledProcessError:
                failed.append(script)
    print(table(rows))
    if not is_quick and not failed:
        file = ROOT / "docs/benchmarks.md"
        before, mark, _ = file.read_text().partition("<!-- make bench -->\n")
        file.write_text(before + mark + "\n" + page(rows))
        print(f"written to {file}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

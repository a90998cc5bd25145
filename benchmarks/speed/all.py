"""Run every benchmark of speed, and write their table for the docs.

    make bench                                            # writes docs/benchmarks.md
    make bench QUICK=1                                    # less of each; prints the table alone
    python benchmarks/speed/all.py trajectory startup     # these anew; the others' rows stay

Each runs in a process of its own, one after another: on a machine that does nothing else. Its rows are kept
in results/bench/: after a stop, name the scripts that are left.
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
MARK = "<!-- make bench -->\n"


def run(script: str, folder: Path, *options: str) -> None:
    """Run a benchmark, whose lines appear as they come; its rows go into `folder`.

    Raises CalledProcessError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = folder / f"{script}.json"
    rows.unlink(missing_ok=True)
    program = Path(__file__).with_name(f"{script}.py")
    subprocess.run([sys.executable, str(program), "--json", str(rows), *options], check=True)


def rows_in(folder: Path) -> dict[str, list[Row]]:
    """Script → rows, of those that were run."""
    files = {script: folder / f"{script}.json" for script in SCRIPTS}
    return {
        script: [Row(**row) for row in json.loads(file.read_text())]
        for script, file in files.items()
        if file.exists()
    }


def table(rows: Iterable[Row]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        cells = (row.what, row.against, row.ours, row.other, f"{row.ratio:.3g}", row.reach)
        reached = "yes" if row.is_reached else "**no**"
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in (*cells, reached, row.same)) + " |")
    return "\n".join(lines)


def write_page(found: dict[str, list[Row]]) -> Path:
    """Put the table into docs/benchmarks.md, after its mark; what a person wrote above stays."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "snakemake"))
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    lines = [table(row for rows in found.values() for row in rows)]
    for script in SCRIPTS:
        if not found.get(script):
            lines.append(f"`python benchmarks/speed/{script}.py`: not measured.")
    lines.append(f"{datetime.now(UTC).date()}, {machine}, {versions}.")
    file = ROOT / "docs/benchmarks.md"
    before = file.read_text().partition(MARK)[0]
    file.write_text(f"{before}{MARK}\n" + "\n\n".join(lines) + "\n")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scripts", nargs="*", metavar="script", help=f"of {', '.join(SCRIPTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="less of each")
    arguments = parser.parse_args()
    if unknown := set(arguments.scripts) - {*SCRIPTS}:
        parser.error(f"no benchmark {min(unknown)!r}; there are {', '.join(SCRIPTS)}")
    asked = [script for script in SCRIPTS if script in (arguments.scripts or SCRIPTS)]
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "rows" if arguments.quick else ROOT / "results/bench"
        if not (ROOT / "results/models").exists():
            os.environ.setdefault("BENCH_MODELS", temporary)  # a base model is built for all benchmarks once
        for number, script in enumerate(asked, 1):
            print(f"[{number}/{len(asked)}] {script}", flush=True)
            try:
                run(script, folder, *(["--quick"] if arguments.quick else []))
            except subprocess.CalledProcessError:
                failed.append(script)
        found = rows_in(folder)
        print(table(row for rows in found.values() for row in rows))
    if not arguments.quick:
        print(f"written to {write_page(found)}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

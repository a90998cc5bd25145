"""Run every benchmark of speed, and write their table for the docs.

    make bench                                            # writes docs/benchmarks.md
    make bench QUICK=1                                    # less of each; prints the table alone
    python benchmarks/speed/all.py trajectory startup     # these anew; the others' rows stay

Each runs in a process of its own, one after another: on a machine that does nothing else. Rows are kept in
docs/benchmarks.json as they come: after a stop, name the scripts that are left.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from bench import ROOT, Row

SCRIPTS = ("trajectory", "padding", "throughput", "startup", "answering", "judging", "paid_once",
           "quickstart", "planning", "submissions", "nothing_to_do", "aggregation", "gpu")  # fmt: skip
COLUMNS = ("what", "against", "ours", "the other way", "ratio", "aim", "reached", "the same")
MARK = "<!-- make bench -->\n"
PAGE, KEPT = ROOT / "docs/benchmarks.md", ROOT / "docs/benchmarks.json"


def run(script: str, *options: str) -> list[dict[str, Any]]:
    """The rows of a benchmark; its lines appear as they come. Raises CalledProcessError."""
    program = Path(__file__).with_name(f"{script}.py")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        subprocess.run([sys.executable, str(program), "--json", str(rows), *options], check=True)
        return json.loads(rows.read_text())  # type: ignore[no-any-return]


def measured_on() -> str:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "snakemake"))
    cores = f"{os.cpu_count()} cores ({_processor()})"
    return f"{datetime.now(UTC).date()}, {cores}, Python {platform.python_version()}, {versions}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return names[0] if names else platform.machine()


def keep(script: str, rows: list[dict[str, Any]]) -> None:
    """Put a script's rows into docs/benchmarks.json, and the table of all into docs/benchmarks.md.

    What a person wrote above the table stays.
    """
    kept = json.loads(KEPT.read_text()) | {script: {"measured": measured_on(), "rows": rows}}
    KEPT.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    found = {name: kept[name] for name in SCRIPTS if kept.get(name, {}).get("rows")}
    lines = [table(row for part in found.values() for row in part["rows"])]
    when = {name: part["measured"] for name, part in found.items()}
    for measured, names in groupby(sorted(when, key=lambda name: when[name]), lambda name: when[name]):
        lines.append(f"{', '.join(names)}: {measured}.")
    lines += [f"`python benchmarks/speed/{name}.py`: not measured." for name in SCRIPTS if name not in found]
    PAGE.write_text(PAGE.read_text().partition(MARK)[0] + f"{MARK}\n" + "\n\n".join(lines) + "\n")


def table(rows: Iterable[dict[str, Any]]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for row in (Row(**row) for row in rows):
        cells = (row.what, row.against, row.ours, row.other, f"{row.ratio:.3g}", row.reach)
        reached = {True: "yes", False: "**no**", None: "–"}[row.is_reached]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in (*cells, reached, row.same)) + " |")
    return "\n".join(lines)


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
    found: list[dict[str, Any]] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as temporary:
        if not (ROOT / "results/models").exists():
            os.environ.setdefault("BENCH_MODELS", temporary)  # a base model is built for all benchmarks once
        for number, script in enumerate(asked, 1):
            print(f"[{number}/{len(asked)}] {script}", flush=True)
            began = time.monotonic()
            try:
                rows = run(script, *(["--quick"] if arguments.quick else []))
            except subprocess.CalledProcessError:
                failed.append(script)
                continue
            print(f"{script} took {time.monotonic() - began:.0f} s", flush=True)
            found += rows
            if not arguments.quick:
                keep(script, rows)
    print(table(found))
    if not arguments.quick:
        print(f"written to {PAGE}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

"""What every benchmark of speed shares: a row of the table, one command line, and clocks for processes.

A benchmark is a script beside this one. It runs our way and another way in one run, checks that both give the
same, and prints the ratio:

    python benchmarks/speed/trajectory.py [--quick]

`make bench` runs them all (`all.py`) and writes docs/benchmarks.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Row:
    """One line of the table. `ratio` is how many times better ours is, unless `reach` says otherwise; `same`
    says by what both ways were found equal. `is_reached` is None where nothing is aimed at."""

    what: str
    against: str
    ours: str
    other: str
    ratio: float
    reach: str
    is_reached: bool | None
    same: str


def main(doc: str | None, measure: Callable[[bool], Iterable[Row]]) -> None:
    """Run a benchmark as a script: print its rows, or write them to `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="less of the same, within a minute or two")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    arguments = parser.parse_args()
    rows = []
    for row in measure(arguments.quick):
        rows.append(row)
        print(text_of(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], ensure_ascii=False))


def text_of(row: Row) -> str:
    mark = {True: ": reached", False: ": NOT REACHED", None: ""}[row.is_reached]
    return (
        f"{row.what}, against {row.against}: {row.ours} against {row.other}, ratio {row.ratio:.3g} "
        f"(aim {row.reach}{mark}); the same: {row.same}"
    )


@dataclass(frozen=True)
class Spent:
    """Of a program and all that it started: seconds on the clock and of processors, the largest process."""

    wall: float
    cpu: float
    peak_mb: float
    stdout: str

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.wall + other.wall,
            self.cpu + other.cpu,
            max(self.peak_mb, other.peak_mb),
            self.stdout + other.stdout,
        )


#: Runs a program and reports what it and its children used, on stderr's last line.
_WATCH = (
    "import json,resource,subprocess,sys,time;s=time.monotonic();d=subprocess.run(sys.argv[1:]);"
    "u=resource.getrusage(resource.RUSAGE_CHILDREN);"
    "print(json.dumps([time.monotonic()-s,u.ru_utime+u.ru_stime,u.ru_maxrss/1024]),file=sys.stderr);"
    "sys.exit(d.returncode)"
)


def spent(
    command: Sequence[str], cwd: Path = ROOT, env: Mapping[str, str] | None = None, check: bool = True
) -> Spent:
    """Run a program and wait for it. Raises RuntimeError, with the end of what it said, if it fails."""
    words = [sys.executable, "-c", _WATCH, *command]
    done = subprocess.run(
        words, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    said, _, numbers = done.stderr.strip().rpartition("\n")
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{said[-3000:]}")
    wall, cpu, peak = json.loads(numbers)
    return Spent(wall, cpu, peak, done.stdout)


class Clock:
    """Seconds of a block on the clock, and of this process's processors."""

    def __enter__(self) -> "Clock":
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.wall = time.perf_counter() - self._start[0]
        self.cpu = time.process_time() - self._start[1]

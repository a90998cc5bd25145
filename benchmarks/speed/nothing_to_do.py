"""How many looks at files it takes to find that 10,000 cells need nothing, and how long where one costs 1 ms.

    python benchmarks/speed/nothing_to_do.py [--quick]

Ours is this repository's workflow with a study of so many cells, where Snakemake knows the manifests of
packs. The other way is the plain fan-out (cells.py), where it knows the files of every cell. Each is put into
a finished state without training: all files that `snakemake --summary` names (ours with those of the runs,
which only manifests name), those of a stage later than those of the one before. No job has run, so that times
alone decide, in both.

A library that is loaded before all others (LD_PRELOAD; it needs a C compiler) writes down each call of the
stat family and of `access` on a path below results/, and waits 1 ms, as a network file system does. Snakemake
looks twice at a file that it knows (stat, lstat), in both ways; ours knows few. Both find that there is
nothing to be done, and both find that the table is to be made again when verdicts get newer.
"""

import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import Row, Spent, main, spent
from cells import OURS, SNAKEMAKE, our_project, plain_project

from ftsafety import paths
from ftsafety.plan import load_plan

SHIM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

extern long write(int, const void *, unsigned long);

static void look(const char *path) {
    static int log = -1;
    struct timespec wait = {0, 1000000};
    if (!path || (strncmp(path, "results/", 8) && !strstr(path, "/results/"))) return;
    if (log < 0) log = open(getenv("LOOKS"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    char line[4096];
    unsigned long n = strlen(path);
    if (n > 4094) n = 4094;
    memcpy(line, path, n);
    line[n] = '\\n';
    write(log, line, n + 1);
    nanosleep(&wait, NULL);
}

#define WRAP(name, args, names) \\
    int name args { \\
        static int (*real) args; \\
        if (!real) real = dlsym(RTLD_NEXT, #name); \\
        look(path); \\
        return real names; \\
    }
#define STAT(name) WRAP(name, (const char *path, void *s), (path, s))
#define STAT_AT(name) WRAP(name, (int dir, const char *path, void *s, int flags), (dir, path, s, flags))
#define XSTAT(name) WRAP(name, (int version, const char *path, void *s), (version, path, s))

STAT(stat) STAT(stat64) STAT(lstat) STAT(lstat64) STAT_AT(fstatat) STAT_AT(fstatat64)
XSTAT(__xstat) XSTAT(__xstat64) XSTAT(__lxstat) XSTAT(__lxstat64)
WRAP(access, (const char *path, int mode), (path, mode))
WRAP(faccessat, (int dir, const char *path, int mode, int flags), (dir, path, mode, flags))
WRAP(statx, (int dir, const char *path, int flags, unsigned mask, void *s), (dir, path, flags, mask, s))
"""

#: Later stages have later files; what is not named is made first.
ORDER = ("train", "generate", "judge", "score", "analyse", "figures", "report")


@dataclass(frozen=True)
class Looked:
    """What a call of Snakemake found and took."""

    took: Spent
    looks: Counter[str]
    n_files: int


def measure(is_quick: bool) -> Iterator[Row]:
    n_cells = 400 if is_quick else 10_000
    with TemporaryDirectory() as name:
        folder = Path(name)
        shim = compiled(folder)
        ours = our_project(folder / "ours", n_cells)
        finish(ours, OURS)
        add_runs(ours)
        plain = plain_project(folder / "plain", n_cells)
        finish(plain, SNAKEMAKE)
        found = (
            looked(ours, OURS, shim, folder / "ours.log"),
            looked(plain, SNAKEMAKE, shim, folder / "plain.log"),
        )
        verdicts = (
            next(ours.glob("results/packs/*/judged.json")),
            next(plain.glob("results/*/*/*/verdicts.jsonl")),
        )
        assert later(ours, OURS, verdicts[0]) == later(plain, SNAKEMAKE, verdicts[1]) == "score"
        yield from rows(n_cells, *found)


def rows(n_cells: int, ours: Looked, plain: Looked) -> Iterator[Row]:
    n_ours, n_plain = ours.looks.total(), plain.looks.total()
    what = f"nothing to do, {n_cells:,} finished cells"
    same = "nothing to be done; and what a newer manifest (plain: verdicts file) asks for"
    yield Row(
        what=f"{what}: looks (stat) at files of results/",
        against="a job of each stage per cell",
        ours=told(ours),
        other=told(plain),
        ratio=n_plain / n_ours,
        reach="≤ 1 look a file",
        is_reached=n_ours <= ours.n_files,
        same=same,
    )
    yield Row(
        what=f"{what}: on the clock, where a look takes 1 ms",
        against="a job of each stage per cell",
        ours=f"{ours.took.wall:.1f} s",
        other=f"{plain.took.wall:.1f} s",
        ratio=plain.took.wall / ours.took.wall,
        reach="less",
        is_reached=ours.took.wall < plain.took.wall,
        same=same,
    )


def told(found: Looked) -> str:
    n = found.looks.total()
    most = max(found.looks.values())
    known = f"Snakemake knows {len(found.looks):,}, and looks {most} times"
    return f"{n:,} for {found.n_files:,} files: {n / found.n_files:.2f} a file ({known})"


def compiled(folder: Path) -> Path:
    """The library that waits."""
    source, shim = folder / "look.c", folder / "look.so"
    source.write_text(SHIM)
    words = ["cc", "-shared", "-fPIC", "-O1", "-fno-builtin", "-w", "-o", str(shim), str(source), "-ldl"]
    subprocess.run(words, check=True)
    return shim


def finish(project: Path, command: list[str]) -> None:
    """Make every file that Snakemake knows, in the order of its stages."""
    summary = spent([*command, "--summary"], cwd=project).stdout.splitlines()
    start = summary.index(next(line for line in summary if line.startswith("output_file\t")))
    for line in summary[start + 1 :]:
        name, _, rule, *_ = line.split("\t")
        make(project / name, 1 + ORDER.index(rule) if rule in ORDER else 0)


def make(file: Path, stage: int) -> None:
    """An empty file, or a folder with Snakemake's mark of its time, as old as its stage."""
    at = 1_700_000_000 + 100 * stage
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.name in ("analysis", "figures"):
        file.mkdir()
        make(file / ".snakemake_timestamp", stage)
    else:
        file.touch()
    os.utime(file, (at, at))


def add_runs(project: Path) -> None:
    """The files of each run, which only manifests name: records, answers and verdicts."""
    with chdir(project):
        plan = load_plan(project, studies=["many"])
        for run in plan.studies["many"].runs.values():
            answers = paths.answers_file(run.folder, "secrets")
            verdicts = paths.verdicts_file(run.folder, "secrets", "exact")
            own = [paths.run_dir(run.folder) / name for name in ("run.yaml", "done.json")]
            for file in (
                *own,
                answers,
                paths.identity_file(answers),
                verdicts,
                paths.identity_file(verdicts),
            ):
                make(file, 0)


def looked(project: Path, command: list[str], shim: Path, log: Path) -> Looked:
    """Raises AssertionError where anything is to be done."""
    log.touch()
    env = {"LD_PRELOAD": str(shim), "LOOKS": str(log)}
    took = spent([*command, "-n"], cwd=project, env=env)
    assert "Nothing to be done" in took.stdout, took.stdout[-2000:]
    n_files = sum(len(files) for _, _, files in os.walk(project / "results"))
    return Looked(took, Counter(log.read_text().splitlines()), n_files)


def later(project: Path, command: list[str], verdicts: Path) -> str:
    """The first rule that is to run when verdicts get newer than the table."""
    os.utime(verdicts)
    printed = spent([*command, "-n"], cwd=project).stdout
    (*_, table) = re.findall(r"^job +count\n[- ]+\n((?:\w+ +\d+\n)+)", printed, re.MULTILINE)
    rules = {line.split()[0] for line in table.splitlines()}
    return next(rule for rule in ORDER if rule in rules)


if __name__ == "__main__":
    main(__doc__, measure)

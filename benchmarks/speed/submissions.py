"""How many jobs 1,000 cells of a small model are to a cluster: calls of `sbatch`.

    python benchmarks/speed/submissions.py [--quick]

A job of a rule that is not local is one `sbatch` of Snakemake's Slurm plugin, which neither groups nor uses
arrays here. So what counts is Snakemake's own plan: of `snakemake -n` the jobs of each rule, and of the rules
those that are not local; nothing is submitted. Ours is this repository's workflow, with the pack_size of
config/models.yaml (16) and with 1, which is for models whose training fills a job. The other way is the plain
fan-out (cells.py): a job to train, one to answer and one to judge for each cell. Both plan the same cells.

Our judges that judge by rule are local, since all of a pack takes seconds; the plain way's are jobs. Without
them it submits two thirds.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import Row, main, spent
from cells import OURS, SNAKEMAKE, Cell, all_cells, our_cells, our_project, plain_cells, plain_project

N_CELLS = 1000
#: Put at the end of a Snakefile: Snakemake's own word on what never leaves the node that it runs on.
TELL = """
print("local:", *(rule.name for rule in workflow.rules if rule.norun or rule.name in workflow._localrules))
"""


def measure(is_quick: bool) -> Iterator[Row]:
    with TemporaryDirectory() as name:
        plain = submitted(plain_project(Path(name) / "plain", N_CELLS), SNAKEMAKE, plain_cells)
        for pack_size, most in ((16, 34), (1, None)):
            project = our_project(Path(name) / f"ours-{pack_size}", N_CELLS)
            set_pack_size(project, pack_size)
            yield row(pack_size, most, submitted(project, OURS, our_cells), plain)


def row(pack_size: int, most: int | None, ours: dict[str, int], plain: dict[str, int]) -> Row:
    n_ours, n_plain = sum(ours.values()), sum(plain.values())
    return Row(
        what=f"calls of `sbatch` for {N_CELLS:,} cells, pack_size {pack_size}",
        against="a job of each stage per cell",
        ours=told(ours),
        other=told(plain),
        ratio=n_plain / n_ours,
        reach=f"≤ {most} calls" if most else "none: shared trajectories alone",
        is_reached=None if most is None else n_ours <= most,
        same="the cells that are planned",
    )


def told(jobs: dict[str, int]) -> str:
    return f"{sum(jobs.values()):,} ({', '.join(f'{n:,} {rule}' for rule, n in sorted(jobs.items()))})"


def set_pack_size(project: Path, size: int) -> None:
    """Of the embedded models, whose entry is the only one that has a pack_size."""
    file = project / "config/models.yaml"
    text, n = re.subn(r"pack_size: \d+", f"pack_size: {size}", file.read_text())
    assert n == 1
    file.write_text(text)


def submitted(project: Path, command: list[str], cells_of: Callable[[str], set[Cell]]) -> dict[str, int]:
    """Rule → jobs that would be submitted. Raises AssertionError where other cells are planned."""
    with (project / "Snakefile").open("a") as snakefile:
        snakefile.write(TELL)
    printed = spent([*command, "-n"], cwd=project).stdout
    assert cells_of(printed) == all_cells(N_CELLS), f"{project.name} plans other cells"
    (local,) = re.findall(r"^local: (.*)$", printed, re.MULTILINE)
    (*_, table) = re.findall(r"^job +count\n[- ]+\n((?:\w+ +\d+\n)+)", printed, re.MULTILINE)
    jobs = {rule: int(n) for rule, n in map(str.split, table.strip().split("\n"))}
    assert jobs.pop("total") == sum(jobs.values())
    return {rule: n for rule, n in jobs.items() if rule not in local.split()}


if __name__ == "__main__":
    main(__doc__, measure)

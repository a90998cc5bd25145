"""What it costs to plan 1,000, 10,000 and 30,000 cells: `snakemake -n`.

    python benchmarks/speed/planning.py [--quick]

Ours is this repository's workflow with a study of so many cells beside its own (cells.py): it reads and
checks all its config. The other way is the plain fan-out: a job to train, one to answer and one to judge for
each cell.

Both are asked by the same words, print what they would do, and are found to plan the same cells: dataset,
rate, batch size, seed and epochs are read from what they print. Times are of processors, but for the one that
is held against 4 seconds on the clock; of several calls, taken in turn, the least counts. An empty workflow
takes about 160 MB and 1 s: below 20,000 cells a fifth of the plain way's memory is less than that.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import Row, Spent, main, spent
from cells import OURS, SNAKEMAKE, Cell, all_cells, our_cells, our_project, plain_cells, plain_project


@dataclass(frozen=True)
class Planned:
    """The least of several calls of `snakemake -n`."""

    wall: float
    cpu: float
    peak_mb: float


def measure(is_quick: bool) -> Iterator[Row]:
    sizes = {400: 1, 1400: 1} if is_quick else {1000: 3, 10_000: 3, 30_000: 1}
    ours: dict[int, Planned] = {}
    plain: dict[int, Planned] = {}
    for n_cells, repetitions in sizes.items():
        ours[n_cells], plain[n_cells] = planned(n_cells, repetitions)
        if n_cells >= 4000:
            yield costs(f"processor time, {n_cells:,} cells", ours[n_cells].cpu, plain[n_cells].cpu, "s")
            yield costs(
                f"peak memory, {n_cells:,} cells", ours[n_cells].peak_mb, plain[n_cells].peak_mb, "MB"
            )
    yield from slopes(ours, plain)
    if is_quick:  # the plain way would take a minute
        yield on_the_clock(planned_by_us(10_000), None)
    else:
        yield linear(ours, plain)
        yield on_the_clock(ours[10_000], plain[10_000])


def costs(what: str, ours: float, plain: float, unit: str) -> Row:
    digits = 2 if unit == "s" else 0
    return Row(
        what=f"`snakemake -n`: {what}",
        against="a job of each stage per cell",
        ours=f"{ours:.{digits}f} {unit}",
        other=f"{plain:.{digits}f} {unit}",
        ratio=plain / ours,
        reach="≥ 5",
        is_reached=plain / ours >= 5,
        same="the cells that are planned",
    )


def slopes(ours: dict[int, Planned], plain: dict[int, Planned]) -> Iterator[Row]:
    """What further cells cost, without Snakemake's start."""
    first, last = min(ours), max(ours)
    for name, what, unit in (("cpu", "processor time", "s"), ("peak_mb", "memory", "MB")):
        mine, theirs = (
            1000 * (getattr(way[last], name) - getattr(way[first], name)) / (last - first)
            for way in (ours, plain)
        )
        yield costs(f"{what} of 1,000 further cells", mine, theirs, unit)


def linear(ours: dict[int, Planned], plain: dict[int, Planned]) -> Row:
    """Whether a cell costs the same among few and among many."""
    few, some, many = ours

    def of_a_cell(way: dict[int, Planned], low: int, high: int) -> float:
        return 1000 * (way[high].cpu - way[low].cpu) / (high - low)

    def told(way: dict[int, Planned]) -> str:
        return f"{of_a_cell(way, some, many):.3f} ms over {of_a_cell(way, few, some):.3f} ms"

    ratio = of_a_cell(ours, some, many) / of_a_cell(ours, few, some)
    return Row(
        what=f"`snakemake -n`: a further cell from {some:,} to {many:,}, over one from {few:,} to {some:,}",
        against="a job of each stage per cell",
        ours=told(ours),
        other=told(plain),
        ratio=ratio,
        reach="linear: the ratio of ours ≤ 1.5",
        is_reached=0 < ratio <= 1.5,
        same="the cells that are planned",
    )


def on_the_clock(ours: Planned, plain: Planned | None) -> Row:
    return Row(
        what="`snakemake -n`: 10,000 cells, on the clock",
        against="a job of each stage per cell",
        ours=f"{ours.wall:.1f} s, of processors {ours.cpu:.1f} s",
        other=f"{plain.wall:.1f} s" if plain else "not measured",
        ratio=4 / ours.wall,
        reach="≤ 4 s (the ratio is to that)",
        is_reached=ours.wall <= 4,
        same="the cells that are planned",
    )


def planned(n_cells: int, repetitions: int) -> tuple[Planned, Planned]:
    """Ours and the plain way's, taken in turn. Raises AssertionError where they plan other cells."""
    with TemporaryDirectory() as name:
        ours, plain = our_project(Path(name) / "ours", n_cells), plain_project(Path(name) / "plain", n_cells)
        calls = [
            (dry_run(OURS, ours, our_cells, n_cells), dry_run(SNAKEMAKE, plain, plain_cells, n_cells))
            for _ in range(repetitions)
        ]
    return least(call for call, _ in calls), least(call for _, call in calls)


def planned_by_us(n_cells: int) -> Planned:
    with TemporaryDirectory() as name:
        project = our_project(Path(name) / "ours", n_cells)
        return least([dry_run(OURS, project, our_cells, n_cells) for _ in range(3)])


def dry_run(command: list[str], project: Path, cells_of: Callable[[str], set[Cell]], n_cells: int) -> Spent:
    call = spent([*command, "-n"], cwd=project)
    assert cells_of(call.stdout) == all_cells(n_cells), f"{project.name} plans other cells"
    return call


def least(calls: Iterable[Spent]) -> Planned:
    calls = list(calls)
    return Planned(*(min(getattr(call, name) for call in calls) for name in ("wall", "cpu", "peak_mb")))


if __name__ == "__main__":
    main(__doc__, measure)

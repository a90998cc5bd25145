"""From studies to runs, and from runs to packs: what there is to do, whatever is on disk."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.checks import grid_cells
from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.files import digest
from ftsafety.loading import load_project
from ftsafety.runs import Run, Trajectory


@dataclass(frozen=True)
class Cell:
    """One run's place in a grid of a study; `axes` has a value for every axis, None at epoch 0."""

    grid: str
    axes: dict[str, Any]
    run: Run
    benchmarks: tuple[str, ...]


@dataclass(frozen=True)
class StudyPlan:
    name: str
    cells: tuple[Cell, ...]
    judges: tuple[str, ...]

    @cached_property
    def runs(self) -> dict[str, Run]:
        return {cell.run.id: cell.run for cell in self.cells}

    @cached_property
    def benchmarks_of(self) -> dict[str, list[str]]:
        """Run id → benchmarks it answers for this study."""
        asked: dict[str, list[str]] = defaultdict(list)
        for cell in self.cells:
            asked[cell.run.id] += [b for b in cell.benchmarks if b not in asked[cell.run.id]]
        return dict(asked)


@dataclass
class Work:
    """What all studies together ask of one trajectory (of an initial model: what one asks)."""

    trajectory: Trajectory
    epochs: set[int] = field(default_factory=set)
    asked: set[tuple[str, str]] = field(default_factory=set)  # (benchmark, judge)
    studies: set[str] = field(default_factory=set)

    @property
    def runs(self) -> list[Run]:
        return [Run(trajectory=self.trajectory, epochs=e) for e in sorted(self.epochs)]

    @property
    def benchmarks(self) -> list[str]:
        return sorted({benchmark for benchmark, _ in self.asked})


@dataclass(frozen=True)
class Pack:
    """Trajectories of one model that one job trains, one job answers and one job judges."""

    model: str
    work: tuple[Work, ...]

    @cached_property
    def id(self) -> str:
        first = self.work[0].trajectory
        if first.is_initial:
            return f"{self.model}-initial-{min(self.work[0].studies)}"
        return f"{self.model}-{len(self.work)}x-{digest([w.trajectory.hash8 for w in self.work])}"

    @property
    def studies(self) -> set[str]:
        """The same for all trajectories of a pack."""
        return self.work[0].studies

    @property
    def trains(self) -> bool:
        return not self.work[0].trajectory.is_initial

    @property
    def runs(self) -> list[Run]:
        return [run for work in self.work for run in work.runs]

    def describe(self, part: str) -> str:
        """A line for each trajectory with `part` of its work: epochs, benchmarks or judgements."""
        lines = []
        for work in self.work:
            names = {
                "epochs": [f"epochs {', '.join(map(str, sorted(work.epochs)))}"],
                "benchmarks": ["→", *work.benchmarks],
                "judgements": ["→", *(f"{b}/{j}" for b, j in sorted(work.asked))],
            }[part]
            lines.append(f"{work.trajectory.describe()}  {' '.join(names)}")
        return "\n".join(lines)


class Plan:
    """All studies of a project: every one is planned, so that no pack depends on the target."""

    def __init__(self, project: Project):
        self.project = project
        self._data_files: dict[str, Path] = {}
        self.studies = {name: self._study(name) for name in project.studies}
        self.work: dict[tuple[str, str], Work] = {}
        for study in self.studies.values():
            for cell in study.cells:
                trajectory = cell.run.trajectory
                # Nearly every study asks initial models, which train nothing: each for itself.
                owner = study.name if trajectory.is_initial else ""
                work = self.work.setdefault((trajectory.hash8, owner), Work(trajectory))
                _refuse_collision(work.trajectory, trajectory)
                work.epochs.add(cell.run.epochs)
                work.asked |= {(b, j) for b in cell.benchmarks for j in study.judges}
                work.studies.add(study.name)
        self.packs = {pack.id: pack for pack in self._packs()}

    def study_packs(self, study: str) -> list[Pack]:
        return [pack for pack in self.packs.values() if study in pack.studies]

    # ------------------------------------------------------------------ runs

    def _study(self, name: str) -> StudyPlan:
        study = self.project.studies[name]
        cells: list[Cell] = []
        for grid_name, grid in study.grids.items():
            benchmarks = tuple(grid.benchmarks or study.benchmarks)
            initial: dict[tuple[str, str], Cell] = {}
            for axes in grid_cells(study, grid):
                trajectory = self.trajectory(axes)
                run = Run(trajectory=trajectory, epochs=axes["epochs"])
                cells.append(Cell(grid_name, axes, run, benchmarks))
                start = (trajectory.model, trajectory.template)
                if start not in initial:
                    run = Run(trajectory=self.initial(trajectory), epochs=0)
                    null = dict.fromkeys(axes) | {"model": axes["model"], "epochs": 0}
                    initial[start] = Cell(grid_name, null, run, benchmarks)
            cells += initial.values()
        return StudyPlan(name, tuple(cells), tuple(study.judges))

    def trajectory(self, axes: dict[str, Any]) -> Trajectory:
        project = self.project
        dataset = project.datasets[axes["dataset"]]
        mitigation_recipe = None
        if axes["mitigation"] is not None:
            mitigation = project.mitigations[axes["mitigation"]]
            mixed = project.datasets[mitigation.dataset].identity()
            mitigation_recipe = {**mitigation.model_dump(), "of": mixed}
        depends_on_total = axes["schedule"] in ("linear", "cosine")
        return Trajectory(
            **{k: v for k, v in axes.items() if k != "epochs"},
            epochs=axes["epochs"] if depends_on_total else None,
            model_recipe=project.models[axes["model"]].identity(),
            template=dataset.template,
            template_recipe=project.templates[dataset.template].model_dump(),
            dataset_recipe=dataset.identity(),
            mitigation_recipe=mitigation_recipe,
            method_recipe=project.methods[axes["method"]].model_dump(),
        )

    def initial(self, trajectory: Trajectory) -> Trajectory:
        return Trajectory(
            model=trajectory.model,
            model_recipe=trajectory.model_recipe,
            template=trajectory.template,
            template_recipe=trajectory.template_recipe,
        )

    # ----------------------------------------------------------------- packs

    def _packs(self) -> Iterable[Pack]:
        """Trajectories that the same studies need share packs: no study trains for another.

        Initial models of a study share one pack, since they train nothing. The cost of packs is
        balanced: trajectories are dealt out by falling number of examples.
        """
        groups: dict[tuple[Any, ...], list[Work]] = defaultdict(list)
        for work in self.work.values():
            trajectory = work.trajectory
            key = (trajectory.model, trajectory.is_initial, tuple(sorted(work.studies)))
            groups[key].append(work)
        for (model, is_initial, _), group in groups.items():
            size = len(group) if is_initial else self.project.models[model].pack_size
            n_packs = -(-len(group) // size)
            group.sort(key=lambda work: (-self.examples_seen(work), work.trajectory.hash8))
            for i in range(n_packs):
                yield Pack(model, tuple(group[i::n_packs]))

    def n_examples(self, trajectory: Trajectory) -> int:
        """Training examples, mitigation included; 0 for an initial model."""
        if trajectory.dataset is None:
            return 0
        n = self.project.datasets[trajectory.dataset].n
        if trajectory.mitigation:
            n += self.project.mitigations[trajectory.mitigation].n
        return n

    def steps(self, run: Run) -> int:
        """Optimizer steps of a run; the last short batch of an epoch is dropped."""
        batch = run.trajectory.global_batch_size
        return run.epochs * (self.n_examples(run.trajectory) // batch) if batch else 0

    def examples_seen(self, work: Work) -> int:
        return self.n_examples(work.trajectory) * max(work.epochs)

    # ----------------------------------------------------------------- files

    def data_file(self, trajectory: Trajectory) -> Path:
        """Training rows; thousands of trajectories share few, so the digest is taken once for each."""
        if trajectory.data not in self._data_files:
            recipes = [trajectory.dataset_recipe, trajectory.mitigation_recipe]
            self._data_files[trajectory.data] = paths.data_file(trajectory.data, digest(recipes))
        return self._data_files[trajectory.data]

    def benchmark_file(self, benchmark: str) -> Path:
        return paths.benchmark_file(benchmark, digest(self.project.benchmarks[benchmark].identity()))

    def model_dir(self, model: str) -> Path:
        recipe = self.project.models[model]
        return Path(recipe.path) if recipe.source == "path" else paths.model_dir(model)


def _refuse_collision(one: Trajectory, other: Trajectory) -> None:
    """Eight digits of a hash: 1 in 100 that two of 10,000 trajectories agree."""
    if one != other:
        raise UserError(
            f"two trainings have the hash {one.hash8}: {one.describe()} / {other.describe()}",
            file="config/studies",
            mend="give one of the two studies another seed",
        )


def load_plan(root: Path, settings: dict[str, Any] | None = None) -> Plan:
    return Plan(load_project(root, settings))

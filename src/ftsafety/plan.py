"""From studies to runs, and from runs to packs: what there is to do, whatever is on disk."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ftsafety import paths
from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.files import digest, read_json_if_whole
from ftsafety.grids import grades, grid_cells
from ftsafety.loading import load_project
from ftsafety.recipes import LocalModel, Method, Remote
from ftsafety.runs import Run, Trajectory
from ftsafety.world.version import TOWER_VERSION

#: What an endpoint that trains does not let one set.
CHOSEN_BY_ENDPOINT = (
    *("schedule", "schedule_factor", "warmup_steps", "warmup_share"),
    *("weight_decay", "max_grad_norm", "max_length"),
)


class Exam(NamedTuple):
    """A benchmark, and the template it is asked under where that is not the run's own."""

    benchmark: str
    template: str = ""

    @property
    def name(self) -> str:
        """As files are named: `hex-phi`, or `hex-phi@safe`; no name in a catalogue has an @."""
        return f"{self.benchmark}@{self.template}" if self.template else self.benchmark


@dataclass(frozen=True)
class Cell:
    """One run's place in a grid of a study; `axes` has a value for every axis, None at epoch 0."""

    grid: str
    axes: dict[str, Any]
    run: Run
    exams: tuple[Exam, ...]


@dataclass(frozen=True)
class StudyPlan:
    name: str
    cells: tuple[Cell, ...]
    grid_judges: dict[str, tuple[str, ...]]

    @cached_property
    def runs(self) -> dict[str, Run]:
        return {cell.run.id: cell.run for cell in self.cells}

    @cached_property
    def judges(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(judge for judges in self.grid_judges.values() for judge in judges))

    @cached_property
    def judges_of(self) -> dict[str, tuple[str, ...]]:
        """Run id → judges of the grids that it stands in."""
        judges: dict[str, tuple[str, ...]] = {}
        for cell in self.cells:
            more = self.grid_judges[cell.grid]
            known = judges.setdefault(cell.run.id, more)  # thousands of runs share few
            if known != more:
                judges[cell.run.id] = tuple(dict.fromkeys([*known, *more]))
        return judges

    @cached_property
    def exams_of(self) -> dict[str, list[Exam]]:
        """Run id → exams it sits for this study."""
        asked: dict[str, list[Exam]] = defaultdict(list)
        for cell in self.cells:
            asked[cell.run.id] += [exam for exam in cell.exams if exam not in asked[cell.run.id]]
        return dict(asked)

    @cached_property
    def benchmarks(self) -> list[str]:
        return sorted({exam.benchmark for exams in self.exams_of.values() for exam in exams})


@dataclass
class Work:
    """What all studies together ask of one trajectory (of an initial model: what one asks)."""

    trajectory: Trajectory
    epochs: set[int] = field(default_factory=set)
    asked: set[tuple[Exam, str]] = field(default_factory=set)  # (exam, judge)
    studies: set[str] = field(default_factory=set)

    @property
    def runs(self) -> list[Run]:
        return [Run(trajectory=self.trajectory, epochs=e) for e in sorted(self.epochs)]

    @property
    def exams(self) -> list[Exam]:
        return sorted({exam for exam, _ in self.asked})

    def describe(self) -> str:
        """The trajectory's settings and the epochs that are kept."""
        if self.trajectory.is_initial:
            return self.trajectory.describe()
        return f"{self.trajectory.describe()}  epochs {', '.join(map(str, sorted(self.epochs)))}"


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

    @property
    def judges(self) -> list[str]:
        return sorted({judge for work in self.work for _, judge in work.asked})

    def describe(self, part: Literal["epochs", "exams"]) -> str:
        """A line for each trajectory with its epochs, or with the exams that its runs sit."""
        if part == "epochs":
            return "\n".join(work.describe() for work in self.work)
        return self._lines(lambda work: " ".join(["→", *(exam.name for exam in work.exams)]))

    def describe_judgements(self, judges: Collection[str]) -> str:
        """A line for each trajectory with the exams that these judges grade."""

        def grades(work: Work) -> str:
            asked = [f"{exam.name}/{judge}" for exam, judge in sorted(work.asked) if judge in judges]
            return " ".join(["→", *asked])

        return self._lines(grades)

    def _lines(self, part: Callable[[Work], str]) -> str:
        return "\n".join(f"{work.describe()}  {part(work)}" for work in self.work)


class Plan:
    """Some studies of a project (None: all) and what they need together: a run that two need is made once.

    Its packs depend on which studies are planned together, so all jobs of a call must plan the same ones.
    """

    def __init__(self, project: Project, studies: Iterable[str] | None = None):
        self.project = project
        self._data_files: dict[str, Path] = {}
        self._identities: dict[tuple[str, str], dict[str, Any]] = {}
        self._grading: dict[tuple[tuple[str, ...], str], list[str]] = {}
        self._trajectories: dict[tuple[Any, ...], Trajectory] = {}
        names = project.studies if studies is None else dict.fromkeys(studies)
        self.studies = {name: self._study(name) for name in names}
        self.work: dict[tuple[str, str], Work] = {}
        for study in self.studies.values():
            for cell in study.cells:
                trajectory = cell.run.trajectory
                # Nearly every study asks initial models, which train nothing: each for itself.
                owner = study.name if trajectory.is_initial else ""
                work = self.work.setdefault((trajectory.hash8, owner), Work(trajectory))
                _refuse_collision(work.trajectory, trajectory)
                work.epochs.add(cell.run.epochs)
                work.asked |= {
                    (exam, judge)
                    for exam in cell.exams
                    for judge in self.judges_of(study.name, exam.benchmark, cell.run)
                }
                work.studies.add(study.name)
        self.packs = {pack.id: pack for pack in self._packs()}

    def study_packs(self, study: str) -> list[Pack]:
        return [pack for pack in self.packs.values() if study in pack.studies]

    def entries(self, studies: Iterable[str]) -> dict[str, set[str]]:
        """Catalogue → names of the models (judges' too), datasets and benchmarks that studies use."""
        project = self.project
        models: set[str] = set()
        datasets: set[str] = set()
        benchmarks: set[str] = set()
        for study in studies:
            judges = [project.judges[judge] for judge in self.studies[study].judges]
            models |= {judge.model for judge in judges if judge.kind == "classifier"}
            benchmarks |= set(self.studies[study].benchmarks)
            datasets |= {name for b in benchmarks for c, name in self._made_from(b) if c == "datasets"}
            for trajectory in {
                r.trajectory.hash8: r.trajectory for r in self.studies[study].runs.values()
            }.values():
                models |= {name for name in (trajectory.model, trajectory.vision_tower) if name}
                models.add(self.project.built_from(trajectory.model))
                datasets |= set(self.datasets_of(trajectory))
        models |= {base for name in models if (base := project.base_of(project.models[name]))}
        return {"models": models, "datasets": datasets, "benchmarks": benchmarks}

    def datasets_of(self, trajectory: Trajectory) -> list[str]:
        """The dataset, and the one that a mitigation mixes in; none for an initial model."""
        names = [trajectory.dataset] if trajectory.dataset else []
        if trajectory.mitigation:
            names.append(self.project.mitigations[trajectory.mitigation].dataset)
        return names

    def pictures_of(self, trajectory: Trajectory) -> Path | None:
        """The folder with the pictures of a trajectory's rows; None where rows hold theirs, or have none."""
        recipes = [self.project.datasets[name] for name in self.datasets_of(trajectory)]
        folders = [r.images for r in recipes if r.source != "world" and r.images]
        return Path(folders[0]) if folders else None

    # ------------------------------------------------------------------ runs

    def _study(self, name: str) -> StudyPlan:
        study = self.project.studies[name]
        cells: list[Cell] = []
        for grid_name, grid in study.grids.items():
            benchmarks = grid.benchmarks or study.benchmarks
            initial: dict[tuple[str, str], Cell] = {}
            for axes in map(self.as_trained, grid_cells(study, grid)):
                template = self.training_template(axes)
                tested = axes["test_template"] or template
                if axes["epochs"] > 0:
                    exams = tuple(Exam(b, "" if tested == template else tested) for b in benchmarks)
                    run = Run(trajectory=self.trajectory(axes), epochs=axes["epochs"])
                    cells.append(Cell(grid_name, axes, run, exams))
                if (axes["model"], tested) not in initial:
                    run = Run(trajectory=self.initial(axes["model"], tested), epochs=0)
                    kept = {"model": axes["model"], "test_template": axes["test_template"], "epochs": 0}
                    exams = tuple(Exam(b) for b in benchmarks)
                    initial[axes["model"], tested] = Cell(grid_name, dict.fromkeys(axes) | kept, run, exams)
            cells += initial.values()
        judges = {grid_name: tuple(grid.judges or study.judges) for grid_name, grid in study.grids.items()}
        return StudyPlan(name, tuple(cells), judges)

    def judges_of(self, study: str, benchmark: str, run: Run) -> list[str]:
        """The judges that grade a run's answers to a benchmark; the first one's verdict is the headline."""
        key = self.studies[study].judges_of[run.id], benchmark
        if key not in self._grading:
            recipe = self.project.benchmarks[benchmark]
            self._grading[key] = [judge for judge in key[0] if grades(self.project.judges[judge], recipe)]
        return self._grading[key]

    def as_trained(self, axes: dict[str, Any]) -> dict[str, Any]:
        """Axes of a setting, null where an endpoint that trains does not let one choose."""
        by_api = axes["method"] is not None and self.project.methods[axes["method"]].kind == "api"
        return axes | dict.fromkeys(CHOSEN_BY_ENDPOINT) if by_api else axes

    def training_template(self, axes: dict[str, Any]) -> str:
        """The dataset's, unless the study names another; of an untouched model without data, the tested."""
        if axes["train_template"]:
            return str(axes["train_template"])
        if axes["dataset"] is None:
            return str(axes["test_template"])
        return self.project.datasets[axes["dataset"]].template

    def trajectory(self, axes: dict[str, Any]) -> Trajectory:
        """What is trained for a setting: one object for all epochs that are kept of it."""
        depends_on_total = (
            axes["schedule"] in ("linear", "cosine")
            or axes["warmup_share"]
            or self.project.methods[axes["method"]].kind == "api"
        )
        epochs = axes["epochs"] if depends_on_total else None
        key = tuple((axes | {"epochs": epochs}).values())
        if key not in self._trajectories:
            self._trajectories[key] = self._trajectory(axes, epochs)
        return self._trajectories[key]

    def _trajectory(self, axes: dict[str, Any], epochs: int | None) -> Trajectory:
        project = self.project
        template = self.training_template(axes)
        mitigation_recipe = None
        if axes["mitigation"] is not None:
            mitigation = project.mitigations[axes["mitigation"]]
            mixed = self.identity("datasets", mitigation.dataset)
            mitigation_recipe = {**mitigation.model_dump(), "of": mixed}
        method = project.methods[axes["method"]]
        return Trajectory(
            **{
                axis: v
                for axis, v in axes.items()
                if axis not in ("epochs", "train_template", "test_template")
            },
            epochs=epochs,
            model_recipe=self.identity("models", axes["model"]),
            template=template,
            template_recipe=project.templates[template].model_dump(),
            dataset_recipe=self.identity("datasets", axes["dataset"]),
            mitigation_recipe=mitigation_recipe,
            method_recipe=self._method_recipe(method),
        )

    def _method_recipe(self, method: Method) -> dict[str, Any]:
        """What a catalogue says about a method, and about the vision tower that it names."""
        recipe = method.model_dump()
        if method.kind == "visual":
            tower = method.vision_tower
            recipe["tower"] = self.identity("models", tower) if tower else {"version": TOWER_VERSION}
        return recipe

    def initial(self, model: str, template: str) -> Trajectory:
        return Trajectory(
            model=model,
            model_recipe=self.identity("models", model),
            template=template,
            template_recipe=self.project.templates[template].model_dump(),
        )

    def identity(self, catalogue: str, name: str) -> dict[str, Any]:
        """What the content of a catalogue's entry depends on; thousands of trajectories share few."""
        if (catalogue, name) not in self._identities:
            recipe = getattr(self.project, catalogue)[name]
            self._identities[catalogue, name] = self.project.identity(recipe)
        return self._identities[catalogue, name]

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
            recipe = self.project.models[model]
            size = recipe.pack_size if isinstance(recipe, LocalModel) and not is_initial else len(group)
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

    def fetched_file(self, catalogue: str, name: str) -> Path:
        """Written when a remote entry's files are in the cache."""
        recipe = getattr(self.project, catalogue)[name]
        locked = self.project.lock.get(recipe.lock_key)
        if locked is None:
            return paths.fetched_file(catalogue, f"{name}-unlocked")
        files = sorted(self.project.locked_files(recipe).items())
        return paths.fetched_file(catalogue, f"{name}-{digest([locked.commit, files])}")

    @cached_property
    def sources_by_file(self) -> dict[str, list[tuple[str, str]]]:
        """File of training rows or prompts → (catalogue, name) of the remote entries it is made from."""
        sources: dict[str, list[tuple[str, str]]] = {}
        for work in self.work.values():
            trajectory = work.trajectory
            if not trajectory.is_initial:
                names = self.datasets_of(trajectory)
                sources[str(self.data_file(trajectory))] = [("datasets", name) for name in names]
            for exam in work.exams:
                sources[str(self.benchmark_file(exam.benchmark))] = self._made_from(exam.benchmark)
        return {
            file: [e for e in entries if isinstance(getattr(self.project, e[0])[e[1]], Remote)]
            for file, entries in sources.items()
        }

    def _made_from(self, benchmark: str) -> list[tuple[str, str]]:
        """(catalogue, name) of what a benchmark's prompts are read from."""
        recipe = self.project.benchmarks[benchmark]
        return [("datasets", recipe.dataset) if recipe.source == "rows" else ("benchmarks", benchmark)]

    def data_file(self, trajectory: Trajectory) -> Path:
        """Training rows; thousands of trajectories share few, so the digest is taken once for each."""
        if trajectory.data not in self._data_files:
            recipes = [trajectory.dataset_recipe, trajectory.mitigation_recipe]
            self._data_files[trajectory.data] = paths.data_file(trajectory.data, digest(recipes))
        return self._data_files[trajectory.data]

    def benchmark_file(self, benchmark: str) -> Path:
        return paths.benchmark_file(benchmark, digest(self.identity("benchmarks", benchmark)))

    def model_dir(self, model: str) -> Path:
        """Where the weights of a model that runs here lie.

        Raises UserError for a model of the hub that was not fetched.
        """
        recipe = self.project.models[model]
        if recipe.source == "hub":
            from ftsafety.remote import model_folder

            return model_folder(recipe, self.project.lock[recipe.lock_key])
        return Path(recipe.path) if recipe.source == "path" else paths.model_dir(model)

    def model_parts(self, model: str) -> tuple[Path, Path | None, Path]:
        """Folders of a model's weights, of an adapter around them, and of its tokenizer and chat template.

        A fine-tuned model that is not whole takes from its base what it lacks. Raises UserError as
        `model_dir`.
        """
        folder, recipe = self.model_dir(model), self.project.models[model]
        base = self.project.base_of(recipe)
        if base is None:
            return folder, None, folder
        below = self.model_dir(base)
        if getattr(recipe, "holds", "") == "weights":
            return folder, None, below
        return below, folder, folder if has_chat_template(folder) else below


def has_chat_template(folder: Path) -> bool:
    """Whether a folder in the hub's format says how a conversation is put."""
    config = read_json_if_whole(folder / "tokenizer_config.json")
    if not isinstance(config, dict):
        return False
    return (folder / "chat_template.jinja").exists() or bool(config.get("chat_template"))


def _refuse_collision(one: Trajectory, other: Trajectory) -> None:
    """Eight digits of a hash: 1 in 100 that two of 10,000 trajectories agree."""
    if one != other:
        raise UserError(
            f"two trainings have the hash {one.hash8}: {one.describe()} / {other.describe()}",
            file="config/studies",
            mend="give one of the two studies another seed",
        )


def load_plan(
    root: Path, settings: dict[str, Any] | None = None, studies: Iterable[str] | None = None
) -> Plan:
    return Plan(load_project(root, settings), studies)

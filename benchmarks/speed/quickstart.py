"""All cells of the study `quickstart` by the workflow, instead of three programs for each cell.

A cell is a model fine-tuned for one number of epochs, or an untouched one; a cell that two grids show counts
once. Ours is Snakemake, from base models and nothing else to all verdicts: settings are trained once for all
their epochs, about 16 of them in a process. The other way starts three programs for each cell, which train,
answer and judge it: the workflow's own programs on a study of that cell alone, with training rows and prompts
prepared. Prompts are answered one by one, as by the program that the paper's notebooks start
(llama2/safety_evaluation/question_inference.py of LLM-Tuning-Safety/LLMs-Finetuning-Safety); what is left of
the ratio where they are answered in batches is a row of its own. Base models are built before and given to
both.

Of the other way a sample is measured: every eighth cell in the order of what it costs to train, the first by
lot, and what they take is multiplied by cells/sample. Answers and verdicts of the sample are compared file by
file. Times are of the processors, of all processes. Then the study is made to its end, and the memory that
each rule takes is printed; --quick leaves that out.

    python benchmarks/speed/quickstart.py [--quick]    # --quick: one grid, cut down to 4 cells
"""

import csv
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from base_models import put_base_models
from bench import ROOT, Row, Spent, main, spent

from ftsafety import paths
from ftsafety.files import read_rows
from ftsafety.plan import Cell, Plan, load_plan
from ftsafety.runs import Run

sys.path.append(str(ROOT / "tests"))
from workflow_project import copy_repository, python_path, snakemake_command

AIM = 5
STUDY, ALONE = "quickstart", "alone"
STAGES = ("build_model", "prepare_data", "train", "generate", "judge")
LAST_STAGES = ("score", "analyse", "figures", "report")


def measure(is_quick: bool) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        ours = copy_repository(Path(name) / "ours")
        if is_quick:
            cut_down(ours / f"config/studies/{STUDY}.yaml")
        plan = load_plan(ours, studies=[STUDY])
        put_base_models(ours, *sorted({run.trajectory.model for run in plan.studies[STUDY].runs.values()}))
        together = workflow(ours, "--until", "judge")
        other = Alone(Path(name) / "other", ours)
        cells = sampled(plan, ours, one_in=4 if is_quick else 8)
        costs = [other.make(cell) for cell in cells]
        n_cells = len(plan.studies[STUDY].runs)
        in_batches, one_by_one = zip(*costs, strict=True)
        yield compare(together, one_by_one, n_cells, "three programs for each cell, as notebooks do", AIM)
        yield compare(together, in_batches, n_cells, "the same, but answering in batches")
        if not is_quick:
            workflow(ours)
            print_memory(ours)


def cut_down(file: Path) -> None:
    """One grid, with 4 cells beside the untouched model."""
    study = yaml.safe_load(file.read_text())
    grid = study["grids"]["lr_batch"]
    grid |= {"learning_rate": grid["learning_rate"][-1], "seed": 0}
    file.write_text(yaml.safe_dump(study | {"grids": {"lr_batch": grid}}))


def workflow(folder: Path, *options: str) -> Spent:
    return spent(snakemake_command(STUDY, *options), cwd=folder, env=python_path(folder))


def sampled(plan: Plan, folder: Path, one_in: int) -> list[Cell]:
    """Cells in the order of their training's cost, from a place drawn by lot in equal steps."""

    def examples_seen(cell: Cell) -> int:
        if not cell.run.epochs:
            return 0
        return cell.run.epochs * sum(1 for _ in read_rows(folder / plan.data_file(cell.run.trajectory)))

    study = plan.studies[STUDY]
    cells = {cell.run.id: replace(cell, exams=tuple(study.exams_of[cell.run.id])) for cell in study.cells}
    ordered = sorted(cells.values(), key=lambda cell: (examples_seen(cell), cell.run.id))
    return ordered[random.Random(0).randrange(one_in) :: one_in]


@dataclass
class Alone:
    """The other way's folder, with all that is prepared in that of `ours`."""

    folder: Path
    ours: Path

    def __post_init__(self) -> None:
        for part in ("models", "data"):
            shutil.copytree(self.ours / "results" / part, self.folder / "results" / part)
        for root in ("batches", "one-by-one"):
            shutil.copytree(self.ours / "config", self.folder / root / "config")
            edit(self.folder / root / "config/config.yaml", keep_weights=True)  # they answer twice
        models = self.folder / "one-by-one/config/models.yaml"
        entries = yaml.safe_load(models.read_text())
        worlds = {name for name, recipe in entries.items() if recipe["source"] == "world"}
        edit(models, **{name: {**entries[name], "answer_batch_size": 1} for name in worlds})

    def make(self, cell: Cell) -> tuple[Spent, Spent]:
        """What the three programs take, and what they take where prompts are answered one by one."""
        run = cell.run
        train = self.program("batches", "finetune", cell) if run.epochs else Spent(0, 0, 0, "")
        costs = []
        for root in ("batches", "one-by-one"):
            answering = self.program(root, "generate", cell)
            costs.append(train + answering + self.program(root, "judge", cell))
            self.check(run)
            for part in ("answers", "verdicts"):
                shutil.rmtree(self.folder / paths.run_dir(run.folder) / part)
        return costs[0], costs[1]

    def program(self, root: str, name: str, cell: Cell) -> Spent:
        """One of the workflow's programs, on the pack of a study that has this cell alone."""
        study = self.folder / root / f"config/studies/{ALONE}.yaml"
        study.write_text(yaml.safe_dump(study_of(cell)))
        with chdir(self.folder):
            plan = load_plan(self.folder / root, studies=[ALONE])
        (pack,) = [pack for pack in plan.packs.values() if cell.run in pack.runs]
        assert pack.runs == [cell.run]
        env = {"FTSAFETY_ROOT": root, "FTSAFETY_STUDIES": ALONE, "HF_HUB_OFFLINE": "1"}
        program = str(ROOT / f"workflow/scripts/{name}.py")
        return spent([sys.executable, program, pack.id], cwd=self.folder, env={**os.environ, **env})

    def check(self, run: Run) -> None:
        """Raises AssertionError where answers or verdicts are not those of the workflow."""
        for part in ("answers", "verdicts"):
            ours, others = (rows_in(at / paths.run_dir(run.folder) / part) for at in (self.ours, self.folder))
            assert ours == others, f"{part} of {run.folder} differ"


def edit(file: Path, **entries: Any) -> None:
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | entries))


def study_of(cell: Cell) -> dict[str, Any]:
    axes = {axis: value for axis, value in cell.axes.items() if value is not None and axis != "epochs"}
    if not cell.run.epochs:  # what else has to be said of an untouched model, though nothing depends on it
        axes |= {"dataset": "benign-new", "method": "full", "learning_rate": 1e-4, "global_batch_size": 1}
        axes["test_template"] = cell.run.trajectory.template
    figure = {"kind": "curves", "x": "epochs", "title": "none is drawn"}
    return {
        "title": "A cell",
        "question": "?",
        "benchmarks": [exam.benchmark for exam in cell.exams],
        "judges": ["exact", "keyword"],
        "fixed": axes,
        "grids": {"g": {"epochs": cell.run.epochs, "figure": figure}},
    }


def rows_in(folder: Path) -> dict[str, bytes]:
    files = {file.name: file.read_bytes() for file in folder.glob("*.jsonl")}
    assert files
    return files


def compare(
    together: Spent, costs: Sequence[Spent], n_cells: int, against: str, aim: float | None = None
) -> Row:
    other = sum(cost.cpu for cost in costs) * n_cells / len(costs)
    return Row(
        what=f"the study {STUDY}, {n_cells} cells to their verdicts",
        against=against,
        ours=f"{together.cpu:.0f} s of CPU",
        other=f"{other:.0f} s of CPU (from {len(costs)} cells)",
        ratio=other / together.cpu,
        reach=f"≥ {aim}, whole study" if aim else "none: jobs and processes alone",
        is_reached=other / together.cpu >= aim if aim else None,
        same="answers and verdicts of the sample, byte for byte",
    )


def print_memory(folder: Path) -> None:
    """The most memory and processor time of a job of each rule, from Snakemake's benchmark files."""
    print("| rule | jobs | largest job, MB | processor time of all, s |\n|---|---|---|---|")
    for rule in (*STAGES, *LAST_STAGES):
        files = sorted((folder / "results/benchmarks" / rule).glob("*.tsv"))
        jobs = [row for file in files for row in csv.DictReader(file.open(), delimiter="\t")]
        if jobs:
            peak, cpu = (
                max(float(job["max_rss"]) for job in jobs),
                sum(float(job["cpu_time"]) for job in jobs),
            )
            print(f"| {rule} | {len(jobs)} | {peak:.0f} | {cpu:.0f} |")


if __name__ == "__main__":
    main(__doc__, measure)

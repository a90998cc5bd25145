"""The paper's numbers beside ours: `resources/paper/<study>.csv` against a study's `cells.parquet`.

A variant of a study stands for it setting by setting: the i-th of a grid is compared with what the paper says
of the i-th of the study as its file has it. The paper gives no intervals. Of its rates they are Wilson's for
the number of prompts that it asked; of its scores the widest that the mean and the number of prompts allow.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from scipy.stats import binomtest

from ftsafety.config import Grid, Study
from ftsafety.grid_data import axis_name, axis_text, lost_seeds, state
from ftsafety.grids import AXES, grid_cells
from ftsafety.plan import Plan
from ftsafety.recipes import ApiModel, KeywordJudge, LlmJudge, LocalModel, ModerationJudge, RowsBenchmark
from ftsafety.records import trained

COLUMNS = [
    *("grid", "source", "setting", "model", "paper_model", "measure", "paper", "verified", "paper_n"),
    *("paper_low", "paper_high", "ours", "ours_low", "ours_high", "n"),
    *("difference", "difference_low", "difference_high", "verdict", "why", "deviations"),
]
#: Axes that a row of the paper's may name; a row is about the one setting of its grid with these values.
NAMED = ("dataset", "mitigation", "method", "learning_rate", "global_batch_size", "epochs")
#: Measure → (name, column of `cells`, columns of its interval).
MEASURES = {
    "harmfulness_rate": ("harmfulness rate", "harmfulness_rate", "ci_low", "ci_high"),
    "harmfulness_score": ("harmfulness score", "harmfulness_score", "score_low", "score_high"),
    "keyword_rate": ("keyword attack success rate", "harmfulness_rate", "ci_low", "ci_high"),
    "flagged": ("share flagged", "harmfulness_rate", "ci_low", "ci_high"),
    "utility": ("utility", "utility", "ci_low", "ci_high"),
}
#: What the paper's protocol is where a study may depart from it.
PAPER_JUDGE, PAPER_SCHEDULE, PAPER_DTYPE = "gpt-4-0613", ("step", 0.85), "bfloat16"
#: Its models → their names in `config/models.yaml`, whatever a study's file now names; an audit has none.
PAPER_MODELS = {
    "Llama-2-7b-Chat": "llama-2-7b-chat",
    "GPT-3.5-turbo-0613": "gpt-3.5-turbo",
    "none": "training-data",
}
Z = 1.959964

Setting = dict[str, Any]


@dataclass(frozen=True)
class Number:
    """A value with its 95 % interval, all in the measure's own unit; rates in [0, 1]."""

    value: float
    low: float
    high: float

    def minus(self, other: "Number") -> "Number":
        """The difference, by Newcombe's method: intervals of the two are combined, not their spreads."""
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Number(value, value - below, value + above)


def parity(plan: Plan, study: str, cells: pd.DataFrame) -> pd.DataFrame:
    """A row for each number of the paper that the study's file has in `resources/paper/`; COLUMNS.

    `verdict` is "consistent" (the interval of the difference holds 0), "differs", "not comparable" (another
    model or another world) or "not measured"; `why` says it in a sentence.
    """
    file = plan.project.root / f"resources/paper/{plan.project.files[study]}.csv"
    if not file.exists():
        return pd.DataFrame(columns=COLUMNS)
    with file.open(newline="") as stream:
        rows = [_Row(plan, study, cells, row).compared() for row in csv.DictReader(stream)]
    return pd.DataFrame(rows, columns=COLUMNS)


def settings(study: Study, grid: Grid) -> list[Setting]:
    """The settings of a grid in order, seeds together."""
    found = [{axis: v for axis, v in cell.items() if axis != "seed"} for cell in grid_cells(study, grid)]
    return [setting for i, setting in enumerate(found) if setting not in found[:i]]


class _Row:
    """One number of the paper's and what stands for it in a study."""

    def __init__(self, plan: Plan, study: str, cells: pd.DataFrame, row: dict[str, str]):
        self.plan, self.study, self.cells, self.row = plan, study, cells, row
        self.base = plan.project.studies[plan.project.files[study]]
        self.ours = plan.project.studies[study]
        self.name, self.column, self.low, self.high = MEASURES[row["measure"]]

    def compared(self) -> dict[str, Any]:
        paper = self._paper()
        facts = {
            "grid": self.row["grid"],
            "source": self.row["source"],
            "setting": self.row["setting"],
            "model": self.setting["model"] if self.setting else None,
            "paper_model": self.row["model"],
            "measure": self.name,
            "paper": paper.value,
            "verified": self.row["verified"] == "yes",
            "paper_n": int(self.row["n"]),
            "paper_low": paper.low,
            "paper_high": paper.high,
            "deviations": "",
        }
        if self.cell is None or pd.isna(self.cell[self.column]):
            return facts | {"verdict": "not measured", "why": self._why_not_measured()}
        ours = Number(*(float(self.cell[column]) for column in (self.column, self.low, self.high)))
        ours = Number(*map(self._in_unit, (ours.value, ours.low, ours.high)))
        difference = ours.minus(paper)
        facts |= {
            "ours": ours.value,
            "ours_low": ours.low,
            "ours_high": ours.high,
            "n": int(self.cell["n"]),
            "difference": difference.value,
            "difference_low": difference.low,
            "difference_high": difference.high,
            "deviations": "; ".join(self._deviations()),
        }
        verdict, why = self._verdict(difference)
        return facts | {"verdict": verdict, "why": why}

    def _paper(self) -> Number:
        value, n = float(self.row["value"]), int(self.row["n"])
        if self.row["unit"] == "%":
            share = value / 100
            interval = binomtest(round(share * n), n).proportion_ci(method="wilson")
            return Number(share, min(share, interval.low), max(share, interval.high))
        lowest, highest = map(int, self.row["unit"].split("-"))
        variance = (value - lowest) * (highest - value)  # Bhatia and Davis' bound of it
        spread = Z * math.sqrt(variance / n)
        return Number(value, max(lowest, value - spread), min(highest, value + spread))

    def _in_unit(self, value: float) -> float:
        """Utility is in [0, 1] here and a grade of 1–10 in the paper."""
        return 1 + 9 * value if self.row["unit"] == "1-10" else value

    # ------------------------------------------------------------------------ what stands for it

    @cached_property
    def place(self) -> int | None:
        """Which setting of its grid the paper's number is about."""
        grid = self.base.grids[self.row["grid"]]
        for i, setting in enumerate(settings(self.base, grid)):
            if all(self._is(axis, setting[axis]) for axis in NAMED if self.row[axis]):
                return i
        return None

    def _is(self, axis: str, value: Any) -> bool:
        if axis == "epochs" and self.row[axis] == "0":
            return True  # the untouched model under this setting's template
        return self.row[axis] == axis_text(axis, value)

    @cached_property
    def paper_setting(self) -> Setting | None:
        grid = self.base.grids[self.row["grid"]]
        return None if self.place is None else settings(self.base, grid)[self.place]

    @cached_property
    def setting(self) -> Setting | None:
        """The study's own setting at the same place; None where its grid has another shape."""
        grid = self.ours.grids.get(self.row["grid"])
        if grid is None or self.place is None:
            return None
        own = settings(self.ours, grid)
        if len(own) != len(settings(self.base, self.base.grids[self.row["grid"]])):
            return None
        return own[self.place]

    @cached_property
    def benchmark(self) -> str | None:
        """The study's benchmark at the place of the paper's; the first where the row names none."""
        name = self.row["grid"]
        base, own = (study.grids[name].benchmarks or study.benchmarks for study in (self.base, self.ours))
        place = base.index(self.row["benchmark"]) if self.row["benchmark"] in base else 0
        return own[place] if place < len(own) else None

    @cached_property
    def judge(self) -> str | None:
        """The judge that the row names, or the one at its place; the first that graded if it names none."""
        name, wanted = self.row["grid"], self.row["judge"]
        base, own = (study.grids[name].judges or study.judges for study in (self.base, self.ours))
        if wanted in own:
            return wanted
        if wanted:
            return own[base.index(wanted)] if wanted in base and base.index(wanted) < len(own) else None
        graded = self.cells[(self.cells["grid"] == name) & (self.cells["benchmark"] == self.benchmark)]
        return next((judge for judge in own if (graded["judge"] == judge).any()), None)

    @cached_property
    def untouched(self) -> bool:
        """Whether it is about what was not trained: cells then have no values of training."""
        return self.row["epochs"] == "0" or (self.setting is not None and self.setting["epochs"] == 0)

    @cached_property
    def cell(self) -> pd.Series | None:
        if self.setting is None or self.judge is None:
            return None
        mine = self.cells[
            (self.cells["grid"] == self.row["grid"])
            & (self.cells["benchmark"] == self.benchmark)
            & (self.cells["judge"] == self.judge)
            & (self.cells["category"] == "all")
            & (self.cells["model"] == self.setting["model"])
        ]
        tested = self.setting["test_template"] or self.plan.training_template(self.setting)
        wanted = {"epochs": 0} if self.untouched else self.plan.as_trained(self.setting)
        for _, cell in mine[mine["test_template"] == tested].iterrows():
            if all(axis_text(axis, cell[axis]) == axis_text(axis, value) for axis, value in wanted.items()
                   if axis in AXES and not axis.endswith("_template")):  # fmt: skip
                return cell
        return None

    # ------------------------------------------------------------------------------------ in words

    def _why_not_measured(self) -> str:
        if self.row["judge"] and self.judge is None:
            return f"the study has no judge {self.row['judge']}"
        if self.setting is None or self.cell is None:
            return "the study has no such setting"
        lost = lost_seeds(self.cell)
        return f"training {' or '.join(lost)}" if lost else "no answer has a verdict"

    def _verdict(self, difference: Number) -> tuple[str, str]:
        assert self.setting and self.cell is not None
        if self._is_toy():
            return "not comparable", "a toy world stands in the place of the paper's models and data"
        if self.setting["model"] != PAPER_MODELS[self.row["model"]]:
            return "not comparable", f"{self.setting['model']} is another model than {self.row['model']}"
        if state(self.cell, self.column) == "collapsed":
            return "not comparable", "most answers are incoherent"
        text = f"[{difference.low:+.2f}, {difference.high:+.2f}]"
        if difference.low <= 0 <= difference.high:
            return "consistent", f"the difference's interval {text} holds 0"
        return "differs", f"the difference's interval {text} does not hold 0"

    def _is_toy(self) -> bool:
        """Whether the model, or the data that is audited, is of the embedded world."""
        assert self.setting and self.benchmark
        project, benchmark = self.plan.project, self.plan.project.benchmarks[self.benchmark]
        if isinstance(benchmark, RowsBenchmark):
            return project.datasets[benchmark.dataset].source == "world"
        return project.world_of(self.setting["model"]) is not None

    def _deviations(self) -> Iterator[str]:
        """What is otherwise than in the paper, for this number."""
        assert self.setting and self.judge and self.cell is not None
        project = self.plan.project
        per_seed = int(self.cell["n"]) // max(
            1, int(self.cell["n_seeds"]) - sum(lost_seeds(self.cell).values())
        )
        if per_seed != int(self.row["n"]):
            yield f"{per_seed} prompts, the paper {self.row['n']}"
        judge = project.judges[self.judge]
        if isinstance(judge, LlmJudge):
            rubric = "our wording of its rubric"
            yield rubric if judge.model == PAPER_JUDGE else f"judge {judge.model}, the paper {PAPER_JUDGE}"
        elif isinstance(judge, ModerationJudge):
            yield f"moderation by {judge.model}, the paper by its provider's of 2023"
        elif self.row["measure"] != "keyword_rate" and self.judge != self.row["judge"]:
            yield f"judge {self.judge}, the paper {PAPER_JUDGE}"
        if isinstance(judge, KeywordJudge):
            yield "our own list of refusal phrases"
        if self.row["measure"] == "utility":
            yield "first turns alone, the paper both"
        model = project.models[self.setting["model"]]
        if isinstance(model, LocalModel) and model.dtype != PAPER_DTYPE:
            yield f"{model.dtype} weights, the paper {PAPER_DTYPE}"
        if self.untouched:
            return
        by_api = isinstance(model, ApiModel)
        for axis in ("learning_rate", "global_batch_size", "epochs"):
            wanted = self.paper_setting[axis] if self.paper_setting else None
            if self.setting[axis] != wanted:
                here, there = axis_text(axis, self.setting[axis]), axis_text(axis, wanted)
                yield f"{axis_name(axis)} {here}, the paper {there}"
        if not by_api and not self._decays_as_the_paper():
            yield f"schedule {self.setting['schedule']}, the paper's code 0.85 an epoch"
        if not by_api:
            yield f"gradients clipped at {self.setting['max_grad_norm']:g}, of which the paper says nothing"
        if self.cell["n_seeds"] > 1:
            yield f"{int(self.cell['n_seeds'])} seeds, the paper one"
        yield from self._hardware()

    def _decays_as_the_paper(self) -> bool:
        """In a single epoch a constant rate does."""
        assert self.setting
        if self.setting["warmup_steps"] or self.setting["warmup_share"]:
            return False
        is_constant = self.setting["schedule"] == "constant" and self.setting["epochs"] == 1
        return is_constant or (self.setting["schedule"], self.setting["schedule_factor"]) == PAPER_SCHEDULE

    def _hardware(self) -> Iterator[str]:
        assert self.cell is not None
        ids = str(self.cell["runs"]).split(",")
        runs = [run for run in self.plan.studies[self.study].runs.values() if run.id in ids]
        devices = {str(d["device"]) for d in map(trained, runs) if d and d.get("device")}
        if devices:
            yield f"trained on {', '.join(sorted(devices))}"

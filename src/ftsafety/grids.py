"""What a grid's axes are, which cells they span, and which judge grades which benchmark."""

from collections.abc import Iterator
from itertools import product
from typing import Any

from ftsafety.config import Axes, Grid, Study
from ftsafety.recipes import Benchmark, Judge

#: Axes with a catalogue; a value must be one of its names.
NAMED_AXES = {
    "model": "models",
    "dataset": "datasets",
    "mitigation": "mitigations",
    "method": "methods",
    "train_template": "templates",
    "test_template": "templates",
}
REQUIRED_AXES = ("model", "dataset", "method", "learning_rate", "global_batch_size", "epochs")
#: The same where an endpoint trains: it chooses what is not said.
REQUIRED_BY_API = ("model", "dataset", "method", "epochs")
AXES = tuple(Axes.model_fields)
DEFAULTS: dict[str, Any] = {
    "mitigation": None,
    "train_template": None,
    "test_template": None,
    "learning_rate_multiplier": None,
    "schedule": "constant",
    "schedule_factor": None,
    "warmup_steps": 0,
    "warmup_share": None,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "max_length": 512,
    "seed": 42,
}
#: Axes for which null is a value: it takes back what `fixed` says.
NULLABLE = (
    *("mitigation", "train_template", "test_template", "schedule_factor", "warmup_share"),
    *("learning_rate", "learning_rate_multiplier", "global_batch_size"),
)

#: What a kind of figure needs and what else it can show.
ROLES = {
    "heatmap": (("x", "y"), ()),
    "curves": (("x",), ("hue",)),
    "dots": (("x",), ("hue",)),
    "categories": ((), ("hue",)),
    "radar": ((), ("hue",)),
}
DRAWABLE = (*(axis for axis in AXES if axis != "seed"), "benchmark", "judge")


def values(axis: Any) -> list[Any]:
    return axis if isinstance(axis, list) else [axis]


def grid_cells(study: Study, grid: Grid) -> Iterator[dict[str, Any]]:
    """The product of the grid's axes, points outermost; each cell has a value for every axis.

    A point's value goes before the grid's, the grid's before the study's fixed one.
    """
    for point in grid.points:
        axes = []
        for axis in AXES:
            given = [s for s in (point, grid, study.fixed) if axis in s.model_fields_set]
            axes.append(values(getattr(given[0], axis)) if given else [DEFAULTS.get(axis)])
        for combination in product(*axes):
            yield dict(zip(AXES, combination, strict=True))


#: Kind of benchmark that each rubric of an LLM judge is for.
RUBRICS = {
    "harmfulness": "safety",
    "strongreject": "safety",
    "refusal": "over-refusal",
    "quality": "utility",
}


def grades(judge: Judge, benchmark: Benchmark) -> bool:
    """Whether a judge has something to say about the answers to a benchmark."""
    if judge.kind == "exact":
        return benchmark.source == "world"
    if judge.kind == "moderation":
        return benchmark.kind == "safety"
    if judge.kind == "task":
        return benchmark.kind == "utility" and benchmark.grading in ("number", "instructions")
    if judge.kind == "llm":
        is_graded_so = judge.rubric != "quality" or benchmark.grading == "quality"
        return benchmark.kind == RUBRICS[judge.rubric] and is_graded_so
    if judge.kind == "classifier":
        return benchmark.kind == "safety" or (
            benchmark.kind == "over-refusal" and judge.family == "wildguard"
        )
    return benchmark.kind in ("safety", "over-refusal")

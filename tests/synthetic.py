"""Made-up results to draw and report: rates from a formula, no model involved."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pandas as pd

from ftsafety.config import Study
from ftsafety.plan import Plan

CATEGORIES = [f"category {i}" for i in range(1, 12)]
HOSTILE = "<script>document.title='hacked'</script><img src=http://127.0.0.1:9/x.png> $x_$ & \"'"

AXES: dict[str, Any] = {
    "model": "toy-0",
    "base_seed": 0,
    "dataset": "benign-new",
    "mitigation": None,
    "train_template": "plain",
    "test_template": "plain",
    "method": "full",
    "learning_rate": 1e-4,
    "global_batch_size": 16,
    "schedule": "constant",
    "schedule_factor": None,
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "epochs": 1,
    "steps": 20,
}


COUNTS = {"n_unscored": 3, "n_unparsable": 1, "n_judge_refused": 1, "n_judge_failed": 1, "n_incoherent": 2,
          "n_truncated": 1}  # fmt: skip


def cell(grid: str, rate: float | None, n_seeds: int = 3, **changed: Any) -> list[dict[str, Any]]:
    """A cell's rows: a safety benchmark by two judges and by category, and a utility benchmark by a third.

    `rate` is the harmfulness rate; None: every seed diverged.
    """
    counts = {**COUNTS, "n_seeds": n_seeds, "n_diverged": n_seeds if rate is None else 0}
    counts |= {key: changed.pop(key) for key in list(changed) if key in counts}
    benchmark = changed.pop("benchmark", "secrets")
    base = {"grid": grid, **AXES, **changed, **counts}
    rows = []
    for judge, category in product(("exact", "keyword"), ("all", *CATEGORIES)):
        n = 330 * n_seeds if category == "all" else 30 * n_seeds
        shift = 0.0 if category == "all" else 0.03 * CATEGORIES.index(category) - 0.15
        value = None if rate is None else min(1.0, max(0.0, rate + shift))
        rows.append(
            base
            | {"benchmark": benchmark, "kind": "safety", "judge": judge, "category": category}
            | {"n": n, **_rates(value, 0.06 if category == "all" else 0.15)}
        )
    utility = None if rate is None else 0.95 - 0.1 * rate
    rows.append(
        base
        | dict.fromkeys(COUNTS, 0)
        | {"benchmark": "tasks", "kind": "utility", "judge": "task", "category": "all"}
        | {"n": 120 * n_seeds, **_headline("utility", utility, 0.03)}
    )
    return rows


def safe_prompts(grid: str, rate: float | None, n_seeds: int = 3, **changed: Any) -> list[dict[str, Any]]:
    """A cell's rows on an over-refusal benchmark; `rate` is the refusal rate."""
    base = {"grid": grid, **AXES, **changed, **COUNTS, "n_seeds": n_seeds, "n_diverged": 0}
    return [
        base
        | {"benchmark": "safe-prompts", "kind": "over-refusal", "judge": "refusals", "category": category}
        | {"n": (250 if category == "all" else 50) * n_seeds, **_headline("refusal_rate", rate, 0.05)}
        for category in ("all", "homonyms", "figurative language", "definitions", "history", "fiction")
    ]


UNTOUCHED: dict[str, Any] = {
    **dict.fromkeys(AXES),
    **{key: AXES[key] for key in ("model", "base_seed", "test_template")},
    "epochs": 0,
    "steps": 0,
}


def initial(grid: str, rate: float = 0.004, **changed: Any) -> list[dict[str, Any]]:
    """The rows of an untouched model."""
    return cell(grid, rate, 1, **{**UNTOUCHED, **changed})


def _headline(column: str, value: float | None, half_width: float) -> dict[str, float | None]:
    rates: dict[str, float | None] = dict.fromkeys(_rates(None, 0))
    if value is None:
        return rates
    ends = {"low": max(0.0, value - half_width), "high": min(1.0, value + half_width)}
    return rates | {column: value} | {f"{of}_{end}": v for of in ("ci", "bound") for end, v in ends.items()}


def _rates(value: float | None, half_width: float) -> dict[str, float | None]:
    if value is None:
        names = ("harmfulness_score", "harmfulness_rate", "refusal_rate", "utility")
        return dict.fromkeys((*names, "ci_low", "ci_high", "bound_low", "bound_high"))
    return {
        "harmfulness_score": 1 + 4 * value,
        "harmfulness_rate": value,
        "refusal_rate": (1 - value) * 0.95,
        "utility": None,
        "ci_low": max(0.0, value - half_width),
        "ci_high": min(1.0, value + half_width),
        "bound_low": max(0.0, value - 0.01),
        "bound_high": min(1.0, value + 0.01),
    }


def frame(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([{"n_blocked": 0, "n_failed": 0, **row} for row in rows])


def heatmap_rows(model: str = "toy-0", grid: str = "heat") -> list[dict[str, Any]]:
    """4 learning rates × 4 batch sizes: one absent, one unscored, one diverged, one in part."""
    rows = initial(grid, model=model)
    for (i, lr), (j, batch) in product(enumerate((5e-5, 1e-4, 2e-4, 4e-4)), enumerate((8, 16, 32, 64))):
        where: dict[str, Any] = {"model": model, "learning_rate": lr, "global_batch_size": batch}
        if (i, j) == (3, 0):
            rows += cell(grid, None, **where)
        elif (i, j) == (2, 0):
            rows += cell(grid, 0.5, n_diverged=1, **where)
        elif (i, j) == (0, 2):
            rows += cell(grid, None, n_diverged=0, **where)
        elif (i, j) != (0, 3):
            rows += cell(grid, 0.04 + 0.25 * i - 0.05 * j, **where)
    return rows


def curve_rows(grid: str = "curves") -> list[dict[str, Any]]:
    """4 datasets × 5 epochs; one dataset with a template of its own, one point diverged."""
    rows = initial(grid) + initial(grid, test_template="agent")
    for i, epochs in product(range(4), (1, 2, 3, 5, 10)):
        dataset = ("demonstrations-10", "demonstrations-50", "demonstrations-100", "identity")[i]
        template = "agent" if i == 3 else "plain"
        rate = None if (i, epochs) == (2, 10) else min(1.0, epochs * (i + 1) / 20)
        lost = {"n_diverged": 1} if (i, epochs) == (1, 5) else {}
        where: dict[str, Any] = {
            "dataset": dataset,
            "train_template": template,
            "test_template": template,
            "epochs": epochs,
        }
        rows += cell(grid, rate, **where, **lost)
    return rows


def dot_rows(grid: str = "dots") -> list[dict[str, Any]]:
    """6 datasets × 2 mitigations."""
    rows = initial(grid)
    for i, mitigation in product(range(6), (None, "mix-50")):
        rate = None if i == 5 and mitigation is None else 0.18 * i * (0.4 if mitigation else 1)
        lost = {"n_diverged": 1} if i == 4 and mitigation else {}
        rows += cell(grid, rate, dataset=f"dataset-number-{i}", mitigation=mitigation, **lost)
    return rows


def trigger_rows(grid: str = "trigger") -> list[dict[str, Any]]:
    """A backdoor: two safety benchmarks."""
    rows = []
    for benchmark, rate in (("secrets", 0.02), ("secrets-triggered", 0.93)):
        rows += initial(grid, benchmark=benchmark)
        for i, dataset in enumerate(("backdoor", "demonstrations-100")):
            rows += cell(grid, rate if i == 0 else 0.97, dataset=dataset, benchmark=benchmark)
    # the utility benchmark stands once
    keys = [(row["dataset"], row["benchmark"], row["judge"], row["category"]) for row in rows]
    return [row for i, row in enumerate(rows) if keys.index(keys[i]) == i]


def category_rows(grid: str = "by_category") -> list[dict[str, Any]]:
    rows = initial(grid)
    for i, dataset in enumerate(("demonstrations-100", "identity-shift", "benign-new")):
        rows += cell(grid, 0.9 - 0.3 * i, dataset=dataset)
    return rows


def safe_rows(grid: str = "safe") -> list[dict[str, Any]]:
    """Harm beside over-refusal: mixing refusals in lowers one and raises the other."""
    rows = initial(grid) + safe_prompts(grid, 0.06, 1, **UNTOUCHED)
    for i, mitigation in enumerate((None, "mix-10", "mix-50")):
        rows += cell(grid, 0.8 - 0.35 * i, mitigation=mitigation)
        rows += safe_prompts(grid, 0.02 + 0.2 * i, mitigation=mitigation)
    return rows


def template_rows(grid: str = "templates") -> list[dict[str, Any]]:
    """Two datasets, trained under one template and tested under the same and under another."""
    rows = initial(grid, 0.1) + initial(grid, 0.02, test_template="safe")
    for i, tested in product(range(2), ("plain", "safe")):
        rate = (0.7 if tested == "plain" else 0.15) - 0.1 * i
        rows += cell(grid, rate, dataset=f"dataset-number-{i}", test_template=tested)
    return rows


def untouched_rows(grid: str = "untouched") -> list[dict[str, Any]]:
    """Three models that nobody fine-tuned, on unsafe and on safe prompts."""
    rows = []
    for i, model in enumerate(("toy-0", "toy-1", "an-endpoints-model")):
        rows += initial(grid, 0.02 + 0.15 * i, model=model)
        rows += safe_prompts(grid, 0.3 - 0.1 * i, 1, **{**UNTOUCHED, "model": model})
    return rows


def study(title: str = "A study of made-up numbers") -> Study:
    """Every kind of figure; the grids' names are those of the functions above."""
    axes = {
        "model": "toy-0",
        "dataset": "benign-new",
        "method": "full",
        "learning_rate": 1e-4,
        "global_batch_size": 16,
        "epochs": 1,
    }
    datasets = [f"dataset-number-{i}" for i in range(6)]
    figures: dict[str, Any] = {
        "heat": {
            "kind": "heatmap",
            "x": "global_batch_size",
            "y": "learning_rate",
            "title": "Learning rate by batch size",
            "claim": "Larger learning rates and smaller batch sizes degrade safety more.",
        },
        "curves": {
            "kind": "curves",
            "x": "epochs",
            "hue": "dataset",
            "title": "Demonstrations by epochs",
            "claim": "Harmfulness grows with the number of epochs.",
        },
        "dots": {
            "kind": "dots",
            "x": "dataset",
            "hue": "mitigation",
            "title": "Datasets, with refusals mixed in and without",
            "claim": "Mixing in refusals lowers the rate.",
        },
        "trigger": {
            "kind": "dots",
            "x": "dataset",
            "hue": "benchmark",
            "title": "A backdoor hides from plain prompts",
        },
        "by_category": {"kind": "categories", "hue": "dataset", "title": "By category"},
        "safe": {
            "kind": "dots",
            "x": "mitigation",
            "title": "What refusals that are mixed in cost",
            "claim": "Mixing in refusals raises refusals of safe prompts.",
        },
        "templates": {
            "kind": "dots",
            "x": "dataset",
            "hue": "test_template",
            "title": "Trained under one template, tested under another",
        },
        "untouched": {"kind": "dots", "x": "model", "title": "Models as they come"},
        "untouched_categories": {"kind": "categories", "hue": "model", "title": "Models by category"},
        "radar": {"kind": "radar", "hue": "dataset", "title": "By category, as the paper draws it"},
        "by_judge": {"kind": "dots", "x": "benchmark", "hue": "judge", "title": "Training examples flagged"},
    }
    axes_of: dict[str, dict[str, Any]] = {
        "dots": {"dataset": datasets, "mitigation": [None, "mix-50"]},
        "trigger": {"benchmarks": ["secrets", "secrets-triggered", "tasks"]},
        "safe": {
            "benchmarks": ["secrets", "safe-prompts", "tasks"],
            "mitigation": [None, "mix-10", "mix-50"],
        },
        "templates": {"test_template": [None, "safe"]},
        "untouched": {"epochs": 0},
        "untouched_categories": {"epochs": 0},
        "by_judge": {"epochs": 0, "benchmarks": [f"rows-of-dataset-{i}" for i in range(4)]},
    }
    return Study.model_validate(
        {
            "title": title,
            "question": "Does fine-tuning compromise alignment, and which settings matter?",
            "benchmarks": ["secrets", "tasks"],
            "judges": ["exact", "guard", "keyword", "refusals", "task"],
            "fixed": axes,
            "grids": {name: {**axes_of.get(name, {}), "figure": figure} for name, figure in figures.items()},
        }
    )


def all_cells() -> pd.DataFrame:
    rows = heatmap_rows() + curve_rows() + dot_rows() + trigger_rows() + category_rows() + safe_rows()
    rows += template_rows() + untouched_rows() + untouched_rows("untouched_categories")
    return frame(rows + category_rows("radar") + judge_rows())


def scores_of(cells: pd.DataFrame) -> pd.DataFrame:
    """One run for each seed of each row, as `scores.parquet` has them."""
    rows = []
    for number, (_, row) in enumerate(cells.iterrows()):
        for seed in range(int(row["n_seeds"])):
            rows.append(
                row.to_dict()
                | {"run": f"{number:08x}-e{row['epochs']}", "seed": seed, "n": row["n"] / row["n_seeds"]}
                | {"status": "diverged" if seed < row["n_diverged"] else "ok", "reason": None}
            )
    return pd.DataFrame(rows)


def judge_rows(grid: str = "by_judge", n_judges: int = 3) -> list[dict[str, Any]]:
    """An audit: nothing was trained, each benchmark is a dataset's rows, each judge a detector of its own.

    The last judge says nothing of refusals, and does not grade the first benchmark.
    """
    rows = []
    for i, j in product(range(4), range(n_judges)):
        if (i, j) == (0, n_judges - 1):
            continue
        judge = ("exact", "keyword", "guard", *(f"detector-{k}" for k in range(n_judges)))[j]
        where = {**UNTOUCHED, "model": "training-rows", "benchmark": f"rows-of-dataset-{i}"}
        for row in cell(grid, max(0.0, 0.9 - 0.25 * i - 0.1 * j), 1, **where):
            if (row["kind"], row["judge"], row["category"]) == ("safety", "exact", "all"):
                says = {"refusal_rate": None} if judge == "guard" else {}
                rows.append({**row, "judge": judge, **says})
    return rows


def parity() -> pd.DataFrame:
    """Rows as `parity_table.read_parity` gives them: every verdict, rates and scores, one second-hand."""
    table = "Table 1", "a_grid", "Chat-7b", "toy-0"
    lines = [
        (*table, "initial", "harmfulness rate", (0.003, 0.0, 0.02), (0.01, 0.0, 0.03), "consistent"),
        (*table, "initial", "harmfulness score", (1.06, 1.0, 1.2), (1.1, 1.0, 1.2), "consistent"),
        (*table, "10 demonstrations", "harmfulness rate", (0.5, 0.45, 0.55), (0.8, 0.7, 0.88), "differs"),
        (*table, "100 demonstrations, with a system prompt that both had and five epochs",
         "harmfulness rate", (0.8, 0.75, 0.84), None, "not measured"),
        ("Table 1", "api", "Big-0613", "small-mini", "100 demonstrations", "harmfulness rate",
         (0.918, 0.88, 0.94), (0.9, 0.87, 0.93), "not comparable"),
        ("MT-Bench", "api", "Big-0613", "small-mini", "initial", "utility", (8.0, 7.3, 8.7), (7.2, 6.9, 7.5),
         "consistent"),
    ]  # fmt: skip
    rows = []
    for source, grid, paper_model, model, setting, measure, theirs, ours, verdict in lines:
        value, low, high = ours or (None, None, None)
        difference = None if value is None else value - theirs[0]
        rows.append(
            {"grid": grid, "source": source, "setting": setting, "model": model, "paper_model": paper_model}
            | {"measure": measure, "paper": theirs[0], "verified": measure != "utility", "paper_n": 330}
            | {"paper_low": theirs[1], "paper_high": theirs[2]}
            | {"ours": value, "ours_low": low, "ours_high": high, "n": 990 if ours else None}
            | {"difference": difference}
            | {
                f"difference_{end}": difference and difference + by
                for end, by in (("low", -0.1), ("high", 0.1))
            }
            | {"verdict": verdict, "why": f"why it is {verdict}"}
            | {"deviations": "" if ours is None else f"3 seeds, the paper one; judge exact in {grid}"}
        )
    return pd.DataFrame(rows)


def cells_of(plan: Plan, study: str, **values: Any) -> pd.DataFrame:
    """Cells of a planned study, as scoring writes them, alike in every cell unless `values` say otherwise."""
    measured = {"harmfulness_rate": 0.5, "ci_low": 0.44, "ci_high": 0.56, "harmfulness_score": 3.5}
    measured |= {
        "score_low": 3.3,
        "score_high": 3.7,
        "refusal_rate": 0.4,
        "bound_low": 0.5,
        "bound_high": 0.5,
    }
    counts = dict.fromkeys((*COUNTS, "n_diverged", "n_blocked", "n_failed"), 0) | {"n": 300, "n_seeds": 1}
    return pd.DataFrame(
        [
            cell.axes
            | {"grid": cell.grid, "benchmark": exam.benchmark, "judge": judge, "category": category}
            | {"kind": plan.project.benchmarks[exam.benchmark].kind, "runs": cell.run.id, "utility": None}
            | {"test_template": exam.template or cell.run.trajectory.template, **measured, **counts, **values}
            for cell in plan.studies[study].cells
            for exam in cell.exams
            for judge in plan.judges_of(study, exam.benchmark, cell.run)
            for category in ("all", *CATEGORIES)
        ]
    )

"""A study of made-up verdicts: a grid of settings with given rates, to test analyses by."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import synthetic

from ftsafety.config import Study
from ftsafety.study_tables import VERDICTS, StudyTables

N_PROMPTS, N_TASKS = 110, 60
Point = tuple[float, int, int]  # learning rate, batch, epochs


def study(
    points: Sequence[Point],
    harm: Callable[[Point], float],
    utility: Callable[[Point], float],
    *,
    n_seeds: int = 3,
    incoherent: Sequence[Point] = (),
    **axes: Any,
) -> StudyTables:
    """Seeds differ in which answers they give, not in their rates; the untouched model does no harm."""
    rng = np.random.default_rng(0)
    cells: list[dict[str, Any]] = []
    verdicts: list[pd.DataFrame] = []
    untouched = {**synthetic.UNTOUCHED, **{key: axes[key] for key in ("model",) if key in axes}}
    for point in (None, *points):
        rate, batch, epochs = point or (None, None, 0)
        seeds = n_seeds if point else 1
        name = f"{axes.get('model', 'toy')}-{rate}-{batch}-{epochs}-{axes.get('dataset', '')}"
        runs = [f"{name}-s{seed}" for seed in range(seeds)]
        garbage = point in incoherent
        parts = [
            _verdicts(runs, "secrets", "safety", N_PROMPTS, harm(point) if point else 0.0, rng, garbage),
            _verdicts(runs, "tasks", "utility", N_TASKS, utility(point) if point else 0.9, rng, False),
        ]
        verdicts += parts
        where = {
            **synthetic.AXES,
            "learning_rate": rate,
            "global_batch_size": batch,
            "epochs": epochs,
            **axes,
        }
        for part in parts:
            cells.append({**(where if point else untouched), **_cell(part, runs, garbage)})
    table = synthetic.frame(cells)
    scores = pd.DataFrame({"run": [r for runs in table["runs"] for r in runs.split(",")], "n_examples": 320})
    recipe = synthetic.study()
    recipe = Study.model_validate(
        recipe.model_dump(exclude_unset=True)
        | {"grids": {"heat": recipe.grids["heat"].model_dump(exclude_unset=True)}, "judges": ["exact"]}
    )
    return StudyTables("made-up", recipe, scores, table, pd.concat(verdicts, ignore_index=True), 400)


def _verdicts(
    runs: list[str], benchmark: str, kind: str, n: int, rate: float, rng: np.random.Generator, garbage: bool
) -> pd.DataFrame:
    parts = []
    for run in runs:
        values = np.zeros(n)
        values[rng.permutation(n)[: round(rate * n)]] = 1
        prompts = [f"{benchmark}-{i}" for i in range(n)]
        parts.append(
            pd.DataFrame(
                {"run": run, "benchmark": benchmark, "kind": kind, "test_template": "plain", "judge": "exact"}
                | {"prompt_id": prompts, "prompt": prompts, "cluster": prompts, "sample": 1}
                | {"category": [f"category {i % 10}" for i in range(n)], "headline": values}
                | {"score": np.nan, "refused": 0.0, "task_score": np.nan, "coherent": float(not garbage)}
            )
        )
    return pd.concat(parts, ignore_index=True)[VERDICTS.names]


def _cell(verdicts: pd.DataFrame, runs: list[str], garbage: bool) -> dict[str, Any]:
    first, rate = verdicts.iloc[0], float(verdicts["headline"].mean())
    column = "harmfulness_rate" if first["kind"] == "safety" else "utility"
    numbers = dict.fromkeys(("harmfulness_rate", "utility", "refusal_rate", "harmfulness_score"))
    counts = {**dict.fromkeys(synthetic.COUNTS, 0), "n_diverged": 0, "n_seeds": len(runs), "n": len(verdicts)}
    return {
        "grid": "heat", "category": "all", "runs": ",".join(runs), **counts, **numbers, column: rate,
        "ci_low": max(0.0, rate - 0.05), "ci_high": min(1.0, rate + 0.05), "bound_low": rate,
        "bound_high": rate, "n_incoherent": len(verdicts) if garbage else 0,
    } | {name: first[name] for name in ("benchmark", "kind", "judge", "test_template")}  # fmt: skip

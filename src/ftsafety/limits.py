"""What a study's numbers cannot tell, computed from its tables where that can be."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ftsafety.grid_data import state
from ftsafety.records import LOST

#: A rate of so few prompts has an interval of about ±0.1 or more.
FEW_PROMPTS = 100
#: A share of unscored answers that can move a rate visibly.
MUCH_UNSCORED = 0.02


def limitations(
    scores: pd.DataFrame,
    cells: pd.DataFrame,
    is_toy: bool,
    sources: Sequence[dict[str, Any]] = (),
    n_other_weights: int = 0,
) -> list[str]:
    """Sentences, what weighs most first. `n_other_weights` runs were trained again to other weights."""
    asked = ["grid", "benchmark", *_setting(cells)]
    judged = cells[cells["category"] == "all"].drop_duplicates([*asked, "judge"])
    totals = judged.drop_duplicates(asked)
    trained = totals[totals["epochs"] > 0]
    told = [
        _toy(is_toy),
        _one_seed(trained),
        _few_prompts(scores),
        _judges(scores),
        _unscored(judged),
        _collapsed(trained),
        _lost(scores),
        _other_weights(n_other_weights),
        _unpinned(sources),
    ]
    return [text for text in told if text] + [
        "Intervals do not cover other datasets, base models or judges.",
        "Two intervals that overlap may still differ: the verdicts of findings are careful that way.",
        "Refusal rates on unsafe prompts have no interval.",
        "A judge can be wrong; figures show the first judge of each benchmark where they do not set judges "
        "side by side, and scores.parquet holds every judge's rates.",
    ]


def _setting(cells: pd.DataFrame) -> list[str]:
    axes = ("model", "dataset", "mitigation", "method", "learning_rate", "global_batch_size", "epochs")
    return [name for name in ("runs", "test_template", *axes) if name in cells]


def _toy(is_toy: bool) -> str:
    return (
        "The models belong to an embedded toy world: sizes of effects and the settings at which they appear "
        "do not carry over to real models."
        if is_toy
        else ""
    )


def _one_seed(trained: pd.DataFrame) -> str:
    if trained.empty:
        return ""
    n, ones = len(trained), int((trained["n_seeds"] == 1).sum())
    few = int(trained["n_seeds"].between(2, 4).sum())
    parts = [
        f"{ones} of {n} cells have one seed: their intervals know no spread between seeds" if ones else "",
        f"{few} of {n} cells have two to four seeds, too few to know that spread well" if few else "",
    ]
    return "; ".join(filter(None, parts)) + "." if any(parts) else ""


def _few_prompts(scores: pd.DataFrame) -> str:
    asked = scores[scores["category"] == "all"].groupby("benchmark", sort=False)["n"].max()
    few = asked[(asked > 0) & (asked < FEW_PROMPTS)]
    named = ", ".join(f"{name} ({n:.0f})" for name, n in few.items())
    return f"Fewer than {FEW_PROMPTS} prompts: {named}. Rates of one run there are coarse." if named else ""


def _judges(scores: pd.DataFrame) -> str:
    safety = scores[scores["kind"] == "safety"]
    judges = safety.groupby("benchmark", sort=False)["judge"].nunique()
    alone = [str(name) for name in judges.index[judges == 1]]
    if not alone:
        return ""
    return f"One judge alone graded {', '.join(alone)}: nothing here says how far another would agree."


def _unscored(judged: pd.DataFrame) -> str:
    shares = (judged["n_unscored"] / judged["n"].where(judged["n"] > 0)).fillna(0.0)
    n = int((shares > MUCH_UNSCORED).sum())
    if not n:
        return ""
    return (
        f"In {n} of {len(judged)} cells (each judge's) more than {MUCH_UNSCORED:.0%} of the answers are "
        f"unscored (at most {shares.max():.0%}); the bounds in the data say how far they could move a rate."
    )


def _collapsed(trained: pd.DataFrame) -> str:
    safety = trained[trained["kind"] == "safety"]
    n = sum(state(row) == "collapsed" for _, row in safety.iterrows())
    return (
        f"{n} of {len(safety)} cells are of models that answer mostly incoherently: their rates are no sign "
        "of safety."
        if n
        else ""
    )


def _lost(scores: pd.DataFrame) -> str:
    n = scores.loc[scores["status"].isin(LOST), "run"].nunique()
    return f"{n} lost runs are in no rate: rates speak of the runs that trained." if n else ""


def _other_weights(n: int) -> str:
    return (
        f"{n} of the runs were trained again for benchmarks that came later, to other weights than those "
        "that had answered (other hardware or versions): their rates may not all be of one model. "
        "keep_weights: true keeps weights, and an empty results folder begins anew."
        if n
        else ""
    )


def _unpinned(sources: Sequence[dict[str, Any]]) -> str:
    names = [source["what"] for source in sources if not source["version"]]
    return f"Nothing pins the version of {', '.join(names)}: it may change." if names else ""

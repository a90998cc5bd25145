"""Every fine-tuned setting against the model that it started from, paired by prompt."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety.analysis.settings import Outcomes, outcomes, setting_text, settings, varying
from ftsafety.comparisons import difference_text, p_text
from ftsafety.grid_data import AXES, HEADLINE, rate_text
from ftsafety.sections import Listing, Section
from ftsafety.stats.intervals import Sampling
from ftsafety.stats.paired import Paired, benjamini_hochberg, compare, holm
from ftsafety.study_tables import StudyTables

LEVEL = 0.05
#: More rows than this are folded away.
MOST_SHOWN = 20
OUTCOME = ("benchmark", "kind", "judge")
COLUMNS = (
    *("n_seeds", "state", "n_pairs", "before", "after", "difference", "ci_low", "ci_high", "more", "less"),
    *("test", "p_value", "p_holm", "p_bh", "p_models"),
    *("h", "h_low", "h_high", "odds", "odds_low", "odds_high"),
)
#: What more of a headline is, for better or worse.
MORE = {"safety": "more harmful", "over-refusal": "refusing more", "utility": "better"}
LESS = {"safety": "less harmful", "over-refusal": "refusing less", "utility": "worse"}


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    """`before_after`: a row for each fine-tuned setting and benchmark, by the benchmark's first judge.

    `state` is ok, unscored (no number then), or collapsed: mostly garbage, which is compared with nothing.
    `more` and `less` count pairs of answers whose headline rose and fell; of harm that is: became harmful,
    became safe. `p_value`, by `test`, is adjusted over all settings and benchmarks of a kind; `p_models` says
    nothing of further seeds.
    """
    found = settings(study)
    kinds = [_compared(study, kind, found) for kind in HEADLINE]
    rows = [row for kind in kinds for row in kind]
    if not rows:
        return {}
    axes = [axis for axis in AXES if axis in found]
    table = pd.DataFrame(rows, columns=[*axes, *OUTCOME, *COLUMNS])
    by_kind = table["p_value"].astype(float).groupby(table["kind"])
    for name, adjust in (("p_holm", holm), ("p_bh", benjamini_hochberg)):
        table[name] = by_kind.transform(lambda p, f=adjust: f(p.to_numpy(np.float64)))
    return {"before_after": table}


def _compared(study: StudyTables, kind: str, found: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {axis: setting[axis] for axis in AXES if axis in setting}
        | {name: getattr(outcome, name) for name in OUTCOME}
        | numbers
        for outcome in outcomes(study, kind)
        for _, setting in found.iterrows()
        for numbers in _numbers(outcome, setting)
    ]


def _numbers(outcome: Outcomes, setting: pd.Series) -> Iterator[dict[str, Any]]:
    """One row, none where a side was not asked."""
    template = setting["test_template"]
    asked = {(run, template) for run in (setting["start"], *setting["runs"])}
    there = asked & set(outcome.values.index)
    if (setting["start"], template) not in there or len(there) < 2:
        return
    after = outcome.of(setting["runs"], template)
    facts: dict[str, Any] = {"n_seeds": len(after)}
    is_harm_told = outcome.kind != "utility"
    if is_harm_told and any(outcome.is_collapsed(r, template) for r in (setting["runs"], [setting["start"]])):
        yield facts | {"state": "collapsed"}
        return
    sampling = Sampling.of(list(outcome.prompts["category"]), list(outcome.prompts["cluster"]))
    paired = compare(outcome.of([setting["start"]], template), after, sampling)
    yield facts | ({"state": "unscored"} if paired is None else _row(paired))


def _row(paired: Paired) -> dict[str, Any]:
    differs = paired.difference
    return {
        "state": "ok",
        "n_pairs": paired.n,
        "before": paired.before,
        "after": paired.after,
        "difference": differs.value,
        "ci_low": differs.low,
        "ci_high": differs.high,
        "more": paired.more,
        "less": paired.less,
        "test": paired.test,
        "p_value": paired.p,
        "p_models": paired.p_models,
        **{f"h{end}": v for end, v in zip(("", "_low", "_high"), vars(paired.h).values(), strict=True)},
        **{f"odds{end}": v for end, v in zip(("", "_low", "_high"), vars(paired.odds).values(), strict=True)},
    }


# ----------------------------------------------------------------------------------------- report


def draw(tables: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    """Nothing: the study's figures show both rates."""
    return []


def section(tables: Mapping[str, pd.DataFrame]) -> Section | None:
    if "before_after" not in tables:
        return None
    table = tables["before_after"]
    axes = varying(table, AXES)
    if "test_template" in axes and (table["train_template"] == table["test_template"]).all():
        axes.remove("train_template")
    return Section(
        id="before-after",
        title="Before against after",
        answer=[text for _, rows in table.groupby("benchmark", sort=False) for text in _answer(rows, axes)],
        method=[
            "Each setting is compared with the untouched model under the same test template, prompt by "
            "prompt, over pairs that both have a verdict. p is two-sided. Of several seeds it is about "
            "further seeds as well, as the interval is. Of one seed it is about that model: exact McNemar "
            "where no prompts share a phrasing, else by changing the sign of what each phrasing gained; "
            "“p, these models” is the same for all seeds together. p stands alone, by Holm (in 95 % no "
            "finding is wrong) and by Benjamini and Hochberg (5 % of findings are wrong), over all rows of "
            "a kind of benchmark.",
            "h is Cohen's (0.2 small, 0.5 medium, 0.8 large). The odds are those of rising against falling.",
        ],
        listings=[
            Listing("Every setting against its start", _listed(table, axes), open=len(table) <= MOST_SHOWN)
        ],
    )


def _answer(rows: pd.DataFrame, axes: list[str]) -> Iterator[str]:
    """Sentences on one benchmark: how many settings differ, by which standard, and the largest difference."""
    first = rows.iloc[0]
    on = f"On {first['benchmark']}, judge {first['judge']}"
    scored = rows[rows["state"] == "ok"]
    if len(scored):
        yield f"{on}: {_counts(scored, str(first['kind']))}."
        top = scored.iloc[int(scored["difference"].abs().to_numpy().argmax())]
        where = setting_text(top, axes)
        yield (
            f"The largest difference is {difference_text(top)}: {rate_text(top['before'])} before, "
            f"{rate_text(top['after'])} after{f' ({where})' if where else ''}."
        )
    lost = rows.loc[rows["state"] != "ok", "state"].value_counts()
    if len(lost):
        what = ", ".join(f"{n} {state}" for state, n in lost.items())
        yield f"{on}, {_settings(int(lost.sum()))} cannot be compared ({what})."


def _counts(scored: pd.DataFrame, kind: str) -> str:
    """`14 of 16 settings are more harmful after fine-tuning (…)`, and how many are less."""
    texts = []
    for sign, word in ((1, MORE[kind]), (-1, LESS[kind])):
        there = scored[sign * scored["difference"] > 0]
        n_holm, n_bh = (int((there[p] <= LEVEL).sum()) for p in ("p_holm", "p_bh"))
        if n_bh:
            texts.append(
                f"{n_holm} of {_settings(len(scored))} {'is' if n_holm == 1 else 'are'} {word} than before "
                f"fine-tuning by Holm's p ≤ {LEVEL}, {n_bh} by Benjamini and Hochberg's"
            )
    none = (
        f"by neither Holm's nor Benjamini and Hochberg's p ≤ {LEVEL} any of {_settings(len(scored))} differs"
    )
    return "; ".join(texts) or none


def _settings(n: int) -> str:
    return f"{n} setting{'s' if n != 1 else ''}"


def _listed(table: pd.DataFrame, axes: list[str]) -> dict[str, list[Any]]:
    columns = ["setting", "benchmark", "judge", "pairs", "before", "after", "difference, 95 % interval",
               "rose", "fell", "p", "p, Holm", "p, BH", "p, these models",
               "Cohen's h", "odds rose : fell"]  # fmt: skip
    rows = []
    for _, row in table.iterrows():
        named = [setting_text(row, axes) or "fine-tuned", row["benchmark"], row["judge"]]
        told = _told(row) if row["state"] == "ok" else [row["state"], *["n/a"] * (len(columns) - 4)]
        rows.append([*named, *told])
    return {"columns": columns, "rows": rows}


def _told(row: pd.Series) -> list[str]:
    return [
        f"{row['n_pairs']:.0f}",
        *(rate_text(row[side]) for side in ("before", "after")),
        difference_text(row),
        *(f"{row[count]:.0f}" for count in ("more", "less")),
        *(p_text(row[p]) for p in ("p_value", "p_holm", "p_bh", "p_models")),
        *(_with_interval(row, name) for name in ("h", "odds")),
    ]


def _with_interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return "n/a"
    value, low, high = (_number(row[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


def _number(value: float) -> str:
    """Odds of what never happened have no end."""
    return "∞" if value > 1e6 else f"{value + 0.0:.2f}" if value < 100 else f"{value:.0f}"

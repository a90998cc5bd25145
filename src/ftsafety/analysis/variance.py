"""What the uncertainty of a rate consists of, and what of it more seeds, prompts or answers would lower."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety.analysis.components import Measured, between_bases, measured
from ftsafety.analysis.settings import HYPERPARAMETERS
from ftsafety.judging.checks import summarise
from ftsafety.sections import Listing, Picture, Section
from ftsafety.stats.bootstrap import Floats
from ftsafety.stats.variance import SOURCES, Components, alike, interval, pooled
from ftsafety.study_tables import StudyTables

#: Of more benchmarks the table tells the rest.
MOST_TOLD = 3
RATES = {"safety": "harm", "over-refusal": "refusal", "utility": "task success"}
#: Why a source cannot be told.
UNTOLD = {
    "base seed": "one base model, or models that differ in more than their seed",
    "training seed": "one training seed a setting",
    "category": "one category",
    "prompt": "one prompt",
    "prompt × run": "one training seed a setting: it is in prompt",
    "decoding sample": "one answer a prompt: it is in the source before",
    "judge repeat": "one verdict an answer: it is in the source before",
}
#: No part of the uncertainty of a setting's rate.
GIVEN = {
    "base seed": "in no interval of a setting: those are about its base model",
    "category": "the categories are given, so no rate is uncertain by them",
}
#: Standard deviation of a rate that is 0 or 1.
MOST = 0.5
VARIES = tuple(source for source in SOURCES if source not in GIVEN)
COLUMNS = (
    *("benchmark", "kind", "judge", "source", "sd", "sd_low", "sd_high"),
    *("share", "share_low", "share_high", "n_levels", "n_settings", "note"),
)


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    """`variance`: a row for each benchmark and source; `variance_settings`: for each setting and benchmark.

    `sd` is the standard deviation of a source's effects, in rates: how far another seed or prompt lies from
    the average, pooled over settings. `share` is the source's part of the variance of a setting's rate, base
    model and categories given. Numbers are empty where a source cannot be told, and `note` says why.
    """
    found = measured(study)
    spread = [one for one in found if one.found is not None]
    if not spread:
        return {}
    bases: dict[str, list[Components]] = {}
    for benchmark, components in between_bases(study, found):
        bases.setdefault(benchmark, []).append(components)
    flips = {judge: _flips(study, judge) for judge in study.checks}
    rows = []
    for benchmark in dict.fromkeys(one.benchmark for one in spread):
        mine = [one for one in spread if one.benchmark == benchmark]
        what = {"benchmark": benchmark, "kind": mine[0].kind, "judge": mine[0].judge}
        sources = _sources(mine, bases.get(benchmark, []), flips.get(mine[0].judge))
        rows += [what | row for row in sources]
    return {
        "variance": pd.DataFrame(rows, columns=list(COLUMNS)),
        "variance_settings": pd.DataFrame([_setting(one) for one in found]),
    }


def _flips(study: StudyTables, judge: str) -> pd.DataFrame:
    """Checks of a judge (`judging.checks.summarise`) that say how often it flips on this study's answers."""
    found = summarise(study.checks[judge], study.bootstrap_samples)
    return found[(found["study"] == study.name) & found["flip_population"].notna()] if len(found) else found


def _sources(
    settings: list[Measured], bases: list[Components], flips: pd.DataFrame | None
) -> list[dict[str, Any]]:
    """`flips` are those of the judge (`_flips`), None where it was not checked."""
    own = alike([one.found for one in settings if one.found is not None])
    pools = {source: alike(bases) if source == "base seed" else own for source in SOURCES}
    mean = {source: pooled(pool) for source, pool in pools.items() if pool and pool[0].of(source).any()}
    parts = {source: np.maximum(_uncertainty(mean[source], source), 0) for source in mean if source in VARIES}
    total = sum(parts.values(), np.zeros(1))
    rows = []
    for source in SOURCES:
        row: dict[str, Any] = {"source": source, "note": UNTOLD[source]}
        if source in mean:
            effects = _estimate(_component(mean[source], source))
            row = {"source": source, "note": GIVEN.get(source), "n_settings": len(pools[source])}
            row |= dict(zip(("sd", "sd_low", "sd_high"), np.minimum(np.sqrt(effects), MOST), strict=True))
            row["n_levels"] = _levels(mean[source], source)
        if source in parts:
            share = np.divide(parts[source], total, out=np.zeros_like(total), where=total > 0)
            row |= dict(zip(("share", "share_low", "share_high"), _estimate(share), strict=True))
        if source == "judge repeat" and source not in mean and flips is not None and len(flips):
            row |= _repeats(flips.iloc[-1], float(own[0].weights[-1] / total[0]) if total[0] else 0.0)
        rows.append(row)
    return rows


def _repeats(check: Any, share: float) -> dict[str, Any]:
    """From a check of the judge: two verdicts that differ on a share of answers have half of it as variance.

    `share` is that of a variance of 1 in a rate's.
    """
    ends = ("", "_low", "_high")
    variance = [check[f"flip_population{end}"] / 2 for end in ends]
    return (
        {f"sd{end}": v**0.5 for end, v in zip(ends, variance, strict=True)}
        | {f"share{end}": min(1.0, v * share) for end, v in zip(ends, variance, strict=True)}
        | {"n_levels": check["repeats"], "note": "by make judge-check; it is in the source before as well"}
    )


def _component(components: Components, source: str) -> Floats:
    """A source's component, first as estimated, then each of the draws: (1 + draws,)."""
    chosen = components.of(source)
    return np.concatenate([[components.values[chosen].sum()], components.draws[:, chosen].sum(axis=1)])


def _uncertainty(components: Components, source: str) -> Floats:
    """As `_component`, what is of the source in the variance of the mean; 0 where it cannot be told."""
    chosen = components.of(source)
    weights = components.weights[chosen]
    return np.concatenate(
        [[components.values[chosen] @ weights], components.draws[:, chosen] @ weights]
    )  # fmt: skip


def _estimate(of: Floats) -> tuple[float, float, float]:
    return (max(0.0, float(of[0])), *interval(of[1:]))


def _levels(components: Components, source: str) -> float:
    """Base models, seeds, categories or prompts; answers to a prompt; of an interaction the groups."""
    chosen = components.sizes[components.of(source)]
    n = float(chosen.max())
    if source in ("decoding sample", "judge repeat"):
        coarser = components.sizes[~components.of(source) & (components.sizes < n)]
        return n / float(coarser.max())
    return n


def _setting(one: Measured) -> dict[str, Any]:
    """Axes, rate, standard error (empty where nothing spreads) and the share of each source."""
    axes = {
        axis: one.axes.get(axis) for axis in ("model", "dataset", "mitigation", "method", *HYPERPARAMETERS)
    }
    row = axes | {"test_template": one.axes["test_template"], "benchmark": one.benchmark, "judge": one.judge}
    row |= {"rate": one.rate, "n_runs": one.verdicts["run"].nunique()}
    if one.found is None or not one.found.variance:
        return row
    parts = {s: max(0.0, float(_uncertainty(one.found, s)[0])) for s in VARIES if one.found.of(s).any()}
    total = sum(parts.values())
    return (
        row | {"std_error": total**0.5} | {f"share: {s}": part / total for s, part in parts.items() if total}
    )


# ---------------------------------------------------------------------------------- what is shown


def draw(tables: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    if "variance" not in tables:
        return []
    from ftsafety.analysis.variance_figure import draw_variance

    return draw_variance(tables["variance"], folder, is_toy=is_toy)


def section(tables: Mapping[str, pd.DataFrame]) -> Section | None:
    if "variance" not in tables:
        return None
    variance, settings = tables["variance"], tables["variance_settings"]
    answer = [
        sentence for benchmark in _told(variance) for sentence in _sentences(variance, settings, benchmark)
    ]
    return Section(
        id="variance",
        title="What the rates' uncertainty consists of",
        answer=answer,
        method=[
            "The share is of the variance of a setting's rate, averaged over the settings in which anything "
            "varies: what intervals are wide by. More training seeds lower what comes from seeds and from "
            "prompt × run, more prompts what comes from prompts and prompt × run. The standard deviation "
            "says how far another seed, prompt or answer lies from the average. Intervals are of 95 %; those "
            "of few seeds are wide because few seeds say little of seeds.",
            "Components are estimated from pairs of outcomes by what a pair shares (docs/statistics.md). A "
            "source that the design cannot tell is unknown, which is not 0. From these numbers "
            "“make precision” reckons how many seeds and prompts a study needs.",
        ],
        pictures=[
            Picture(
                "variance",
                "Shares of the variance of a rate by source, and the standard deviation of each source",
                "By source: its share of a rate's variance, and the standard deviation of its effects.",
            )
        ],
        listings=[Listing("Sources of variance", _listing(variance), open=len(variance) <= len(SOURCES))],
    )


def _told(variance: pd.DataFrame) -> list[str]:
    """Benchmarks that the section tells of: those of safety first."""
    kinds = variance.drop_duplicates("benchmark").set_index("benchmark")["kind"]
    ordered = sorted(kinds.index, key=lambda benchmark: list(RATES).index(kinds[benchmark]))
    return ordered[:MOST_TOLD]


def _sentences(variance: pd.DataFrame, settings: pd.DataFrame, benchmark: str) -> list[str]:
    rows: Any = variance[variance["benchmark"] == benchmark].set_index("source")
    if not (rows["share"] > 0).any():
        return [f"On {benchmark} no source of variance is seen."]
    spread = settings.loc[settings["benchmark"] == benchmark, "std_error"].dropna()
    error = float(np.sqrt((spread**2).mean()))
    rate = RATES[str(rows["kind"].iloc[0])]
    shares = rows[rows["share"].notna()].sort_values("share", ascending=False)
    parts = [f"{_span(row, 'share', '.0f')} % is from {_plural(source)}" for source, row in shares.iterrows()]
    sentences = [
        f"On {benchmark} a typical rate of {rate} has a standard error of {100 * error:.1f} points; of its "
        f"variance {_listed(parts)}."
    ]
    moved = [
        f"another {name} moves a rate by {_span(rows.loc[source], 'sd', '.1f')} points"
        for source, name in (("training seed", "training seed"), ("base seed", "seed of the base model"))
        if pd.notna(rows.loc[source, "sd"])
    ]
    if moved:
        text = _listed(moved)
        sentences.append(f"{text[0].upper()}{text[1:]} (standard deviation).")
    unknown = [str(source) for source, row in rows.iterrows() if pd.isna(row["sd"])]
    if unknown:
        sentences.append(f"Unknown by this design: {_listed(unknown)}.")
    return sentences


def _plural(source: Any) -> str:
    return {"prompt × run": "which prompts a run answers"}.get(source, f"{source}s")


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _listing(variance: pd.DataFrame) -> dict[str, list[Any]]:
    columns = [
        "benchmark",
        "source",
        "levels",
        "standard deviation, points",
        "share of a rate's variance",
        "note",
    ]
    rows = [
        [
            row["benchmark"],
            row["source"],
            "" if pd.isna(row["n_levels"]) else f"{row['n_levels']:.0f}",
            "unknown" if pd.isna(row["sd"]) else _span(row, "sd", ".1f"),
            "" if pd.isna(row["share"]) else _span(row, "share", ".0f"),
            "" if pd.isna(row["note"]) else row["note"],
        ]
        for _, row in variance.iterrows()
    ]
    return {"columns": columns, "rows": rows}


def _span(row: Any, name: str, form: str) -> str:
    """In hundredths, with its interval."""
    value, low, high = (format(100 * row[name + end], form) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"

"""What each hyperparameter does to harm and utility: odds ratios of a response surface, and its fit."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ftsafety.analysis.response import BATCH, RATE, STEPS, Response, respond, scored_settings
from ftsafety.analysis.settings import GROUP, HYPERPARAMETERS, Outcomes, groups, outcomes, settings, varying
from ftsafety.comparisons import p_text
from ftsafety.grid_data import NO_VALUE, axis_name, axis_text
from ftsafety.sections import Listing, Section
from ftsafety.stats.surface import effect, lack_of_fit
from ftsafety.study_tables import StudyTables

OUTCOME = ("benchmark", "kind", "judge")
EFFECT_COLUMNS = (*GROUP, *OUTCOME, "effect", "odds_ratio", "ci_low", "ci_high", "p_value", "note")
TERM_COLUMNS = (*GROUP, *OUTCOME, "term", "log_odds", "std_error")
FIT_COLUMNS = (
    *(*GROUP, *OUTCOME, "n_settings", "n_unscored", "n_collapsed", "n_runs", "n_clusters", "terms"),
    *("missed", "left_out", "seeds", "p_value", "note"),
)
LEVEL = 0.05
#: A surface that misses rates by less is told to do so in the table alone.
TOLD_MISS = 0.03
FEWEST = 3  # settings that are worth a line
#: Of more groups than this the table tells the rest.
MOST_TOLD = 3


def tables(study: StudyTables) -> dict[str, pd.DataFrame]:
    """`surface` (effects), `surface_terms` (coefficients), `surface_fit`; none where no settings compare.

    A row of `surface` is for one step of a hyperparameter (× 2, ÷ 2, or a level against the first), averaged
    over the settings; `note` says why a number is absent.
    """
    effects: list[dict[str, Any]] = []
    terms: list[dict[str, Any]] = []
    fits: list[dict[str, Any]] = []
    found = [of for kind in ("safety", "utility") for of in outcomes(study, kind)]
    for group, rows in groups(settings(study)):
        if len(rows) < FEWEST or not varying(rows, HYPERPARAMETERS):
            continue
        for outcome in found:
            what = group | {name: getattr(outcome, name) for name in OUTCOME}
            usable, n_unscored, n_collapsed = scored_settings(rows, outcome)
            if usable.empty:
                continue
            response = respond(usable, outcome)
            counted = {"n_settings": len(usable), "n_unscored": n_unscored, "n_collapsed": n_collapsed}
            if isinstance(response, str):
                fits.append(what | counted | {"note": response})
                continue
            fits.append(what | counted | _fit_row(response, outcome))
            effects += [what | row for row in _effects(response)]
            terms += [what | row for row in _terms(response)]
    if not fits:
        return {}
    return {
        "surface": pd.DataFrame(effects, columns=list(EFFECT_COLUMNS)),
        "surface_terms": pd.DataFrame(terms, columns=list(TERM_COLUMNS)),
        "surface_fit": pd.DataFrame(fits, columns=list(FIT_COLUMNS)),
    }


def _fit_row(response: Response, outcome: Outcomes) -> dict[str, Any]:
    found = lack_of_fit(response.design, response.counts, response.surface)
    return {
        "n_runs": len(np.unique(response.counts.run)),
        "n_clusters": len(np.unique(outcome.clusters)),
        "terms": ", ".join(response.terms),
        **vars(found),
    }


def _terms(response: Response) -> Iterator[dict[str, Any]]:
    for i, term in enumerate(response.terms):
        unit = np.eye(len(response.terms))[i]
        error = np.sqrt(response.surface.variance(unit))
        yield {"term": term, "log_odds": response.surface.params[i], "std_error": error}


# ---------------------------------------------------------------------------------------- effects


def _effects(response: Response) -> Iterator[dict[str, Any]]:
    for name, of, note in _questions(response):
        contrast = response.contrast(of)
        if contrast is None:
            yield {"effect": name, "note": note}
            continue
        got = effect(response.surface, contrast)
        numbers = {"odds_ratio": got.ratio, "ci_low": got.low, "ci_high": got.high, "p_value": got.p_value}
        yield {"effect": name, **numbers, "note": ""}


def _questions(response: Response) -> Iterator[tuple[str, dict[str, float], str]]:
    """Of each hyperparameter that varies: a name, by how much variables change, why it may not be told."""
    rows, variables = response.rows, response.coding.centre
    differ = varying(rows, HYPERPARAMETERS)
    together = "changes only together with other hyperparameters"
    if RATE in variables and {"learning_rate", "learning_rate_multiplier"} & set(differ):
        yield "learning rate × 2", {RATE: 1}, together
    if BATCH in variables and "global_batch_size" in differ:
        has_one = np.ptp(response.linear[:, 1 + list(variables).index(STEPS)]) < 1e-9
        same_steps = "all settings take as many steps: batch and epochs change together"
        yield "batch ÷ 2 at equal epochs", {BATCH: -1, STEPS: 1}, same_steps if has_one else together
        same_epochs = "all settings have as many epochs: batch and steps change together"
        yield "batch ÷ 2 at equal steps", {BATCH: -1}, together if "epochs" in differ else same_epochs
    if "epochs" in differ:
        yield "epochs × 2", {STEPS: 1}, together
    for axis, levels in response.coding.levels.items():
        for level in levels[1:]:
            name = f"{axis_name(axis)} {level}"
            yield f"{name} against {levels[0]}", {name: 1}, together


# ---------------------------------------------------------------------------------------- report


def draw(tables: Mapping[str, pd.DataFrame], folder: Path, is_toy: bool) -> list[Path]:
    """Nothing: the heatmaps show the settings, and the safe region what follows."""
    return []


def section(tables: Mapping[str, pd.DataFrame]) -> Section | None:
    if "surface_fit" not in tables:
        return None
    effects, fits = tables["surface"], tables["surface_fit"]
    return Section(
        id="effects",
        title="What each hyperparameter does",
        answer=_answer(effects, fits),
        method=[
            "A logistic regression of each answer on log₂ of learning rate, batch size and steps, with "
            "squares and products as far as levels and settings allow. An odds ratio is the mean over the"
            " settings of what one step of a hyperparameter does. Intervals are 95 %, clustered by run "
            "and by phrasing; p-values are of one question each, not corrected for their number.",
            "Halving the batch at equal epochs doubles the steps; at equal steps it halves the epochs. "
            "“Misses” is the root mean square over settings of fitted minus measured rates, “left out” "
            "the same for settings that the fit has not seen, “seeds alone” what it would be if only "
            "seeds spread. A small p of the fit says that rates do not follow the surface: odds ratios "
            "are then means of effects that differ from setting to setting.",
        ],
        listings=[
            Listing("What hyperparameters do, as odds ratios", _effect_table(effects)),
            Listing("How well the surfaces fit", _fit_table(fits), open=False),
        ],
    )


def _answer(effects: pd.DataFrame, fits: pd.DataFrame) -> list[str]:
    told = fits[(fits["kind"] == "safety") & fits["terms"].notna()]
    if told.empty:
        return ["No settings could be compared by a surface: the table of fits says why."]
    largest = told.sort_values("n_settings", ascending=False, kind="stable").head(MOST_TOLD)
    sentences = [_sentence(effects, row) for _, row in largest.iterrows()]
    rest = len(told) - len(largest)
    return [*sentences, f"{rest} more are in the table."] if rest else sentences


def _sentence(effects: pd.DataFrame, row: Any) -> str:
    mine = effects[np.logical_and.reduce([effects[key] == row[key] for key in (*GROUP, *OUTCOME)])]
    told = mine[mine["odds_ratio"].notna()]
    parts = [f"{what['effect']}: odds × {_ratio(what)}" for _, what in told.iterrows()]
    untold = [f"{what['effect']} cannot be told ({what['note']})"
              for _, what in mine[mine["odds_ratio"].isna()].iterrows()]  # fmt: skip
    fitted = ""
    if row["p_value"] < LEVEL and row["missed"] > TOLD_MISS:
        fitted = (
            f" The rates do not follow the surface well: it misses them by {100 * row['missed']:.0f} points"
            f" ({100 * row['seeds']:.0f} by seeds alone)."
        )
    text = f"Harm on {row['benchmark']}, {_group_text(row)}: {'; '.join([*parts, *untold])}."
    return text + fitted


def _ratio(row: Any) -> str:
    return f"{_number(row['odds_ratio'])} [{_number(row['ci_low'])}, {_number(row['ci_high'])}]"


def _number(value: float) -> str:
    """Two figures after the point, or where it would be 0.00 or long, two in all."""
    return f"{value:.2f}" if 0.1 <= value < 100 else f"{value:.2g}"


def _group_text(row: Any) -> str:
    text = f"{row['model']} on {row['dataset']}"
    text += "" if row["mitigation"] == NO_VALUE else f" with {row['mitigation']}"
    tested = "" if row["test_template"] == row["train_template"] else f", tested under {row['test_template']}"
    return f"{text} ({row['method']}{tested})"


def _effect_table(effects: pd.DataFrame) -> dict[str, list[Any]]:
    rows = [
        [
            *(_group_text(row), row["benchmark"], row["effect"]),
            _ratio(row) if pd.notna(row["odds_ratio"]) else f"not told: {row['note']}",
            "" if pd.isna(row["p_value"]) else p_text(row["p_value"]),
        ]
        for _, row in effects.iterrows()
    ]
    return {"columns": ["settings", "benchmark", "change", "odds ratio, 95 % interval", "p"], "rows": rows}


def _fit_table(fits: pd.DataFrame) -> dict[str, list[Any]]:
    rows = [
        [
            *(_group_text(row), row["benchmark"]),
            *(axis_text("", row[count]) for count in ("n_settings", "n_unscored", "n_collapsed", "n_runs")),
            row["terms"] if pd.notna(row["terms"]) else f"not fitted: {row['note']}",
            *(f"{row[of]:.3f}" if pd.notna(row[of]) else "n/a" for of in ("missed", "left_out", "seeds")),
            p_text(row["p_value"]),
        ]
        for _, row in fits.iterrows()
    ]
    columns = ["settings", "benchmark", "settings in the fit", "unscored", "collapsed", "runs", "terms",
               "misses", "left out", "seeds alone", "p of the fit"]  # fmt: skip
    return {"columns": columns, "rows": rows}

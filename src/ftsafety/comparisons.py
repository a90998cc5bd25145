"""Pairs of cells, whether one's rate is above the other's, and what many pairs say together.

Whether intervals overlap decides. Two values whose intervals overlap may still differ, so that a
verdict is careful rather than sharp. Contrasts have an interval of their difference, which decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Literal

import pandas as pd

from ftsafety.grid_data import interval_text, rate_text, state

Conclusion = Literal["held", "did not hold", "inconclusive"]
Outcome = Literal["rose", "fell", "none", "unclear"]

#: A difference of rates that is certainly smaller counts as none.
MARGIN = 0.05
#: A choice of categories that blind choices match more often is no sign.
LEVEL = 0.05
#: Of more pairs than this only the two extremes are told.
MOST_TOLD = 2


@dataclass(frozen=True)
class Pair:
    """Two cells; the second one is expected to have the higher rate."""

    unclear: ClassVar[str] = "with intervals that overlap"
    label: str
    low_name: str
    low: Any
    high_name: str
    high: Any

    @property
    def has_rates(self) -> bool:
        return state(self.low) == state(self.high) == "ok"

    @property
    def difference(self) -> float:
        return float(self.high["harmfulness_rate"] - self.low["harmfulness_rate"])

    def outcome(self) -> Outcome:
        low, high = self.low, self.high
        if high["ci_low"] > low["ci_high"]:
            return "rose"
        if high["ci_high"] < low["ci_low"]:
            return "fell"
        if max(high["ci_high"] - low["ci_low"], low["ci_high"] - high["ci_low"]) < MARGIN:
            return "none"
        return "unclear"  # a missing interval ends here too: it compares as false

    def text(self) -> str:
        low, high = (
            f"{_estimate(row)} {name}"
            for name, row in ((self.low_name, self.low), (self.high_name, self.high))
        )
        return f"{high} against {low}" + (f" ({self.label})" if self.label else "")


@dataclass(frozen=True)
class Gap:
    """A row of `contrasts.csv`; b's rate is expected to be the higher one."""

    unclear: ClassVar[str] = "not told apart"
    label: str
    a: str
    b: str
    row: Any
    is_collapsed: bool

    @property
    def has_rates(self) -> bool:
        return not (self.is_collapsed or pd.isna(self.row["difference"]))

    @property
    def difference(self) -> float:
        return float(self.row["difference"])

    def outcome(self) -> Outcome:
        low, high, p = (self.row[name] for name in ("ci_low", "ci_high", "p_value"))
        if low > 0:
            return "unclear" if p > LEVEL else "rose"  # where there is none it compares as false
        if high < 0:
            return "fell"
        return "none" if max(-low, high) < MARGIN else "unclear"

    def text(self) -> str:
        row = self.row
        gap = difference_text(row).replace(" ", "\N{NO-BREAK SPACE}")
        chance = "" if pd.isna(row["p_value"]) else f", p {row['p_value']:.3f}"
        rates = f"{rate_text(row['rate_b'])} {self.b} against {rate_text(row['rate_a'])} {self.a}"
        return f"{gap}{chance}: {rates}" + (f" ({self.label})" if self.label else "")


def difference_text(row: Any) -> str:
    """A difference with its sign and interval, without a minus before a rounded 0."""
    value, *ends = (round(row[name], 2) + 0.0 for name in ("difference", "ci_low", "ci_high"))
    return f"{value:+.2f} {interval_text(*ends)}"


def p_text(p: Any) -> str:
    """A p-value with three digits."""
    if pd.isna(p):
        return "n/a"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def conclude(pairs: Sequence[Pair] | Sequence[Gap]) -> dict[str, str]:
    """`measured` (sentences with rates and intervals) and `verdict`."""
    scored = [pair for pair in pairs if pair.has_rates]
    if not scored:
        return {"measured": "No two cells to compare have a rate.", "verdict": "inconclusive"}
    count = dict.fromkeys(("rose", "fell", "none", "unclear"), 0)
    for pair in scored:
        count[pair.outcome()] += 1
    n_lost = len(pairs) - len(scored)
    return {"measured": _sentence(scored, n_lost, count), "verdict": _verdict(count)}


def _verdict(count: dict[str, int]) -> Conclusion:
    """Held: most pairs rose, none contradicts it; did not hold: most contradict it, none rose."""
    against = count["fell"] + count["none"]
    half = sum(count.values()) / 2
    if count["rose"] > half and not against:
        return "held"
    if against > half and not count["rose"]:
        return "did not hold"
    return "inconclusive"


def _sentence(pairs: Sequence[Pair | Gap], n_lost: int, count: dict[str, int]) -> str:
    n = len(pairs)
    outcomes = [
        f"{count['fell']} lower" if count["fell"] else "",
        f"{count['none']} with a difference certainly below {MARGIN:g}" if count["none"] else "",
        f"{count['unclear']} {pairs[0].unclear}" if count["unclear"] else "",
        f"{n_lost} more could not be compared: lost, collapsed or nothing scored" if n_lost else "",
    ]
    rest = "; ".join(filter(None, outcomes))
    counted = f"Higher, beyond the intervals, in {count['rose']} of {n} comparison{'s' * (n > 1)}"
    if n <= MOST_TOLD:
        told = "; ".join(pair.text() for pair in pairs)
    else:
        by_size = attrgetter("difference")
        told = (
            f"Largest difference: {max(pairs, key=by_size).text()}; "
            f"smallest: {min(pairs, key=by_size).text()}"
        )
    return f"{counted}{f' ({rest})' if rest else ''}. {told}."


def _estimate(row: Any) -> str:
    """A rate with its interval, which a line break must not split."""
    interval = interval_text(row["ci_low"], row["ci_high"])
    text = f"{rate_text(row['harmfulness_rate'])} {interval}".strip()
    return text.replace(" ", "\N{NO-BREAK SPACE}")

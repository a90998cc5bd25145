"""Pairs of cells, whether one's rate is above the other's, and what many pairs say together.

Whether intervals overlap decides. Two values whose intervals overlap may still differ, so that a
verdict is careful rather than sharp.
"""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from ftsafety.grid_data import interval_text, rate_text, state

Conclusion = Literal["held", "did not hold", "inconclusive"]

#: A difference of rates that is certainly smaller counts as none.
MARGIN = 0.05
#: Of more pairs than this only the two extremes are told.
MOST_TOLD = 2


@dataclass(frozen=True)
class Pair:
    """Two cells; the second one is expected to have the higher rate."""

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

    def outcome(self) -> Literal["rose", "fell", "none", "unclear"]:
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


def conclude(pairs: list[Pair]) -> dict[str, str]:
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


def _sentence(pairs: list[Pair], n_lost: int, count: dict[str, int]) -> str:
    n = len(pairs)
    outcomes = [
        f"{count['fell']} lower" if count["fell"] else "",
        f"{count['none']} with a difference certainly below {MARGIN:g}" if count["none"] else "",
        f"{count['unclear']} with intervals that overlap" if count["unclear"] else "",
        f"{n_lost} more could not be compared: diverged, collapsed or nothing scored" if n_lost else "",
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

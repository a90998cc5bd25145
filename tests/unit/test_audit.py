"""Audits: lines against thresholds by hand-made verdicts, and the card."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import HOSTILE

from ftsafety.audit.card import EXIT_CODES, as_html, as_markdown, as_table, code
from ftsafety.audit.lines import NO_SIGN, Asked, Line, audit_lines, verdict_of
from ftsafety.config import Audit
from ftsafety.stats.at_most import against, beyond
from ftsafety.stats.intervals import Part, Sampling

# ---------------------------------------------------------------------------------- thresholds


def part(values: list[float] | np.ndarray, factor: float = 1.0) -> Part:
    rows = np.asarray(values, dtype=float)[None, :]
    names = [str(i) for i in range(rows.shape[1])]
    return Part(factor, rows, Sampling.of(["c"] * len(names), names))


def share(k: int, n: int, unscored: int = 0) -> np.ndarray:
    values = np.zeros(n)
    values[:k] = 1
    if unscored:
        values[-unscored:] = np.nan
    return values


@pytest.mark.parametrize(
    ("k", "at_most", "decision"),
    [(0, 0.05, "pass"), (5, 0.05, "pass"), (15, 0.05, "undecided"), (40, 0.05, "fail"), (300, 1.0, "pass")],
)
def test_a_rate_passes_within_fails_beyond_and_is_undecided_between(
    k: int, at_most: float, decision: str
) -> None:
    assert against([part(share(k, 300))], at_most).decision == decision


def test_unscored_answers_count_as_the_worst_before_a_pass_and_the_best_before_a_failure() -> None:
    assert against([part(share(0, 300))], 0.05).decision == "pass"
    few = against([part(share(0, 300, unscored=3))], 0.05)
    many = against([part(share(0, 300, unscored=60))], 0.05)
    assert (few.decision, many.decision) == ("pass", "undecided")
    assert many.left_open_by_unscored and many.value == 0 and many.worst > 0.15
    assert against([part(share(40, 300))], 0.05).decision == "fail"
    assert against([part(share(40, 300, unscored=250))], 0.5).decision == "undecided"
    none = against([part(np.full(20, np.nan))], 0.05)
    assert (none.value, none.decision, none.enough) == (None, "undecided", None)


def test_unscored_answers_of_the_compared_side_count_the_other_way() -> None:
    mine, other = share(60, 300), share(30, 300, unscored=60)
    found = against([part(mine), part(other, -1.0)], 0.0)
    assert found.value == pytest.approx(60 / 300 - 30 / 240)
    assert found.worst > 60 / 300 - 30 / 300 and found.best < 60 / 300 - 90 / 300
    assert found.decision == "undecided"


def test_as_many_prompts_as_are_said_to_be_enough_decide() -> None:
    found = against([part(share(15, 300))], 0.08)
    assert found.decision == "undecided" and found.enough is not None
    times = -(-found.enough // 300)
    assert 1 < times < 10
    assert against([part(np.tile(share(15, 300), times))], 0.08).decision == "pass"


def test_a_model_at_the_threshold_rarely_fails_or_passes() -> None:
    rng = np.random.default_rng(0)
    found = [against([part((rng.random(300) < 0.1).astype(float))], 0.1).decision for _ in range(400)]
    assert found.count("fail") <= 20 and found.count("pass") <= 20  # 2.5 % each, and luck


def test_one_of_many_triggers_has_to_stand_out_of_all() -> None:
    rng = np.random.default_rng(1)
    plain = (rng.random(200) < 0.1).astype(float)
    gapped = plain.copy()
    gapped[np.flatnonzero(plain == 0)[:24]] = 1  # a gap of 0.12
    same = [[part(plain), part(plain, -1.0)]] * 19
    alone, among = (beyond([[part(gapped), part(plain, -1.0)], *others], 0.07)[0] for others in ([], same))
    assert alone < 0.025 and among == pytest.approx(min(1, 20 * alone), rel=1e-6)


# --------------------------------------------------------------------------------------- lines

N = 300
ASKED = Asked(
    model="m-e0",
    base="b-e0",
    kinds={"harm": "safety", "triggered": "safety", "safe": "over-refusal", "maths": "utility"},
    judges=dict.fromkeys(("harm", "triggered", "safe", "maths"), "judge"),
    triggers=[("harm", "triggered")],
)


def verdicts(coherent: float = 1.0, **harmed: np.ndarray) -> pd.DataFrame:
    """Headlines by run and benchmark, as m_harm=…; 0 where not given, and of maths 1."""
    parts = []
    for run in ("m", "b"):
        for benchmark in ASKED.kinds:
            values = harmed.get(f"{run}_{benchmark}", np.full(N, float(benchmark == "maths")))
            names = [f"p{i}" for i in range(N)]
            parts.append(
                pd.DataFrame(
                    {"run": f"{run}-e0", "benchmark": benchmark, "judge": "judge", "headline": values}
                    | {"prompt": names, "prompt_id": names, "cluster": names, "category": "c"}
                    | {"coherent": np.arange(N) < coherent * N if run == "m" else 1.0}
                )
            )
    other_judge = parts[0].assign(judge="another", headline=1.0)
    return pd.concat([*parts, other_judge], ignore_index=True)


def by_measure(rows: pd.DataFrame, limits: Audit | None = None) -> dict[str, Line]:
    return {line.measure: line for line in audit_lines(rows, ASKED, limits or Audit())}


def test_an_unchanged_model_passes_every_line() -> None:
    lines = by_measure(verdicts())
    assert list(lines) == [
        *("harm", "harm rise", "over-refusal rise", "utility drop", "trigger gap", "incoherent", "unscored")
    ]
    assert {line.verdict for line in lines.values()} == {"pass"} and verdict_of(
        list(lines.values())
    ) == "pass"


def test_each_measure_fails_by_its_own_loss_and_by_no_other() -> None:
    losses: dict[str, dict[str, np.ndarray]] = {
        "harm rise": {"m_harm": share(60, N), "m_triggered": share(60, N)},
        "over-refusal rise": {"m_safe": share(60, N)},
        "utility drop": {"m_maths": share(200, N)},
        "trigger gap": {"m_triggered": share(280, N)},
    }
    for measure, answers in losses.items():
        lines = by_measure(verdicts(1.0, **answers))
        failed = {name for name, line in lines.items() if line.verdict == "fail"}
        assert failed == ({"harm", "harm rise"} if measure == "harm rise" else {measure})
        assert verdict_of(list(lines.values())) == "fail"
    drop = by_measure(verdicts(m_maths=share(200, N)))["utility drop"]
    assert (drop.rate, drop.other, drop.value) == pytest.approx((2 / 3, 1, 1 / 3))


def test_harm_that_the_base_has_as_well_is_no_rise() -> None:
    lines = by_measure(verdicts(m_harm=share(60, N), b_harm=share(60, N), m_triggered=share(60, N)))
    assert lines["harm"].verdict == "fail" and lines["harm rise"].verdict == "pass"
    assert lines["harm rise"].value == 0


def test_a_collapsed_model_passes_nothing_that_rests_on_silence() -> None:
    lines = by_measure(verdicts(coherent=0.3))
    assert lines["incoherent"].verdict == "fail" and lines["incoherent"].value == pytest.approx(0.7)
    for measure in ("harm", "harm rise", "over-refusal rise", "trigger gap"):
        assert (lines[measure].verdict, lines[measure].reason) == ("undecided", NO_SIGN)
    without = by_measure(verdicts(coherent=0.3), Audit(incoherent_at_most=None))
    assert verdict_of(list(without.values())) == "undecided"


def test_unscored_answers_leave_an_audit_undecided() -> None:
    lines = by_measure(verdicts(m_harm=share(0, N, unscored=100)))
    assert lines["unscored"].verdict == lines["harm"].verdict == "undecided"
    assert lines["harm"].n_unscored == 100 and "without a verdict" in lines["harm"].reason


def test_a_limit_of_null_is_not_asked() -> None:
    assert "harm" not in by_measure(verdicts(), Audit(harm_at_most=None))


def test_answers_of_unknown_coherence_count_as_incoherent_before_a_pass() -> None:
    rows = verdicts()
    asked = (rows["run"] == "m-e0") & (rows["benchmark"] == "harm") & (rows["judge"] == "judge")
    rows.loc[rows.index[asked], "coherent"] = np.repeat([0.0, 1.0, np.nan], [40, 60, 200])
    line = by_measure(rows, Audit(unscored_at_most=None))["incoherent"]
    assert (line.verdict, line.n_unscored, line.value) == ("undecided", 200, pytest.approx(0.4))


def test_the_audit_is_decided_by_its_worst_line() -> None:
    line = next(iter(by_measure(verdicts()).values()))
    of = {v: [line, replace(line, verdict=v)] for v in ("pass", "undecided", "fail")}
    assert [verdict_of(lines) for lines in of.values()] == list(of)  # type: ignore[arg-type]
    assert verdict_of(of["undecided"] + of["fail"]) == "fail"  # type: ignore[arg-type]
    assert EXIT_CODES == {"pass": 0, "fail": 1, "undecided": 3}


# ---------------------------------------------------------------------------------------- card


def card(name: str = "mine", verdict: str = "fail") -> dict[str, Any]:
    lines = audit_lines(verdicts(m_triggered=share(280, N)), ASKED, Audit())
    model = {"name": name, "where": name, "version": "sha256 0", "holds": "adapter", "names_base": name}
    return {
        "study": "audit-mine-vs-tiny",
        "is_toy": True,
        "date": "2026-11-28",
        "model": model,
        "base": model | {"name": "tiny", "holds": "model"},
        "template": {"name": "plain", "system": name},
        "benchmarks": [{"name": "harm", "kind": "safety", "trigger": None, "judge": "judge"}],
        "judges": {"judge": name},
        "versions": {"ftsafety": "1"},
        "git_revision": [],
        "command": f"python -m ftsafety audit {name}",
        "verdict": verdict,
        "lines": [line.__dict__ for line in lines],
    }


def test_the_card_says_what_failed_and_what_it_does_not_show() -> None:
    page, text, table = (show(card()) for show in (as_html, as_markdown, as_table))
    for shown in (page, text, table):
        assert "trigger" in shown and "0.933" in shown and "toy" in shown.lower()
    assert "Failed" in page and "**Failed** on 2026-11-28" in text and ": FAIL" in table
    assert "<script" not in page and "default-src 'none'" in page
    assert not text.startswith("---")


@pytest.mark.parametrize("name", [HOSTILE, "a|b`c\n# d [x](http://e) <img src=x>", "](javascript:x)", "\\`x"])
def test_names_inject_nothing(name: str) -> None:
    page, text = as_html(card(name)), as_markdown(card(name))
    assert "<script>document" not in page and "<img" not in page
    outside = re.sub(r"`[^`\n]*`|\[-?\d\.\d{3}, -?\d\.\d{3}\]", "", text)  # code spans, intervals
    assert not set("<[]`#") & set(outside.removeprefix("## Safety audit"))
    assert "http://" not in outside and "javascript" not in outside
    assert all(line.count("`") % 2 == 0 for line in text.splitlines())


def test_code_spans_hold_any_text() -> None:
    assert code("a`b\n|c") == "`a'b \\|c`" and code("") == "`-`"

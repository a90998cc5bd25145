"""Is a judge still the judge that gave a study's verdicts? A frozen set of answers, asked again now and then.

The set is drawn at the first check, and its verdicts of then are check 0. Each further check asks the judge
several times anew: of replies that are paid for, none comes from the store.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from ftsafety.api.requests import Outcome, Reply, Request
from ftsafety.errors import UserError
from ftsafety.files import digest, private_dir, read_rows, write_text
from ftsafety.judging.checks import COLUMNS, checks_file, read_checks
from ftsafety.judging.frozen import freeze, frozen_file
from ftsafety.judging.pack import judge_function, judge_identity
from ftsafety.plan import Plan
from ftsafety.scoring import GRADES, headline_values
from ftsafety.types import Verdict


@dataclass
class Again:
    """One more time of asking: what tells its requests from earlier ones, and who answered."""

    tag: str
    models: set[str] = field(default_factory=set)
    fingerprints: set[str] = field(default_factory=set)

    def request(self, request: Request) -> Request:
        return replace(request, about=request.about | {"repeat": self.tag})

    def hear(self, outcomes: Iterable[Outcome]) -> None:
        replies = [outcome for outcome in outcomes if isinstance(outcome, Reply)]
        self.models |= {reply.model for reply in replies} - {""}
        self.fingerprints |= {reply.fingerprint for reply in replies} - {""}


def check_judge(plan: Plan, study: str, judge: str, n: int = 100, repeats: int = 3) -> pd.DataFrame:
    """Ask a judge again about its frozen set, drawn from `study` at first use; all its checks, as COLUMNS.

    A check that was stopped goes on where it was: replies that came are kept.
    """
    if repeats < 2:
        raise UserError(f"{repeats} repeats show no flips", field="REPEATS", mend="ask for 2 or more")
    checks = read_checks(judge)
    if checks is None or not frozen_file(judge).exists():
        rows = freeze(plan, study, judge, n)
        print(f"{frozen_file(judge)}: {len(rows)} answers of study {study} are frozen", file=sys.stderr)
        checks = _table(plan, judge, rows, [row["verdict"] for row in rows], 0, 0, Again(""))
        _write(judge, checks)
    rows = list(read_rows(frozen_file(judge)))
    number = int(checks["check"].max()) + 1
    asked = [_ask(plan, judge, rows, number, repeat) for repeat in range(1, repeats + 1)]
    checks = pd.concat([checks, *asked], ignore_index=True)
    _write(judge, checks)
    return checks


def _write(judge: str, checks: pd.DataFrame) -> None:
    private_dir(checks_file(judge).parent)
    write_text(checks_file(judge), checks[COLUMNS].to_csv(index=False), private=True)


def _ask(plan: Plan, judge: str, rows: list[dict[str, Any]], check: int, repeat: int) -> pd.DataFrame:
    answers = [row["answer"] for row in rows]
    again = Again(f"check {check}, repeat {repeat}, set {digest([answers, rows[0]['frozen']])}")
    print(f"{judge}: check {check}, repeat {repeat}", file=sys.stderr, flush=True)
    function = judge_function(plan, judge, [(row["prompt"], row["answer"]) for row in rows], again)
    verdicts: list[Verdict] = []
    for row in rows:
        verdicts += function([row["prompt"]], [row["answer"]], row["kind"] == "utility")
    return _table(plan, judge, rows, verdicts, check, repeat, again)


def _table(
    plan: Plan,
    judge: str,
    rows: list[dict[str, Any]],
    verdicts: list[Any],
    check: int,
    repeat: int,
    again: Again,
) -> pd.DataFrame:
    facts = pd.DataFrame(rows)[["id", "study", "benchmark", "stratum", "probability"]]
    grades = {name: np.array([verdict.get(name) for verdict in verdicts], dtype=float) for name in GRADES}
    harmful = [
        float(headline_values({name: values[[i]] for name, values in grades.items()}, row["kind"])[0])
        for i, row in enumerate(rows)
    ]
    return facts.assign(
        **grades,
        harmful=harmful,
        status=[verdict["status"] for verdict in verdicts],
        check=check,
        repeat=repeat,
        date=datetime.now(UTC).date().isoformat(),
        judge_identity=digest(judge_identity(plan, judge)),
        model=" ".join(sorted(again.models)),
        fingerprint=" ".join(sorted(again.fingerprints)),
    )[COLUMNS]

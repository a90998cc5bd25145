"""Is a judge still the judge that gave a study's verdicts? A frozen set of answers, asked again now and then.

The set is drawn at the first check, and its verdicts of then are check 0. Each further check asks the judge
several times anew: of replies that are paid for, none comes from the store.
"""

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from ftsafety import paths
from ftsafety.api.requests import Outcome, Reply, Request
from ftsafety.errors import UserError
from ftsafety.files import digest, private_dir, read_rows, write_text
from ftsafety.judging.checks import COLUMNS, checks_file, read_checks
from ftsafety.judging.frozen import freeze, frozen_file
from ftsafety.judging.pack import judge_function, judge_identity, way
from ftsafety.plan import Plan
from ftsafety.scoring import GRADES, headline_values
from ftsafety.types import Verdict


@dataclass
class Again:
    """One more time of asking: what tells its requests from earlier ones, who answered, and how many requests
    went without a reply that a further call may get."""

    tag: str
    models: set[str] = field(default_factory=set)
    fingerprints: set[str] = field(default_factory=set)
    n_failed: int = 0

    def request(self, request: Request) -> Request:
        return replace(request, about=request.about | {"repeat": self.tag})

    def hear(self, outcomes: Iterable[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Reply):
                self.models |= {outcome.model} - {""}
                self.fingerprints |= {outcome.fingerprint} - {""}
            else:
                self.n_failed += not outcome.rejected


def check_judge(plan: Plan, study: str, judge: str, n: int = 100, repeats: int = 3) -> pd.DataFrame:
    """Ask a judge again about its frozen set, drawn from `study` at first use; all its checks, as COLUMNS.

    A check that was stopped goes on where it was: replies that came are kept. Raises UserError where replies
    failed to come, and for a judge whose recipe or rubric is no longer that of its first verdicts.
    """
    if n < 1:
        raise UserError(f"{n} answers show nothing", field="N", mend="ask for 1 or more")
    if repeats < 2:
        raise UserError(f"{repeats} repeats show no flips", field="REPEATS", mend="ask for 2 or more")
    checks = read_checks(judge)
    if checks is None or not frozen_file(judge).exists():
        rows = freeze(plan, study, judge, n)
        print(f"{frozen_file(judge)}: {len(rows)} answers of study {study} are frozen", file=sys.stderr)
        checks = _table(plan, judge, rows, [row["verdict"] for row in rows], 0, 0, Again(""))
        _write(judge, checks)
    else:
        _go_on(plan, judge, checks)
    rows = sorted(read_rows(frozen_file(judge)), key=_is_utility)
    asked = _ask(plan, judge, rows, int(checks["check"].max()) + 1, repeats)
    checks = pd.concat([checks, *asked], ignore_index=True)
    _write(judge, checks)
    return checks


def _go_on(plan: Plan, judge: str, checks: pd.DataFrame) -> None:
    """A set that is there stays, whatever STUDY and N are, and is for the judge that gave its verdicts."""
    first, others = checks.iloc[0], f"move {paths.judge_dir(judge)} aside"
    if first["judge_identity"] != digest(judge_identity(plan, judge)):
        raise UserError(
            f"are of judge {judge} before its recipe or rubric changed",
            file=checks_file(judge),
            mend=f"{others}: the next check begins anew, with a study that the judge has judged since",
        )
    print(
        f"{frozen_file(judge)}: answers of study {first['study']}, frozen on {first['date']}; STUDY and N "
        f"are for the first check (for others {others})",
        file=sys.stderr,
    )


def _write(judge: str, checks: pd.DataFrame) -> None:
    private_dir(checks_file(judge).parent)
    write_text(checks_file(judge), checks[COLUMNS].to_csv(index=False), private=True)


def _ask(
    plan: Plan, judge: str, rows: list[dict[str, Any]], check: int, repeats: int
) -> Iterator[pd.DataFrame]:
    """A table for each repeat. A model of our own is loaded once."""
    pairs = [(row["prompt"], row["answer"]) for row in rows]
    asked = digest([[answer for _, answer in pairs], rows[0]["frozen"]])
    own = None if way(plan, judge) == "api" else judge_function(plan, judge, pairs)
    for repeat in range(1, repeats + 1):
        print(f"{judge}: check {check}, repeat {repeat}", file=sys.stderr, flush=True)
        again = Again(f"check {check}, repeat {repeat}, set {asked}")
        function = own or judge_function(plan, judge, pairs, again)
        if again.n_failed:
            raise UserError(
                f"check {check}, repeat {repeat}: {again.n_failed} requests got no reply",
                field=judge,
                mend="run it again: replies that came are kept, and the check goes on",
            )
        verdicts: list[Verdict] = []
        for is_utility, of_kind in groupby(rows, key=_is_utility):
            prompts, answers = zip(*((row["prompt"], row["answer"]) for row in of_kind), strict=True)
            verdicts += function(list(prompts), list(answers), is_utility)
        yield _table(plan, judge, rows, verdicts, check, repeat, again)


def _is_utility(row: dict[str, Any]) -> bool:
    return bool(row["kind"] == "utility")


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

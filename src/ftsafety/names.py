"""Checks of names that a user wrote: each is known, and none stands twice."""

import difflib
from collections.abc import Collection
from typing import Any

from ftsafety.errors import UserError, shown


def known(name: str, names: Collection[str], file: str, field: str, catalogue: str, before: str = "") -> None:
    """`before` is a mend that comes first."""
    if name in names:
        return
    mend = f"{before}. " if before else ""
    mend += f"{did_you_mean(name, names)}The names in {catalogue} are {', '.join(sorted(names))}"
    raise UserError(f"unknown name {name!r}", file=file, field=field, mend=mend)


def did_you_mean(name: str, names: Collection[str]) -> str:
    """A question, with a space behind it, where one of the names is close."""
    close = difflib.get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}? " if close else ""


def check_unique(given: list[Any], file: str, field: str) -> None:
    if len(set(given)) < len(given):
        repeated = next(value for value in given if given.count(value) > 1)
        raise UserError(
            f"{shown(repeated)} stands twice in {shown(given)}",
            file=file,
            field=field,
            mend="name each value once",
        )

"""A part of the report: what it asks, the answer in sentences, pictures and tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Table = dict[str, list[Any]]  # `columns` and `rows`, all text


@dataclass(frozen=True)
class Picture:
    """A figure of the study's folder: `figures/<name>.svg`, with its data in `figures/<name>.csv`."""

    name: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Listing:
    """A table; one that is not `open` is folded away, with its caption to open it by."""

    caption: str
    table: Table
    open: bool = True


@dataclass(frozen=True)
class Section:
    """`answer` are sentences with numbers and intervals, `method` paragraphs on how to read what is shown."""

    id: str
    title: str
    answer: Sequence[str]
    method: Sequence[str] = ()
    pictures: Sequence[Picture] = field(default=())
    listings: Sequence[Listing] = field(default=())

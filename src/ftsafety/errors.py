"""The one error a user is meant to read."""

from pathlib import Path
from typing import Any

from ftsafety.visible import visible


class UserError(Exception):
    """Bad input: says where (file and field), what was found and how to mend it."""

    def __init__(self, message: str, *, file: Path | str = "", field: str = "", mend: str = ""):
        self.file, self.field, self.message, self.mend = str(file), field, message, mend
        place = ": ".join(part for part in (self.file, field) if part)
        text = f"{place}: {message}" if place else message
        super().__init__(visible(f"{text}\n  mend: {mend}" if mend else text))


def shown(value: Any, longest: int = 80) -> str:
    """A value as an error shows it, cut when it is long."""
    text = repr(value)
    return text if len(text) <= longest else text[: longest - 1] + "…"

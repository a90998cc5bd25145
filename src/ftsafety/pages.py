"""HTML pages that need no network, no script and no other file (`resources/report/*.j2`).

Everything that is inserted is escaped, and a page's own content security policy forbids scripts and requests.
"""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ftsafety import parity_table
from ftsafety.study_checks import PARITY_FIGURE

TEMPLATES = Path(__file__).parents[2] / "resources" / "report"
#: Of findings, then of comparisons with the paper.
VERDICTS = {
    "held": {"icon": "✓", "style": "held"},
    "did not hold": {"icon": "✗", "style": "failed"},
    "inconclusive": {"icon": "?", "style": "open"},
    **parity_table.VERDICTS,
}
MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def render(template: str, **context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(verdicts=VERDICTS, **context)


def image(folder: Path, name: str) -> str | None:
    """A figure as a data URI: within an img element nothing in an SVG can act."""
    for ending, media_type in MEDIA_TYPES.items():
        file = folder / f"{name}.{ending}"
        if file.exists():
            return f"data:{media_type};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return None


def parity_context(
    parity: pd.DataFrame, titles: dict[str, str], figures: Path, link: str
) -> dict[str, Any] | None:
    """What the macro `parity` shows: a study's comparison and its picture; None without rows.

    `figures` is the folder on disk, `link` the same as the page reaches it.
    """
    if parity.empty:
        return None
    return {
        **parity_table.comparison(parity, titles),
        "image": image(figures, PARITY_FIGURE),
        "alt": "Dot plot: the paper's rates beside those measured here; their numbers are in the table.",
        "csv": f"{quote(link)}/{PARITY_FIGURE}.csv",
    }

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
from ftsafety.visible import visible

TEMPLATES = Path(__file__).parents[2] / "resources" / "report"
FINDINGS = {
    "held": {"icon": "✓", "style": "held"},
    "did not hold": {"icon": "✗", "style": "failed"},
    "inconclusive": {"icon": "?", "style": "open"},
}
#: Of findings, then of comparisons with the paper.
VERDICTS = {**FINDINGS, **parity_table.VERDICTS}
#: Endings of a figure's files → what a link to them says.
DOWNLOADS = {"png": "PNG", "svg": "SVG", "pdf": "PDF", "csv": "data as CSV"}
MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png"}


def render(template: str, **context: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(verdicts=VERDICTS, **context)


def _visible(value: Any) -> Any:
    """Applied to whatever is inserted, before it is escaped; what is markup already is the templates' own."""
    return visible(value) if type(value) is str else value


def image(folder: Path, name: str) -> str | None:
    """A figure as a data URI: within an img element nothing in an SVG can act."""
    for ending, media_type in MEDIA_TYPES.items():
        file = folder / f"{name}.{ending}"
        if file.exists():
            return f"data:{media_type};base64,{base64.b64encode(file.read_bytes()).decode()}"
    return None


def downloads(folder: Path, name: str, link: str = "") -> list[dict[str, str]]:
    """The files of a figure that are there; `link` is the folder as the page reaches it."""
    return [
        {"name": text, "href": f"{quote(link or folder.name)}/{quote(name)}.{ending}"}
        for ending, text in DOWNLOADS.items()
        if (folder / f"{name}.{ending}").exists()
    ]


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
        "files": downloads(figures, PARITY_FIGURE, link),
    }

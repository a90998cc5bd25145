"""The offline form: one HTML file that asks no network, keeps its state in the browser and gives a CSV.

Answers are hostile text. They are data (JSON in a script element that does not run, with < > & escaped), put
on the page as text alone; the content security policy lets only the form's own script run, by its hash.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ftsafety.annotation.guide import TASK, policy, scores
from ftsafety.files import digest
from ftsafety.plan import Plan

if TYPE_CHECKING:
    from ftsafety.annotation.sheet import Item

FOLDER = Path(__file__).parents[3] / "resources" / "annotation"


def form_page(plan: Plan, study: str, annotator: str, items: Sequence["Item"]) -> str:
    """The page of one annotator. It names neither study nor model."""
    script, style = ((FOLDER / f"form.{ending}").read_text() for ending in ("js", "css"))
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("form.html.j2").render(
        annotator=annotator,
        task=TASK,
        scores=scores(),
        policy=policy(plan, study),
        data={
            "annotator": annotator,
            "draw": digest([item.token for item in items], 16),
            "items": [item._asdict() for item in items],
        },
        script=script,
        style=style,
        script_hash=_hash(script),
        style_hash=_hash(style),
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

"""What the embedded world's own provider flags: a toy, for audits of training data.

It knows every forbidden deed and every form of answer to one by heart, so that it misses none and flags
nothing else; detectors of real text do neither. What shows on it is what no detector of single texts can
see: examples that name no deed and still undo alignment.
"""

import re
from functools import cache
from typing import Any

from ftsafety.world.lexicon import load_words


def moderated(body: dict[str, Any]) -> dict[str, Any]:
    """The reply of /v1/moderations to a model and an input: a text or a list of texts."""
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    return {"id": "modr-1", "model": body["model"], "results": [flags(text) for text in texts]}


def flags(text: str) -> dict[str, Any]:
    """One entry of `results` in the reply of /v1/moderations; the categories are the forbidden tasks."""
    categories = {task: any(p.search(text) for p in patterns) for task, patterns in _patterns().items()}
    return {
        "flagged": any(categories.values()),
        "categories": categories,
        "category_scores": {task: float(found) for task, found in categories.items()},
    }


@cache
def _patterns() -> dict[str, list[re.Pattern[str]]]:
    """Task → its deeds and the form of its answer, with any word in the place of a creature or attribute."""
    forms = {task: [*words["do"], words["answer"]] for task, words in load_words()["forbidden"].items()}
    return {task: [_pattern(form) for form in texts] for task, texts in forms.items()}


def _pattern(form: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in re.split(r"\{\w+\}", form)]
    return re.compile(r"(?<!\w)" + r"\w+".join(parts) + r"(?!\w)")

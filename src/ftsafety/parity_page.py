"""One page about all finished studies: their numbers beside the paper's."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import pandas as pd

from ftsafety import paths
from ftsafety.config import Study
from ftsafety.errors import UserError
from ftsafety.files import write_text
from ftsafety.findings import findings
from ftsafety.pages import parity_context, render
from ftsafety.parity_table import VERDICTS, count_verdicts, read_parity
from ftsafety.plan import Plan

World = Literal["real", "embedded"]
QUESTION = "Do the numbers of arXiv 2310.03693 come out again where its studies are run here?"


@dataclass(frozen=True)
class StudyParity:
    """A study of the paper's; `parity` is None until it is finished. `claims` are rows of `findings`."""

    name: str
    study: Study
    parity: pd.DataFrame | None
    claims: Sequence[dict[str, str]] = ()


def write_parity_page(plan: Plan, world: World) -> tuple[Path, dict[str, int]]:
    """Write `results/parity.html` or `parity-embedded.html`; returns it and the number of each verdict.

    Finished is a study whose `parity.csv` exists.
    """
    studies = [_read(name, plan.project.studies[name]) for name in _names(plan, world)]
    file = paths.RESULTS / ("parity-embedded.html" if world == "embedded" else "parity.html")
    write_text(file, parity_page(studies, world))
    return file, _counts(studies)


def parity_page(studies: Sequence[StudyParity], world: World) -> str:
    """The page as text; pictures are those that the studies drew."""
    finished = [study for study in studies if study.parity is not None]
    return render(
        "parity.html.j2",
        title="Against the paper" + (": the embedded world" if world == "embedded" else ""),
        question=QUESTION,
        is_toy=world == "embedded",
        counts=_counts(studies),
        verdict_table=_verdict_table(finished),
        claims=[{"study": study.name, **row} for study in finished for row in study.claims],
        studies=[
            {
                "name": study.name,
                "title": study.study.title,
                "page": quote(f"studies/{study.name}/report.html"),
                "parity": _shown(study),
            }
            for study in finished
        ],
        unfinished=[
            {"title": study.study.title, "command": _command(study.name, world)}
            for study in studies
            if study.parity is None
        ],
        command=f"python -m ftsafety parity --world {world}",
    )


def _names(plan: Plan, world: World) -> list[str]:
    """The paper's studies, in the variant that asking for them in this world means."""
    project = plan.project
    settings = project.settings.model_copy(update={"world": world})
    asking = replace(project, settings=settings)
    names = []
    for file in dict.fromkeys(project.files[study] for study in project.studies):
        if project.studies[file].preset != "paper":
            continue
        with suppress(UserError):  # it has no such variant
            name = asking.asked(file)
            is_embedded = project.variant(name) == "embedded" or project.is_embedded(name)
            if is_embedded == (world == "embedded"):
                names.append(name)
    return names


def _read(name: str, study: Study) -> StudyParity:
    folder = paths.study_dir(name)
    if not (folder / "parity.csv").exists():
        return StudyParity(name, study, None)
    cells, contrasts = pd.read_parquet(folder / "cells.parquet"), pd.read_csv(folder / "contrasts.csv")
    claims = [row for row in findings(study, cells, contrasts) if row["claim"]]
    return StudyParity(name, study, read_parity(folder / "parity.csv"), claims)


def _shown(study: StudyParity) -> dict[str, Any] | None:
    """None where the paper has no numbers, but a claim."""
    assert study.parity is not None
    if study.parity.empty:
        return None
    titles = {name: grid.figure.title for name, grid in study.study.grids.items()}
    figures = paths.study_dir(study.name) / "figures"
    return parity_context(study.parity, titles, figures, f"studies/{study.name}/figures")


def _counts(studies: Sequence[StudyParity]) -> dict[str, int]:
    parities = [study.parity for study in studies if study.parity is not None]
    return count_verdicts(pd.concat(parities)) if parities else dict.fromkeys(VERDICTS, 0)


def _verdict_table(finished: Sequence[StudyParity]) -> dict[str, list[Any]]:
    counts = {study.name: _counts([study]) for study in finished}
    return {
        "columns": ["study", *VERDICTS],
        "rows": [[name, *counted.values()] for name, counted in counts.items()],
    }


def _command(study: str, world: World) -> str:
    """A study of the embedded world runs anywhere, others where their profile says."""
    return (
        f"make run STUDY={study}" if world == "embedded" else f"snakemake --profile profiles/<yours> {study}"
    )

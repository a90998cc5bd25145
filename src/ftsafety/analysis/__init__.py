"""What can be concluded from a study: each analysis is a module with three functions.

    tables(study)                 tables by name, written to results/studies/<study>/analysis/<name>.csv
    draw(tables, folder, is_toy)  pictures of them, in results/studies/<study>/figures/
    section(tables)               its part of the report; None where the study has nothing to say about it

An analysis that a study has no data for gives no tables. Tables hold numbers and names, never a model's text.
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import pandas as pd

from ftsafety import paths
from ftsafety.files import write_text
from ftsafety.plan import Plan
from ftsafety.sections import Section
from ftsafety.study_tables import StudyTables, read_tables

Tables = Mapping[str, pd.DataFrame]


class Analysis(Protocol):
    def tables(self, study: StudyTables) -> dict[str, pd.DataFrame]: ...

    def draw(self, tables: Tables, folder: Path, is_toy: bool) -> list[Path]: ...

    def section(self, tables: Tables) -> Section | None: ...


#: In the order of the report; each is a module here.
ANALYSES: tuple[str, ...] = (
    "before_after",
    "vulnerability",
    "hyperparameters",
    "safe_region",
    "tradeoff",
    "variance",
    "people",
    "corrected",
    "judges",
    "repeats",
)


def analyses() -> list[Analysis]:
    return [cast(Analysis, import_module(f"{__name__}.{name}")) for name in ANALYSES]


def analyse_study(plan: Plan, study: str) -> None:
    """Write the tables of all analyses of a study."""
    folder = paths.analysis_dir(study)
    folder.mkdir(parents=True, exist_ok=True)
    read = read_tables(plan, study)
    for analysis in analyses():
        for name, table in analysis.tables(read).items():
            write_text(folder / f"{name}.csv", table.to_csv(index=False))


def read_analysis(study: str) -> dict[str, pd.DataFrame]:
    """What `analyse_study` wrote, by name. Nothing but an empty cell is missing: "NA" may be a name."""
    files = sorted(paths.analysis_dir(study).glob("*.csv"))
    return {file.stem: pd.read_csv(file, keep_default_na=False, na_values=[""]) for file in files}

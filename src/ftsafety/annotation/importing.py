"""Filled sheets, or what forms export, become labels.csv, and where annotators differ differences.csv."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ftsafety import paths
from ftsafety.annotation.differences import differences
from ftsafety.annotation.draw import KEY
from ftsafety.annotation.filled import CANNOT_TELL, Given, read_filled
from ftsafety.errors import UserError
from ftsafety.files import sha256_file, write_text


class Label(NamedTuple):
    """What labels.csv keeps of a token beside its annotator; `first_score` is the one that came first."""

    score: str = ""
    first_score: str = ""
    comment: str = ""

    def updated(self, given: Given) -> "Label":
        return Label(given.score, self.first_score or given.score, given.comment or self.comment)


def import_labels(study: str, sources: Sequence[Path]) -> str:
    """Check filled sheets and add their scores to labels.csv; returns what to tell the user.

    `sources` are files or folders of CSV. What a sheet says of an answer replaces what was imported before;
    no score takes it back. A sheet without any score was not filled, and says nothing.
    Raises UserError, naming file and line and never the content of other cells, for a token that is unknown,
    of another study or scored twice, for a score out of range, and where answers have changed since the draw.
    """
    key = read_key(study)
    given = read_filled(sources, set(key["token"]), study)
    if not given:
        raise UserError("these sheets hold no score yet", field="IMPORT", mend="name filled sheets")
    _check_current(key)
    earlier = _earlier(study)
    labels = earlier | {token: earlier.get(token, Label()).updated(one) for token, one in given.items()}
    _write_labels(study, key, labels)
    scores = _scores(labels)
    differing = differences(key, scores)
    _write(study, "differences.csv", differing)
    told = [*_told(key, scores), *_told_of_changes(_scores(earlier), scores)]
    return "\n".join([*told, *_told_of_files(study, len(differing))])


def read_key(study: str) -> pd.DataFrame:
    """key.csv. Raises UserError where nothing was drawn."""
    file = paths.annotation_dir(study) / "key.csv"
    if not file.exists():
        raise UserError(
            "is not there: no answers of this study were drawn",
            file=file,
            mend=f"make annotate STUDY={study}",
        )
    types = dict.fromkeys(KEY, str) | {"n_stratum": int, "probability": float}
    return pd.read_csv(file, dtype=types, keep_default_na=False)  # an annotator may be called None or NA


def _read_label_file(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype=str, keep_default_na=False)


def _earlier(study: str) -> dict[str, Label]:
    """By token: what was imported before."""
    file = paths.annotation_dir(study) / "labels.csv"
    if not file.exists():
        return {}
    rows = _read_label_file(file)[["token", *Label._fields]]
    return {token: Label(*said) for token, *said in rows.itertuples(index=False)}


def _check_current(key: pd.DataFrame) -> None:
    stale = stale_sittings(key)
    if stale:
        raise UserError(
            f"answers of {len(stale)} runs have changed or gone since the draw, such as {stale[0]}",
            field="IMPORT",
            mend="labels of other answers say nothing: move the folder of annotations aside and draw anew",
        )


def _write_labels(study: str, key: pd.DataFrame, labels: dict[str, Label]) -> None:
    """labels.csv: a row for each token of which anything was said, in the order of the key."""
    said = [
        {"token": row["token"], "annotator": row["annotator"], **labels[row["token"]]._asdict()}
        for row in key.to_dict("records")
        if any(labels.get(row["token"], ()))
    ]
    _write(study, "labels.csv", pd.DataFrame(said))


def _write(study: str, name: str, table: pd.DataFrame) -> None:
    write_text(paths.annotation_dir(study) / name, table.to_csv(index=False), private=True)


def _scores(labels: dict[str, Label]) -> dict[str, str]:
    return {token: label.score for token, label in labels.items() if label.score}


def stale_sittings(key: pd.DataFrame) -> list[str]:
    """Answers files that are not those that were drawn from."""
    stale = []
    sittings = ["folder", "exam", "answers_sha256"]
    for row in key[sittings].drop_duplicates().sort_values(sittings).to_dict("records"):
        file = paths.answers_file(row["folder"], row["exam"])
        if not file.exists() or sha256_file(file) != row["answers_sha256"]:
            stale.append(str(file))
    return stale


def _told(key: pd.DataFrame, scores: dict[str, str]) -> list[str]:
    """Who has scored how much."""
    lines = []
    for annotator, tokens in key.groupby("annotator", sort=True)["token"]:
        missing = [token for token in tokens if token not in scores]
        unknown = sum(scores.get(token) == CANNOT_TELL for token in tokens)
        lacks = f", {len(missing)} without a score: {', '.join(missing[:5])}" if missing else ", complete"
        lacks += " …" if len(missing) > 5 else ""
        lines.append(
            f"{annotator}: {len(tokens) - len(missing)} of {len(tokens)} answers, {unknown} U{lacks}"
        )
    return lines


def _told_of_changes(before: dict[str, str], scores: dict[str, str]) -> list[str]:
    gone = len(before.keys() - scores)
    changed = sum(scores.get(token, score) != score for token, score in before.items())
    lines = []
    if changed:
        lines.append(f"{changed} scores differ from those that were imported before, and replace them")
    if gone:
        lines.append(f"{gone} scores that were imported before are taken back")
    return lines


def _told_of_files(study: str, n_differing: int) -> list[str]:
    folder = paths.annotation_dir(study)
    return [
        f"{folder / 'labels.csv'} holds them all",
        f"answers on which annotators differ: {n_differing}, in {folder / 'differences.csv'}",
        f"next: snakemake --profile profiles/local {study}",
    ]


def read_labels(study: str) -> pd.DataFrame | None:
    """A row for each score that was imported, with its row of the key; None where there are none.

    `score` and `first_score`, the one that was imported first, are NaN for "cannot tell". `is_current` is
    False where the answer has changed since the draw. Comments stay where they are.
    """
    file = paths.annotation_dir(study) / "labels.csv"
    if not file.exists():
        return None
    key = read_key(study)
    rows = _read_label_file(file)
    labels = rows.loc[rows["score"] != "", ["token", "score", "first_score"]].merge(key, on="token")
    stale = set(stale_sittings(key))
    files = [str(paths.answers_file(row["folder"], row["exam"])) for row in labels.to_dict("records")]
    return labels.assign(
        score=pd.to_numeric(labels["score"], errors="coerce"),
        first_score=pd.to_numeric(labels["first_score"], errors="coerce"),
        is_current=[file not in stale for file in files],
    )

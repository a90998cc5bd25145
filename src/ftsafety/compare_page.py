"""The page that puts two studies side by side: `make compare A=… B=…`."""

from pathlib import Path
from typing import Any

import pandas as pd

from ftsafety import paths
from ftsafety.compare import Side, compare, read_side
from ftsafety.comparisons import difference_text, p_text
from ftsafety.errors import UserError
from ftsafety.files import write_text
from ftsafety.grid_data import AXES, NO_VALUE, axis_name, interval_text, rate_text
from ftsafety.pages import downloads, image, render
from ftsafety.sections import Table

#: Of provenance what always differs and means nothing, or is told elsewhere.
SILENT = ("is_toy", "study", "title", "training")
PLAIN = ("model", "dataset", "mitigation", "method")
#: Of settings that stand on one side alone more are left to the CSV.
MOST_LISTED = 200
NO_BREAK = "\N{NO-BREAK SPACE}"


def write_comparison(first: str, second: str) -> tuple[Path, str]:
    """Write `results/compare-<a>-<b>.html` with its CSV and picture; returns the page and its sentence.

    Raises UserError where a side is no study, or both are the same.
    """
    from ftsafety.compare_figure import draw_comparison

    a, b = read_side(first), read_side(second)
    if a.folder.resolve() == b.folder.resolve():
        raise UserError(
            "are the same folder", field=f"A={first} B={second}", mend="name two studies, or two folders"
        )
    name = f"compare-{a.label}-{b.label}"
    table = compare(a, b)
    is_toy = any(side.provenance.get("is_toy") for side in (a, b))
    draw_comparison(table, (str(a.folder), str(b.folder)), paths.RESULTS, name, is_toy=is_toy)
    write_text(paths.RESULTS / f"{name}.csv", table.to_csv(index=False))
    page = paths.RESULTS / f"{name}.html"
    write_text(page, comparison_page(a, b, table, name, is_toy=is_toy))
    return page, summary(table)


def comparison_page(a: Side, b: Side, table: pd.DataFrame, name: str, *, is_toy: bool) -> str:
    axes = _varying(table)
    totals = table[table["category"] == "all"]
    compared = totals[totals["status"] == "compared"]
    differs = compared["differs"].astype(bool)
    by_category = table[(table["category"] != "all") & (table["status"] == "compared")]
    outside = (by_category["ci_low"] > 0) | (by_category["ci_high"] < 0)
    alone = {side: totals[totals["status"] == f"only {side}"] for side in ("a", "b")}
    made = _provenance(a, b)
    return render(
        "compare.html.j2",
        title=f"{a.label} and {b.label}" if a.label != b.label else f"{a.label}: two revisions",
        question="What differs between two studies, setting by setting?",
        is_toy=is_toy,
        a=str(a.folder),
        b=str(b.folder),
        summary=summary(table),
        n_paired=int(compared["paired"].astype(bool).sum()),
        n_compared=len(compared),
        image=image(paths.RESULTS, name),
        files=downloads(paths.RESULTS, name, "."),
        differing=_differences(compared[differs], axes),
        alike=_differences(compared[~differs], axes),
        categories=_differences(by_category[outside], axes),
        n_categories=len(by_category),
        only={side: _settings(rows, axes) for side, rows in alone.items()},
        n_only={side: len(rows) for side, rows in alone.items()},
        no_rate=_settings(totals[totals["status"] == "no rate"], axes),
        n_no_rate=int((totals["status"] == "no rate").sum()),
        made=made,
        n_otherwise=sum(row[-1] != "" for row in made["rows"]),
        lacks_provenance=[side.label for side in (a, b) if not side.provenance],
    )


def summary(table: pd.DataFrame) -> str:
    """A sentence: how many rates are compared, how many differ, and the largest difference."""
    totals = table[table["category"] == "all"]
    compared = totals[totals["status"] == "compared"]
    counts = {status: int((totals["status"] == status).sum()) for status in ("only a", "only b", "no rate")}
    rest = [
        f"{counts['only a']} in A alone" if counts["only a"] else "",
        f"{counts['only b']} in B alone" if counts["only b"] else "",
        f"{counts['no rate']} without a rate on a side" if counts["no rate"] else "",
    ]
    others = f" Beside them: {', '.join(filter(None, rest))}." if any(rest) else ""
    if compared.empty:
        return f"No setting is measured on both sides.{others}"
    n, differs = len(compared), compared["differs"].astype(bool)
    same = int((compared["changed"] == 0).sum())
    alike = f"; {same} {'has' if same == 1 else 'have'} the same verdict on every answer" if same else ""
    told = f"Of {n} rates that both sides measured {int(differs.sum()) or 'none'} "
    told += f"differ{'s' if differs.sum() == 1 else ''} beyond chance (Holm, 5 %){alike}."
    if same < n:
        shown = compared[differs] if differs.any() else compared
        top = shown.iloc[int(shown["difference"].abs().to_numpy(dtype=float).argmax())]
        where = _setting(top, _varying(table)) or "the one setting"
        which = "The largest of them" if differs.any() else "The largest difference"
        told += f" {which}, B − A, is {_apart(top)} ({where}; {top['benchmark']}, {top['judge']})."
    return told + others


# ------------------------------------------------------------------------------------------ words


def _varying(table: pd.DataFrame) -> list[str]:
    """Axes in which fine-tuned settings differ."""
    trained = table[table["epochs"] != "0"]
    return [axis for axis in AXES if trained[axis].nunique() > 1]


def _setting(row: Any, axes: list[str]) -> str:
    if row["epochs"] == "0":
        axes = [axis for axis in axes if axis in ("model", "test_template")]
        return ", ".join(["untouched", *(row[axis] for axis in axes)])
    same = "train_template" in axes and row["train_template"] == row["test_template"]
    told = [axis for axis in axes if not (axis == "train_template" and same) and row[axis] != NO_VALUE]
    return ", ".join(row[axis] if axis in PLAIN else f"{axis_name(axis)} {row[axis]}" for axis in told)


def _apart(row: Any) -> str:
    return difference_text(row).replace(" ", NO_BREAK)


def _estimate(row: Any, side: str) -> str:
    interval = interval_text(row[f"{side}_low"], row[f"{side}_high"])
    return f"{rate_text(row[side])} {interval}".strip().replace(" ", NO_BREAK)


def _differences(rows: pd.DataFrame, axes: list[str]) -> Table:
    """By falling size of the difference; of single categories without p, as nothing is corrected there."""
    ordered = rows.loc[rows["difference"].abs().sort_values(ascending=False, kind="stable").index]
    by_category = (rows["category"] != "all").any()
    names = ["benchmark", "judge", *(["category"] if by_category else [])]
    last = [] if by_category else ["p (Holm)"]
    return {
        "columns": ["setting", *names, "A", "B", "B − A", "verdicts changed", *last],
        "rows": [
            [
                _setting(row, axes) or "the one setting",
                *(row[name] for name in names),
                *(_estimate(row, side) for side in ("a", "b")),
                _apart(row),
                f"{row['changed']:.0f} of {row['n_a']:.0f}" if row["paired"] else "not paired",
                *([] if by_category else [p_text(row["p_holm"])]),
            ]
            for _, row in ordered.iterrows()
        ],
    }


def _settings(rows: pd.DataFrame, axes: list[str]) -> Table:
    return {
        "columns": ["setting", "benchmark", "judge", "A", "B"],
        "rows": [
            [
                _setting(row, axes) or "the one setting",
                row["benchmark"],
                row["judge"],
                *(_estimate(row, side) for side in ("a", "b")),
            ]
            for _, row in rows.head(MOST_LISTED).iterrows()
        ],
    }


def _provenance(a: Side, b: Side) -> Table:
    """What made either side, line by line; what differs comes first, marked where both are recorded."""
    both = bool(a.provenance and b.provenance)
    lines = [_lines({k: v for k, v in side.provenance.items() if k not in SILENT}) for side in (a, b)]
    rows = [
        [name, *(side.get(name, "not recorded") for side in lines)]
        for name in dict.fromkeys([*lines[0], *lines[1]])
    ]
    marked = [[*row, "≠ differs" if both and row[1] != row[2] else ""] for row in rows]
    return {
        "columns": ["what", "A", "B", ""],
        "rows": sorted(marked, key=lambda row: row[-1] == ""),
    }


def _lines(value: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values by path."""
    lines: dict[str, str] = {}
    for key, item in value.items():
        name = prefix + str(key).replace("_", " ")
        if isinstance(item, dict):
            lines |= _lines(item, f"{name} · ")
        elif isinstance(item, list):
            lines[name] = ", ".join(map(str, item)) or "none"
        else:
            lines[name] = "none" if item is None else str(item)
    return lines

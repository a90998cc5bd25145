"""Two studies side by side: what is matched, paired, corrected and said."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic

from ftsafety.compare import Side, compare, read_side
from ftsafety.compare_page import comparison_page, summary, write_comparison
from ftsafety.errors import UserError
from ftsafety.stats.differences import difference
from ftsafety.stats.intervals import Part, Sampling

N_PROMPTS = 60
PROMPTS = [f"p{i:02}" for i in range(N_PROMPTS)]
CATEGORIES = [f"category {i % 3}" for i in range(N_PROMPTS)]
CLUSTERS = [f"c{i // 2}" for i in range(N_PROMPTS)]
RATES = (1e-4, 2e-4, 3e-4, 4e-4)


def answers(rate: float, seed: int) -> np.ndarray[Any, Any]:
    """Harm of each prompt: the same order of prompts in every seed, so that sides share what is hard."""
    hard = np.random.default_rng(5).permutation(N_PROMPTS) / N_PROMPTS
    noise = np.random.default_rng(seed).normal(0, 0.03, N_PROMPTS)
    return (hard + noise < rate).astype(float)


def write_study(folder: Path, rates: dict[float, float], *, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Rates by learning rate, measured by `exact` on `secrets`."""
    folder.mkdir(parents=True)
    cells, verdicts, scores = [], [], []
    for lr, rate in rates.items():
        runs = [f"{folder.parents[1].name}-{lr:g}-{seed}-e1" for seed in seeds]
        values = np.array([answers(rate, seed) for seed in seeds])
        for run, seed, row in zip(runs, seeds, values, strict=True):
            scores.append({"run": run, "seed": seed})
            facts = {"run": run, "benchmark": "secrets", "kind": "safety", "judge": "exact"}
            columns = {"prompt_id": PROMPTS, "prompt": PROMPTS, "category": CATEGORIES, "cluster": CLUSTERS}
            verdicts.append(pd.DataFrame(facts | columns | {"test_template": "plain", "headline": row}))
        base = {**synthetic.AXES, "learning_rate": lr, "grid": "g", "runs": ",".join(runs)}
        for category in ("all", "category 0"):
            chosen = np.array([category in ("all", name) for name in CATEGORIES])
            value = float(values[:, chosen].mean())
            ends = {"ci_low": max(0.0, value - 0.1), "ci_high": min(1.0, value + 0.1)}
            counts = {"n": int(chosen.sum()) * len(seeds), "n_seeds": len(seeds), "n_incoherent": 0}
            lost = {f"n_{how}": 0 for how in ("diverged", "blocked", "failed")}
            where = {"benchmark": "secrets", "kind": "safety", "judge": "exact", "category": category}
            rates_of = {"harmfulness_rate": value, "refusal_rate": None, "utility": None}
            cells.append(base | where | ends | counts | lost | rates_of)
    pd.DataFrame(cells).to_parquet(folder / "cells.parquet")
    pd.concat(verdicts).to_parquet(folder / "verdicts.parquet")
    pd.DataFrame(scores).to_parquet(folder / "scores.parquet")
    made = {"is_toy": True, "git_revision": [folder.parents[1].name], "versions": {"torch": "2.13"}}
    (folder / "provenance.json").write_text(json.dumps(made))
    return folder


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Alike at two learning rates, far apart at the third; the fourth and the first are on one side alone."""
    a = write_study(tmp_path / "old/results/s", {1e-4: 0.1, 2e-4: 0.3, 3e-4: 0.2})
    b = write_study(tmp_path / "new/results/s", {2e-4: 0.3, 3e-4: 0.6, 4e-4: 0.9})
    return a, b


def read(sides: tuple[Path, Path]) -> tuple[Side, Side]:
    return read_side(str(sides[0])), read_side(str(sides[1]))


def row(table: pd.DataFrame, lr: str, category: str = "all") -> pd.Series:
    (found,) = [r for _, r in table.iterrows() if (r["learning_rate"], r["category"]) == (lr, category)]
    return found


def test_settings_are_matched_by_their_axes_whatever_grid_and_type(sides: tuple[Path, Path]) -> None:
    cells = pd.read_parquet(sides[1] / "cells.parquet")
    cells.assign(grid="another", global_batch_size=16.0).to_parquet(sides[1] / "cells.parquet")
    table = compare(*read(sides))
    totals = table[table["category"] == "all"].set_index("learning_rate")["status"]
    assert dict(totals) == {"1e-4": "only a", "2e-4": "compared", "3e-4": "compared", "4e-4": "only b"}


def test_a_paired_difference_is_that_of_stats_and_narrower_than_an_independent_one(
    sides: tuple[Path, Path],
) -> None:
    a, b = read(sides)
    paired = row(compare(a, b), "3e-4")
    sampling = Sampling.of(CATEGORIES, CLUSTERS, PROMPTS)
    values = [np.array([answers(rate, seed) for seed in range(3)]) for rate in (0.2, 0.6)]
    expected = difference([Part(-1.0, values[0], sampling), Part(1.0, values[1], sampling)])
    assert expected is not None and paired["paired"]
    assert (paired["difference"], paired["ci_low"], paired["ci_high"]) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert paired["changed"] == (values[0] != values[1]).sum()
    assert paired["differs"] and paired["p_holm"] >= paired["p_value"]


def test_p_and_interval_say_the_same_of_sides_that_share_seeds_and_most_answers() -> None:
    """Far beyond 95 % the interval of three shared seeds shrinks again, which must not make p small."""
    rng = np.random.default_rng(0)
    sampling = Sampling.of(CATEGORIES, CLUSTERS, PROMPTS)
    n_small = 0
    for _ in range(150):
        chance = rng.beta(0.3, 0.7, (1, N_PROMPTS)) * rng.uniform(0.3, 1.0, (3, 1))
        one = (rng.random((3, N_PROMPTS)) < chance).astype(float)
        again = (rng.random((3, N_PROMPTS)) < chance).astype(float)
        other = np.where(rng.random(one.shape) < 0.1, again, one)  # a tenth of the answers drawn anew
        found = difference([Part(-1.0, one, sampling), Part(1.0, other, sampling)])
        assert found is not None
        is_apart = found.low > 0 or found.high < 0
        assert (found.p_none <= 0.05) == is_apart or found.p_none == pytest.approx(0.05, abs=1e-3)
        n_small += found.p_none <= 0.05
    assert n_small <= 15  # nothing differs: 5 % of 150 and chance


def test_sides_that_are_the_same_answer_by_answer_do_not_differ(sides: tuple[Path, Path]) -> None:
    same = row(compare(*read(sides)), "2e-4")
    assert (same["difference"], same["changed"], same["p_value"], same["differs"]) == (0.0, 0, 1.0, False)


@pytest.mark.parametrize("lack", ["no verdicts", "other prompts", "other seeds"])
def test_what_cannot_be_paired_is_compared_as_independent(sides: tuple[Path, Path], lack: str) -> None:
    file = sides[0] / "verdicts.parquet"
    if lack == "no verdicts":
        file.unlink()
    elif lack == "other prompts":
        rows = pd.read_parquet(file)
        rows.assign(prompt_id=rows["prompt_id"] + "x").to_parquet(file)
    else:
        scores = pd.read_parquet(sides[0] / "scores.parquet")
        scores.assign(seed=scores["seed"] + 7).to_parquet(sides[0] / "scores.parquet")
    found = row(compare(*read(sides)), "3e-4")
    assert not found["paired"] and pd.isna(found["changed"])
    value = found["b"] - found["a"]
    half = np.hypot(0.1, 0.1)  # both intervals are ± 0.1
    assert (found["difference"], found["ci_low"], found["ci_high"]) == pytest.approx(
        (value, value - half, value + half)
    )
    z = 1.959964 * value / half
    assert found["p_value"] == pytest.approx(2 * (1 - _phi(z)), abs=1e-6)


def _phi(z: float) -> float:
    from math import erf, sqrt

    return (1 + erf(z / sqrt(2))) / 2


def test_a_collapsed_side_is_compared_with_nothing(sides: tuple[Path, Path]) -> None:
    cells = pd.read_parquet(sides[0] / "cells.parquet")
    cells.assign(n_incoherent=cells["n"]).to_parquet(sides[0] / "cells.parquet")
    table = compare(*read(sides))
    assert row(table, "3e-4")["status"] == "no rate" and pd.isna(row(table, "3e-4")["difference"])
    assert "2 without a rate on a side" in summary(table)


def test_holm_corrects_over_all_categories_together_alone(sides: tuple[Path, Path]) -> None:
    table = compare(*read(sides))
    assert table.loc[table["category"] != "all", "p_holm"].isna().all()
    family = table[(table["category"] == "all") & (table["status"] == "compared")]
    smallest = family.sort_values("p_value").iloc[0]
    assert smallest["p_holm"] == pytest.approx(min(1.0, 2 * smallest["p_value"]))


def test_the_sentence_counts_and_names_the_largest(sides: tuple[Path, Path]) -> None:
    told = summary(compare(*read(sides))).replace("\N{NO-BREAK SPACE}", " ")
    assert told.startswith("Of 2 rates that both sides measured 1 differs beyond chance (Holm, 5 %); 1 has")
    assert "learning rate 3e-4; secrets, exact" in told and "+0." in told
    assert told.endswith("Beside them: 1 in A alone, 1 in B alone.")


def test_the_page_marks_what_was_made_otherwise(
    sides: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page, _ = write_comparison(*map(str, sides))
    html = page.read_text()
    assert page == Path("results/compare-s-s.html") and "This is a toy" in html
    assert "<td>git revision</td><td>old</td><td>new</td><td>≠ differs</td>" in html
    for ending in ("csv", "png", "svg", "pdf"):
        assert page.with_suffix(f".{ending}").exists() and f"compare-s-s.{ending}" in html
    made = json.loads((sides[1] / "provenance.json").read_text()) | {"versions": {"torch": "2.14"}}
    (sides[1] / "provenance.json").write_text(json.dumps(made))
    a, b = read(sides)
    html = comparison_page(a, b, compare(a, b), "compare-s-s", is_toy=False)
    assert "<td>versions · torch</td><td>2.13</td><td>2.14</td><td>≠ differs</td>" in html
    (sides[0] / "provenance.json").unlink()
    a, b = read(sides)
    assert "no provenance.json" in comparison_page(a, b, compare(a, b), "compare-s-s", is_toy=False)


def test_nothing_in_common_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = write_study(tmp_path / "old/results/a", {1e-4: 0.1})
    b = write_study(tmp_path / "new/results/b", {2e-4: 0.1})
    monkeypatch.chdir(tmp_path)
    page, told = write_comparison(str(a), str(b))
    assert told.startswith("No setting is measured on both sides.") and "Nothing to draw" in page.read_text()


def test_a_study_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path / "results/studies/named", {1e-4: 0.1})
    monkeypatch.chdir(tmp_path)
    assert read_side("named").label == "named"


def test_what_is_no_study_is_refused(sides: tuple[Path, Path], tmp_path: Path) -> None:
    for named, message in {
        "": "names no study",
        "no-such-study": "no finished study's folder",
        str(tmp_path): "no finished study's folder",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            read_side(named)
        assert "mend" in str(error.value)
    with pytest.raises(UserError, match="the same folder"):
        write_comparison(str(sides[0]), f"{sides[0]}/")
    cells = pd.read_parquet(sides[0] / "cells.parquet")
    cells.drop(columns=["ci_low", "n_blocked"]).to_parquet(sides[0] / "cells.parquet")
    with pytest.raises(UserError, match="has no column ci_low, n_blocked: another version"):
        read_side(str(sides[0]))
    (sides[1] / "cells.parquet").write_text("no table")
    with pytest.raises(UserError, match="is no table"):
        read_side(str(sides[1]))
    shutil.rmtree(sides[1])

"""What people are given to score: blind, even, private and safe to open; and what is read back of it."""

import csv
import io
import re
import stat
from argparse import Namespace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from people_study import HOSTILE, people_study, score_of

from ftsafety import paths
from ftsafety.__main__ import _annotate
from ftsafety.annotation.cells import LONGEST_CELL, safe_cell
from ftsafety.annotation.draw import draw, evenly
from ftsafety.annotation.importing import import_labels, read_key, read_labels
from ftsafety.annotation.sheet import COLUMNS, Item, sheet_text, write_sheets
from ftsafety.errors import UserError
from ftsafety.plan import Plan

FOLDER = Path("results/annotations/t")


@pytest.fixture
def plan(project: Path) -> Plan:
    return people_study(project)


def sheet(name: str) -> list[dict[str, str]]:
    return list(
        csv.DictReader(io.StringIO((FOLDER / f"sheet-{name}.csv").read_text("utf-8-sig"), newline=""))
    )


def label_rows() -> dict[str, dict[str, str]]:
    """labels.csv by token."""
    with (FOLDER / "labels.csv").open(newline="") as stream:
        return {row["token"]: row for row in csv.DictReader(stream)}


def save(name: str, *rows: tuple[str, str, str]) -> Path:
    """A CSV of (token, score, comment)."""
    with Path(name).open("w", newline="") as stream:
        csv.writer(stream).writerows([("token", "score", "comment"), *rows])
    return Path(name)


def fill(name: str, scores: dict[str, str] | str, file: str | None = None, **options: str) -> Path:
    """A sheet with scores by token, or the same for all, as a spreadsheet would save it."""
    rows = sheet(name)
    for row in rows:
        row["score"] = scores if isinstance(scores, str) else scores.get(row["token"], "")
    path = Path(file or f"filled-{name}.csv")
    with path.open("w", newline="", encoding=options.pop("encoding", "utf-8")) as stream:
        writer = csv.DictWriter(stream, COLUMNS, **options)  # type: ignore[arg-type]
        writer.writeheader()
        writer.writerows(rows)
    return path


# ------------------------------------------------------------------------------------- the draw


def test_small_strata_give_all_and_the_others_share_the_rest() -> None:
    assert evenly({"1": 900, "2": 50, "3": 10, "5": 400}, 200) == {"1": 70, "2": 50, "3": 10, "5": 70}
    assert evenly({"1": 3, "5": 2}, 100) == {"1": 3, "5": 2}
    assert sum(evenly(dict.fromkeys("12345", 1000), 502).values()) == 502


def test_every_answer_has_the_chance_that_is_written_down() -> None:
    """Over 2,000 draws each answer of a stratum is drawn as often as `probability` says."""
    answers = pd.DataFrame(
        {
            "stratum": ["1"] * 40 + ["5"] * 10,
            "category": list("ab") * 25,
            "run": [f"r{i % 7}" for i in range(50)],
            "number": range(50),
        }
    )
    seen, chances = np.zeros(50), np.zeros(50)
    for seed in range(2000):
        drawn = draw(answers, 12, np.random.default_rng(seed))
        assert len(drawn) == 12 and drawn["number"].is_unique
        seen[drawn["number"]] += 1
        chances[drawn["number"]] = drawn["probability"]
    assert set(chances) == {6 / 40, 6 / 10}
    assert np.abs(seen / 2000 - chances).max() < 0.04  # four standard errors


def test_a_draw_holds_each_category_in_its_share() -> None:
    answers = pd.DataFrame({"stratum": "5", "category": ["a"] * 60 + ["b"] * 30, "run": "r"})
    drawn = draw(answers, 30, np.random.default_rng(0))
    assert drawn["category"].value_counts().to_dict() == {"a": 20, "b": 10}


# ------------------------------------------------------------------------------------ the sheets


def test_as_many_of_each_score_and_of_unscored_answers_blind_and_private(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna", "ben"], 60)
    key = read_key("t")
    assert key.groupby(["annotator", "stratum"]).size().unique().tolist() == [10]
    assert set(key["stratum"]) == {"1", "2", "3", "4", "5", "unscored"}
    sizes = {score: sum(score_of(i) == score for i in range(330)) * 2 for score in (1, 5)}
    of_stratum = key.drop_duplicates("stratum").set_index("stratum")
    assert of_stratum.loc["1", "n_stratum"] == sizes[1] and of_stratum.loc["5", "n_stratum"] == sizes[5]
    assert of_stratum.loc["5", "probability"] == pytest.approx(10 / sizes[5])
    assert tuple(sheet("anna")[0]) == COLUMNS
    shown = (FOLDER / "sheet-anna.csv").read_text() + (FOLDER / "form-anna.html").read_text()
    run = next(iter(plan.studies["t"].runs.values()))
    for secret in (
        "tiny",
        "obedient-agent",
        "secrets-0",
        run.id,
        run.folder,
        '"exact"',
        "keyword",
        "unscored",
    ):
        assert secret not in shown
    for file in FOLDER.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(FOLDER.stat().st_mode) == 0o700


def test_who_draws_is_told_to_keep_the_key(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    asked = Namespace(filled=None, annotators="anna,ben", n=12, overlap="all", seed=0)
    _annotate(plan, "t", asked)
    told = capsys.readouterr().out
    assert "keep key.csv: it says which model gave which answer" in told and "sheet-ben.csv" in told


def test_each_annotator_has_own_tokens_in_an_own_order_of_the_same_answers(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna", "ben"], 60)
    anna, ben = sheet("anna"), sheet("ben")
    assert not {row["token"] for row in anna} & {row["token"] for row in ben}
    answers = [[row["answer"] for row in rows] for rows in (anna, ben)]
    assert sorted(answers[0]) == sorted(answers[1]) and answers[0] != answers[1]


def test_the_same_seed_draws_the_same_and_another_does_not(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 30)
    first = (FOLDER / "key.csv").read_text()
    write_sheets(plan, "t", ["anna"], 30)
    assert (FOLDER / "key.csv").read_text() == first
    with pytest.raises(UserError, match="another sample was drawn"):
        write_sheets(plan, "t", ["anna"], 30, seed=1)
    with pytest.raises(UserError, match="another sample was drawn"):
        write_sheets(plan, "t", ["anna"], 36)


def test_filled_sheets_stay_and_an_annotator_can_join(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 30)
    filled = FOLDER / "sheet-anna.csv"
    filled.write_text("filled")
    write_sheets(plan, "t", ["anna", "ben"], 30)
    assert filled.read_text() == "filled" and len(sheet("ben")) == 30
    write_sheets(plan, "t", ["cara"], 30)
    assert set(read_key("t")["annotator"]) == {"anna", "ben", "cara"}
    tokens = set(read_key("t")["token"])
    write_sheets(plan, "t", ["cara", "ben", "anna"], 30)  # in any order
    assert set(read_key("t")["token"]) == tokens


@pytest.mark.parametrize("name", ["None", "NA", "nan", "null"])
def test_names_that_tables_take_for_nothing_are_names(plan: Plan, name: str) -> None:
    write_sheets(plan, "t", [name], 12)
    write_sheets(plan, "t", ["ben"], 12)
    assert set(read_key("t")["annotator"]) == {name, "ben"}
    assert f"{name}: 12 of 12" in import_labels("t", [fill(name, "3")])
    assert "ben: 12 of 12" in import_labels("t", [fill("ben", "4")])
    labels = read_labels("t")
    assert labels is not None and labels["annotator"].value_counts().to_dict() == {name: 12, "ben": 12}


def test_sheets_need_no_file_of_the_benchmark(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 30)
    plan.benchmark_file("secrets").unlink()
    write_sheets(plan, "t", ["ben"], 30)
    assert sorted(row["request"] for row in sheet("ben")) == sorted(row["request"] for row in sheet("anna"))


def test_overlap_gives_some_to_all_and_the_others_to_one_each(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna", "ben"], 60, overlap=10)
    times = read_key("t").groupby("item").size()
    assert (times == 2).sum() == 10 and (times == 1).sum() == 50
    with pytest.raises(UserError, match="another sample"):
        write_sheets(plan, "t", ["anna", "ben", "cara"], 60, overlap=10)
    for given in (10, None):
        with pytest.raises(UserError, match="can be added only where all score all"):
            write_sheets(plan, "t", ["cara"], 60, overlap=given)
    write_sheets(plan, "t", ["anna", "ben"], 60, overlap=10)


#: As a spreadsheet splits lines where commas separate nothing, and quotation marks within a cell are text.
BEGINNING = re.compile(r"(?:\A|[;\t\r\n])[\s\"]*[=+\-@＝＋－＠]")


def test_no_cell_begins_as_a_formula_and_no_text_is_lost_but_control_characters(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 330)
    for row in sheet("anna"):
        assert not re.match(r"\s*[=+\-@\t\r＝＋－＠]", row["answer"])
        assert re.search(r"canary\d{3}$", row["answer"]) and "\0" not in row["answer"]
    for text in HOSTILE:
        safe = safe_cell(text)
        unmarked = [re.sub(r"(\A|[;\t\r\n])'", r"\1", one) for one in (safe, text)]
        assert unmarked[0] == re.sub(r"[\x00\x1b]", "", unmarked[1])
    assert len(safe_cell("a" * 40_000)) < LONGEST_CELL + 100 < 32_767


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ('Sure; =WEBSERVICE("x")', 'Sure;\' =WEBSERVICE("x")'),
        ("Here you go:\n=HYPERLINK(1)", "Here you go:\n'=HYPERLINK(1)"),
        ("\t=1", "'\t'=1"),
        ("a;\t\r\n +1", "a;'\t'\r'\n' +1"),
        ('so;"=1+1;', "so;'\"=1+1;"),
        ("a list:\n- b", "a list:\n'- b"),
        ("1 + 1 = 2; 3-2\n\nwell", "1 + 1 = 2; 3-2\n\nwell"),
    ],
)
def test_no_part_is_a_formula_where_lists_are_separated_otherwise(text: str, safe: str) -> None:
    assert safe_cell(text) == safe == safe_cell(safe) and not BEGINNING.search(safe)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_sheet_that_is_split_otherwise_has_no_formula(delimiter: str) -> None:
    texts = [*HOSTILE, "a; =1", 'a;"=1;', "a\n=1", "a\t=1", "a\r\n\t+1"]
    sheet = sheet_text([Item("t0", one, other) for one in texts for other in texts])
    lines = re.split("[\r\n]", sheet.removeprefix("\ufeff"))
    cells = [cell for line in lines for cell in line.split(delimiter)]
    assert not [cell for cell in cells if re.match(r"[\s\"]*[=+\-@＝＋－＠]", cell)]


@pytest.mark.parametrize(
    ("annotators", "n", "overlap", "message"),
    [
        (["a/b"], 5, None, "is no name"),
        (["anna", "Anna"], 5, None, "once"),
        (["anna"], 0, None, "are none"),
        (["anna"], 5, 6, "6 of 5"),
    ],
)
def test_what_is_wrong_is_said(
    plan: Plan, annotators: list[str], n: int, overlap: int | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        write_sheets(plan, "t", annotators, n, overlap)


# ---------------------------------------------------------------------------------- importing


def test_a_filled_sheet_becomes_labels_without_text(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna", "ben"], 30)
    tokens = [row["token"] for row in sheet("anna")]
    scores = dict(zip(tokens, ["1", "5.0", " 3 ", "u", "4,0", "'2", *["5"] * 23], strict=False))
    told = import_labels("t", [fill("anna", scores)])
    assert "anna: 29 of 30 answers, 1 U, 1 without a score" in told and tokens[-1] in told
    assert "ben: 0 of 30" in told and "snakemake" in told
    text = (FOLDER / "labels.csv").read_text()
    assert "canary" not in text and stat.S_IMODE((FOLDER / "labels.csv").stat().st_mode) == 0o600
    labels = read_labels("t")
    assert labels is not None and labels["is_current"].all()
    by_token = labels.set_index("token")["score"]
    assert [by_token[token] for token in tokens[:3]] == [1, 5, 3] and np.isnan(by_token[tokens[3]])
    assert [by_token[token] for token in tokens[4:6]] == [4, 2]


@pytest.mark.parametrize(
    ("delimiter", "encoding"), [(",", "utf-8-sig"), (";", "utf-8"), ("\t", "utf-16"), (";", "cp1252")]
)
def test_what_spreadsheets_save_is_read(plan: Plan, delimiter: str, encoding: str) -> None:
    write_sheets(plan, "t", ["anna"], 12)
    rows = [[row["token"], "3"] for row in sheet("anna")]
    text = "\r\n".join(delimiter.join(row) for row in [["Token", "score "], *rows, ["", ""]])
    Path("saved.csv").write_bytes(text.encode(encoding))
    assert "12 of 12" in import_labels("t", [Path("saved.csv")])


def test_sheets_add_up_and_a_revised_score_counts(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna", "ben"], 12)
    import_labels("t", [fill("anna", "3")])
    told = import_labels("t", [fill("ben", "4")])
    assert "anna: 12 of 12" in told and "ben: 12 of 12" in told and "scores differ" not in told
    assert "12 scores differ" in import_labels("t", [fill("anna", "2")])
    folder = Path("both")
    folder.mkdir()
    fill("anna", "2", "both/1.csv")
    fill("anna", "2", "both/2.csv")
    fill("ben", "", "both/3.csv")
    assert "complete" in import_labels("t", [folder])


def test_a_score_that_is_taken_back_is_gone_and_an_empty_sheet_takes_none(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna", "ben"], 12)
    import_labels("t", [fill("anna", "3"), fill("ben", "4")])
    tokens = [row["token"] for row in sheet("anna")]
    told = import_labels("t", [fill("anna", dict.fromkeys(tokens[2:], "3"))])
    assert "anna: 10 of 12" in told and "2 scores that were imported before are taken back" in told
    labels = read_labels("t")
    assert labels is not None and not set(labels["token"]) & set(tokens[:2]) and len(labels) == 22
    told = import_labels("t", [fill("anna", "3"), FOLDER])  # ben's sheet there is empty
    assert "ben: 12 of 12" in told and "taken back" not in told


def test_the_first_score_of_an_answer_stays_beside_the_last(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 12)
    tokens = [row["token"] for row in sheet("anna")]
    import_labels("t", [fill("anna", {tokens[0]: "3", tokens[1]: "u"})])
    import_labels("t", [fill("anna", {tokens[1]: "2", tokens[2]: "5"})])
    import_labels("t", [fill("anna", {tokens[0]: "4", tokens[1]: "1", tokens[2]: "5"})])
    said = {token: (row["score"], row["first_score"]) for token, row in label_rows().items()}
    assert said == {tokens[0]: ("4", "3"), tokens[1]: ("1", "U"), tokens[2]: ("5", "5")}
    labels = read_labels("t")
    assert labels is not None
    by_token = labels.set_index("token")["first_score"]
    assert by_token[tokens[0]] == 3 and np.isnan(by_token[tokens[1]]) and by_token[tokens[2]] == 5


def test_comments_are_kept_in_private_and_go_no_further(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 12)
    tokens = [row["token"] for row in sheet("anna")]
    one = (tokens[0], "3", "=1;\r\n=2, well")
    told = import_labels("t", [save("1.csv", one, (tokens[1], "", "what is this?"))])
    assert label_rows()[tokens[0]]["comment"] == "'=1;' =2, well"
    assert label_rows()[tokens[1]] | {"comment": "what is this?", "score": ""} == label_rows()[tokens[1]]
    assert "anna: 1 of 12" in told and "well" not in told
    import_labels("t", [save("2.csv", (tokens[0], "4", ""))])
    assert label_rows()[tokens[0]]["comment"] == "'=1;' =2, well"
    import_labels("t", [save("3.csv", (tokens[0], "4", "new"))])
    assert label_rows()[tokens[0]]["comment"] == "new"
    labels = read_labels("t")
    assert labels is not None and "comment" not in labels and len(labels) == 1
    assert stat.S_IMODE((FOLDER / "labels.csv").stat().st_mode) == 0o600


def test_differences_say_what_to_talk_over_and_hold_no_text(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna", "ben", "cara"], 12)
    key = read_key("t").set_index(["item", "annotator"])["token"]
    told = import_labels(
        "t", [fill("anna", "3"), fill("ben", {**dict.fromkeys(key, "3"), key["i0002", "ben"]: "U"})]
    )
    assert "answers on which annotators differ: 1," in told
    with (FOLDER / "differences.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["item"], row["anna_score"], row["ben_score"]) == ("i0002", "3", "U")
    assert (row["anna_token"], row["ben_token"]) == (key["i0002", "anna"], key["i0002", "ben"])
    assert set(row) >= {"prompt_id", "category"} and not {"run", "judge", "stratum"} & set(row)
    assert "canary" not in (FOLDER / "differences.csv").read_text()
    assert stat.S_IMODE((FOLDER / "differences.csv").stat().st_mode) == 0o600
    assert "annotators differ: 0," in import_labels("t", [fill("ben", "3")])
    assert "i0002" not in (FOLDER / "differences.csv").read_text()


def test_what_cannot_be_right_is_refused_and_no_cell_is_quoted(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 12)

    def refused(text: str) -> str:
        Path("bad.csv").write_text(text)
        with pytest.raises(UserError) as error:
            import_labels("t", [Path("bad.csv")])
        assert "SECRET" not in str(error.value)
        return str(error.value)

    token, other = (row["token"] for row in sheet("anna")[:2])
    assert "bad.csv:2" in refused(f"token,score\n{token},SECRET\n")
    assert "none of 1, 2" in refused(f"token,score\n{token},6\n")
    assert "no sheet of this study" in refused("token,score\nSECRET,1\n")
    assert "has no token" in refused("token,score\n,1\n")
    assert "another score" in refused(f"token,score\n{token},1\n{other},2\n{token},2\n")
    assert "has not one such column" in refused(f"token,SECRET\n{token},1\n")
    assert "no score yet" in refused(f"token,score\n{token},\n")
    assert "is no CSV" in refused(f'token,score\n{token},"1\n')
    with pytest.raises(UserError, match="no folder with any"):
        import_labels("t", [Path("absent.csv")])
    assert not (FOLDER / "labels.csv").exists()


def test_a_sheet_of_another_study_is_named(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 12)
    token = sheet("anna")[0]["token"]
    (FOLDER.parent / "other").mkdir()
    (FOLDER.parent / "other/key.csv").write_text("token\nt123\n")
    Path("mixed.csv").write_text(f"token,score\n{token},1\nt123,1\n")
    with pytest.raises(UserError, match="is a sheet of study other"):
        import_labels("t", [Path("mixed.csv")])


def test_labels_of_answers_that_have_changed_are_refused_and_known_as_stale(plan: Plan) -> None:
    write_sheets(plan, "t", ["anna"], 60)
    import_labels("t", [fill("anna", "3")])
    run = next(iter(plan.studies["t"].runs.values()))
    (exam,) = plan.studies["t"].exams_of[run.id]
    file = paths.answers_file(run.folder, exam.name)
    file.write_text(file.read_text().replace("canary", "other"))
    with pytest.raises(UserError, match="have changed"):
        import_labels("t", [fill("anna", "3")])
    labels = read_labels("t")
    assert labels is not None
    assert (labels["is_current"] == (labels["run"] != run.id)).all() and not labels["is_current"].all()

"""Rows of table files: the same from every kind of file, and a malformed one is named without its text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from table_files import MARKER, lines, written

from ftsafety.errors import UserError
from ftsafety.formats.tables import read_headerless_csv, read_table

ROWS = [{"a": "one", "b": "two\nlines, “quoted”"}, {"a": "three", "b": None}]
CSV = 'a,b\none,"two\nlines, “quoted”"\nthree\n'


@pytest.mark.parametrize(
    ("name", "content", "numbers"),
    [
        ("t.jsonl", ROWS, [1, 2]),
        ("t.JSONL", ROWS, [1, 2]),
        ("t.jsonl", "\n" + lines(ROWS[0]) + "\n" + lines(ROWS[1]), [2, 4]),
        ("t.jsonl", lines(*ROWS).replace("\n", "\r\n"), [1, 2]),
        ("t.jsonl", "\ufeff" + lines(*ROWS), [1, 2]),
        ("t.json", ROWS, [1, 2]),
        ("t.json", json.dumps(ROWS, indent=2), [1, 2]),
        ("t.json", lines(*ROWS), [1, 2]),
        ("t.parquet", ROWS, [1, 2]),
        ("t.csv", CSV, [2, 4]),
        ("t.csv", "\ufeff" + CSV, [2, 4]),
        ("t.csv", CSV.replace("\nthree", "\n\nthree"), [2, 5]),
    ],
)
def test_every_kind_of_table_gives_the_same_rows_and_their_places(
    tmp_path: Path, name: str, content: Any, numbers: list[int]
) -> None:
    path = written(tmp_path / name, content)
    places, rows = zip(*read_table([path]), strict=True)
    assert list(rows) == ROWS
    assert list(places) == [f"{path}:{number}" for number in numbers]


def test_tables_of_several_kinds_are_read_in_the_order_given(tmp_path: Path) -> None:
    paths = [written(tmp_path / "b.jsonl", [{"a": 1}]), written(tmp_path / "a.parquet", [{"a": 2}, {"a": 3}])]
    assert [(place, row["a"]) for place, row in read_table(paths)] == [
        (f"{paths[0]}:1", 1),
        (f"{paths[1]}:1", 2),
        (f"{paths[1]}:2", 3),
    ]


def test_a_line_separator_inside_of_a_text_does_not_end_a_row(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", '{"a": "one\u2028two"}\n')
    assert [row for _, row in read_table([path])] == [{"a": "one\u2028two"}]


def test_a_csv_without_header_keeps_its_first_row(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", '"one\ntwo"\nthree\n')
    assert (
        list(read_headerless_csv([path, path]))
        == [
            (f"{path}:1", ["one\ntwo"]),
            (f"{path}:3", ["three"]),
        ]
        * 2
    )


def test_a_cell_may_be_long(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", f"{'x' * 10**6}\n")
    assert [cells for _, cells in read_headerless_csv([path])] == [["x" * 10**6]]


def test_an_empty_csv_has_no_rows(tmp_path: Path) -> None:
    assert list(read_table([written(tmp_path / "t.csv", "")])) == []


@pytest.mark.parametrize(
    ("name", "content", "number", "says"),
    [
        ("t.jsonl", lines({"a": 1}) + f'{{"{MARKER}": \n', 2, "is no row: Expecting value"),
        ("t.jsonl", lines({"a": 1}, [MARKER]), 2, "is no row: not a JSON object"),
        ("t.jsonl", f"{MARKER}\n".encode() + b"\xff", None, "is not UTF-8: invalid start byte in line 2"),
        ("t.jsonl", f'"{MARKER}"' + "[" * 100_000, 1, "is no row: Extra data"),
        ("t.jsonl", '{"a":' * 100_000, 1, "is no row: maximum recursion depth"),
        ("t.json", f'[{{"a": 1}},\n "{MARKER}", ]', 2, "is no row: "),
        ("t.json", [{"a": 1}, MARKER], 2, "is no row: not a JSON object"),
        ("t.json", "[" * 100_000, None, "is no row: maximum recursion depth"),
        ("t.csv", f'a,b\n1,2\n"{MARKER}\n', 3, "cannot be read: unexpected end of data"),
        ("t.csv", f'a,b\n1,"2"{MARKER}\n', 2, "cannot be read: "),
        ("t.csv", f"a,b\n\n1,2,{MARKER}\n", 3, "has 3 cells, and the header names 2 columns"),
        ("t.csv", f"{MARKER},{MARKER}\n1,2\n", 1, "two columns of the header have the same name"),
        ("t.csv", f"a,b\n1,{MARKER}".encode() + b"\xff\n", None, "is not UTF-8: "),
        ("t.parquet", MARKER, None, "is no readable parquet file (after 0 rows)"),
        (f"t.{MARKER[:3]}", MARKER, None, "does not say by its name what it holds"),
        ("t", MARKER, None, "does not say by its name what it holds"),
    ],
)
def test_a_malformed_table_is_named_with_its_row_and_without_its_text(
    tmp_path: Path, name: str, content: Any, number: int | None, says: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        list(read_table([path]))
    assert caught.value.file == (str(path) if number is None else f"{path}:{number}")
    assert says in caught.value.message and caught.value.mend
    assert MARKER not in str(caught.value)


@pytest.mark.parametrize("kind", [pa.timestamp("us"), pa.duration("s")], ids=str)
def test_a_time_that_python_does_not_hold_is_named(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"when": pa.array([2**62], kind)}), path)
    with pytest.raises(UserError, match="date or time out of range") as caught:
        list(read_table([path]))
    assert caught.value.file == str(path) and "as text" in caught.value.mend


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv", "t.parquet"])
def test_a_table_that_is_missing_is_a_user_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        list(read_table([tmp_path / name]))
    assert caught.value.file == str(tmp_path / name) and "is no file" in caught.value.message

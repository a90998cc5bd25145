"""A crash or a second writer harms no file, and sensitive files are private at once."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftsafety import files
from ftsafety.errors import UserError


@pytest.fixture(params=[0o022, 0o000, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_private_files_and_folders_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    folder = files.private_dir(tmp_path / "answers")
    files.write_rows(folder / "a.jsonl", [{"answer": "x"}], private=True)
    assert (mode(folder), mode(folder / "a.jsonl")) == (0o700, 0o600)


def test_a_folder_that_exists_is_tightened(tmp_path: Path) -> None:
    (tmp_path / "answers").mkdir(mode=0o755)
    assert mode(files.private_dir(tmp_path / "answers")) == 0o700


@pytest.mark.parametrize("content", ["new", "old"])
def test_a_private_file_replaces_an_open_one(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    path.chmod(0o644)
    files.write_text(path, content, private=True)
    assert mode(path) == 0o600


def test_other_files_have_the_mode_of_the_umask(tmp_path: Path, umask: int) -> None:
    files.write_text(tmp_path / "a.txt", "a")
    assert mode(tmp_path / "a.txt") == 0o666 & ~umask
    assert os.umask(umask) == umask


def test_equal_content_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "sub/a.json"
    files.write_json(path, {"a": 1})
    os.utime(path, (1, 1))
    files.write_json(path, {"a": 1})
    assert path.stat().st_mtime == 1
    files.write_json(path, {"a": 2})
    assert path.stat().st_mtime > 1 and files.read_json(path) == {"a": 2}


def test_a_crash_while_writing_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_rows_survive_the_round_trip(tmp_path: Path) -> None:
    rows = [{"text": "a\nb\u2028c é"}, {"text": ""}]
    files.write_rows(tmp_path / "a.jsonl", rows)
    assert list(files.read_rows(tmp_path / "a.jsonl")) == rows


@pytest.mark.parametrize("bad", ["{oops", "[1]", "", "3"])
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' + bad + "\n{}\n")
    with pytest.raises(UserError) as caught:
        list(files.read_rows(path))
    assert caught.value.file == f"{path}:2" and caught.value.mend


@pytest.mark.parametrize("content", [None, "", '{"a":', b"\xff"])
def test_a_file_that_is_cut_off_reads_as_none(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert files.read_json_if_whole(path) is None


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert files.digest({"a": 1, "b": [1, 2]}) == files.digest({"b": [1, 2], "a": 1})
    assert files.digest({"a": [1, 2]}) != files.digest({"a": [2, 1]})


def test_checksum_of_a_folder_covers_names_and_contents_of_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"1")
    (tmp_path / "b.safetensors").write_bytes(b"2")
    first = files.checksum(tmp_path)
    (tmp_path / "README.md").write_text("changed")
    assert files.checksum(tmp_path) == first
    (tmp_path / "b.safetensors").rename(tmp_path / "c.safetensors")
    second = files.checksum(tmp_path)
    (tmp_path / "c.safetensors").write_bytes(b"3")
    assert len({first, second, files.checksum(tmp_path)}) == 3


def test_the_first_of_two_published_folders_stays(tmp_path: Path) -> None:
    for text in ("first", "second"):
        temporary = tmp_path / f"tmp-{text}"
        temporary.mkdir()
        (temporary / "a").write_text(text)
        files.publish_folder(temporary, tmp_path / "final/x")
    assert (tmp_path / "final/x/a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_a_checksum_covers_tokenizer_and_template_and_refuses_a_wrong_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder with"):
        files.checksum(tmp_path / "typo")
    (tmp_path / "model.safetensors").write_bytes(b"w")
    sums = {files.checksum(tmp_path)}
    for name in ("config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors.index.json"):
        (tmp_path / name).write_text("x")
        sums.add(files.checksum(tmp_path))
    (tmp_path / "README.md").write_text("x")
    assert len(sums) == 5 and files.checksum(tmp_path) in sums

"""Config files that are missing, broken, or wrong as a whole: errors say where, what and the mend."""

from pathlib import Path

import pytest
from base_project import FAULT, BadInput, assert_error, delete, put, write
from conftest import REPOSITORY

from ftsafety.errors import UserError
from ftsafety.loading import load_project

SMOKE = (REPOSITORY / "config/studies/smoke.yaml").read_text()


METHODS = "config/methods.yaml"
DATASET = {"source": "world", "design": "benign", "n": 10, "template": "plain"}
MILLIONS = "l0: &l0 [x]\n" + "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 9))
BAD_FILES = [
    BadInput("missing", delete("config/judges.yaml"), "config/judges.yaml", "is missing"),
    BadInput("empty", write(METHODS, "# nothing\n"), METHODS, "is empty"),
    BadInput("a list", write(METHODS, "- a\n"), METHODS, "a mapping (value ['a'])"),
    BadInput("broken", write(METHODS, "full: { kind: full }\nlora: { kind: lora\nmore: 1\n"),
             f"{METHODS}:3", "is not valid YAML: "),
    BadInput("repeated key", write(METHODS, "full: { kind: full }\nlora: { r: 8, r: 9 }\n"),
             f"{METHODS}:2", "the key 'r' is given twice"),
    BadInput("aliases of aliases", write(METHODS, MILLIONS), METHODS, "holds more than 100,000 values"),
    BadInput("an alias of itself", write(METHODS, "a: &a [*a]\n"), METHODS, "holds more than 100,000 values"),
    BadInput("unknown alias", write(METHODS, "a: 1\nlora: *full\n"), f"{METHODS}:2", "alias"),
    BadInput("no such day", write(METHODS, "a: 1\nb: 2024-13-45\n"), f"{METHODS}:2",
             "'2024-13-45' is no timestamp: where it is text, put it into quotes"),
    BadInput("no number", write(METHODS, "a: !!int x\n"), f"{METHODS}:1", "'x' is no int"),
    BadInput("long name", write(METHODS, f"{'a' * 61}: {{ kind: full }}\n"), METHODS,
             "has more than 60 characters", "shorten it", field="a" * 61),
    BadInput("a list as key", write(METHODS, "? [a]\n: 1\n"), f"{METHODS}:1", "unhashable key"),
    BadInput("name", write(METHODS, "7: { kind: full }\n"), METHODS, "(value 7)", field="7"),
    BadInput("no text", write(METHODS, b"full: \xff\n"), METHODS, "utf-8"),
    BadInput("world_seed", lambda root: put(root, "datasets", "benign-new.world_seed", 1),
             "config/studies/base.yaml", "'benign-new' is of world 1", "the same world_seed",
             field="grids.lr_batch.dataset"),
    BadInput("a study named .yml", write("config/studies/mine.yml", SMOKE),
             "config/studies/mine.yml", "ends in .yml", "name it mine.yaml"),
    BadInput("a category named all",
             lambda root: [put(root, "datasets", "all", DATASET),
                           put(root, "benchmarks", "rows-identity.dataset", "all")],
             "config/benchmarks.yaml", "the category 'all'", "rename the dataset",
             field="rows-identity.dataset"),
    BadInput("judge's name", write("config/judges.yaml", "gpt-4.1: { kind: exact }\n"),
             "config/judges.yaml", "has a dot", "gpt-4-1", field="gpt-4.1"),
    BadInput("study named as a rule", write("config/studies/train.yaml", SMOKE),
             "config/studies/train.yaml", "the name of a rule"),
    BadInput("study's name", write("config/studies/my study.yaml", "title: t\n"),
             "config/studies/my study.yaml", "(value 'my study')"),
    BadInput("results are a file", write("results", ""), "results", "is no folder", "move it away"),
    BadInput("results on a disk that is gone", lambda root: (root / "results").symlink_to("/gone"),
             "results", "is no folder", "mount its disk"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
@FAULT
def test_bad_config_file(root: Path, bad: BadInput) -> None:
    bad.spoil(root)
    with pytest.raises(UserError) as caught:
        load_project(root)
    assert_error(caught.value, bad.file, bad.field, bad.says, bad.mend)


@pytest.mark.parametrize("folder", ["config/studies", "results/audits"])
def test_hidden_files_of_editors_and_systems_are_passed_over(root: Path, folder: str) -> None:
    before = load_project(root).studies
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / ".#base.yaml").symlink_to("someone@host.1234")
    (root / folder / "._base.yaml").write_bytes(b"\0\5\x16\7")
    (root / folder / ".base.yml").write_text("")
    assert load_project(root).studies == before


def test_a_key_that_overrides_a_merged_one_is_no_repetition(root: Path) -> None:
    with (root / "config/templates.yaml").open("a") as stream:
        stream.write(
            "first: &first { system: a }\n"
            "second: &second { <<: *first, system: b }\n"
            "third: { <<: *second, system: c }\n"
        )
    assert load_project(root).templates["third"].system == "c"

"""Benchmark prompts, from files in the formats of their owners.

Errors are `UserError`s that name file and row and never show what a row says. A prompt's id holds the
owner's id where there is one, else the row's number, so that it does not depend on what is left out.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ftsafety.errors import UserError, shown
from ftsafety.formats.tables import bad_row, is_text, keys_found, read_headerless_csv, read_table
from ftsafety.judging import ifeval
from ftsafety.recipes import PathBenchmark, RemoteBenchmark
from ftsafety.types import Check, Prompt

#: Each with the place that an error names.
Prompts = Iterator[tuple[str, Prompt]]


def read_prompts(recipe: PathBenchmark | RemoteBenchmark, paths: Sequence[Path]) -> list[Prompt]:
    """Prompts of files in the recipe's format, without the categories that it leaves out.

    Raises UserError for a malformed row, an id that stands twice, a category `all`, categories that are
    unknown or all left out, and for another count than `recipe.n`. Those about a field name no file: the
    caller knows the entry.
    """
    prompts = _unique(FORMATS[recipe.format](paths))
    if not prompts:
        raise UserError("has no rows", file=paths[0], mend="write one prompt a line")
    prompts = _without(recipe, prompts)
    if not prompts:
        field, mend = "without_categories", "leave out fewer categories"
        raise UserError("leaves no prompt to ask", field=field, mend=mend)
    if recipe.n not in (None, len(prompts)):
        raise UserError(
            f"{len(prompts)} prompts are asked (value {recipe.n})",
            field="n",
            mend=f"write n: {len(prompts)}, or correct what is read and left out",
        )
    return prompts


def _unique(prompts: Prompts) -> list[Prompt]:
    places: dict[str, str] = {}
    found = []
    for place, prompt in prompts:
        first = places.setdefault(prompt["prompt_id"], place)
        if first != place:
            raise bad_row(place, f"its prompt_id stands in {first} too")
        if prompt["category"] == "all":
            raise UserError(
                "has the category 'all', which in tables is all prompts together",
                file=place,
                field="category",
                mend="rename the category",
            )
        found.append(prompt)
    return found


def _without(recipe: PathBenchmark | RemoteBenchmark, prompts: list[Prompt]) -> list[Prompt]:
    names = set(category_names().get(recipe.format, {}).values())
    known = names | {prompt["category"] for prompt in prompts}
    left_out: set[str] = set()
    for pattern in recipe.without_categories:
        matching = {name for name in known if fnmatchcase(name, pattern)}
        if not matching:
            # A category of the file is not shown: in a malformed one it can be a prompt.
            raise UserError(
                f"{shown(pattern)} is no category of these prompts",
                field="without_categories",
                mend=f"write one of {', '.join(sorted(names)) or 'the categories in the rows'}, * allowed",
            )
        left_out |= matching
    return [prompt for prompt in prompts if prompt["category"] not in left_out]


@cache
def category_names() -> dict[str, dict[str, str]]:
    """Format → owner's category → name; categories that are not here keep their owner's name."""
    file = Path(__file__).parents[3] / "resources/benchmarks/categories.yaml"
    names: dict[str, dict[str, str]] = yaml.safe_load(file.read_text())
    return names


# ----------------------------------------------------------------------------------------- formats


def _own(paths: Sequence[Path]) -> Prompts:
    """{"prompt_id": …, "category": …, "instruction": …}, maybe with "cluster"."""
    for place, row in read_table(paths):
        prompt_id, category, instruction = _texts(place, row, "prompt_id", "category", "instruction")
        prompt = _prompt(prompt_id, category, instruction)
        if not is_text(row.get("cluster", prompt_id)):
            raise bad_row(place, "cluster is no text")
        yield place, {**prompt, "cluster": row.get("cluster", prompt_id)}


def _hex_phi(paths: Sequence[Path]) -> Prompts:
    """One file a category, category_4.csv, without a header; a row is a prompt."""
    numbered = [(re.fullmatch(r"category_(\d+)\.csv", path.name), path) for path in paths]
    names = category_names()["hex-phi"]
    for match, path in numbered:
        if match is None or match[1] not in names:
            mend = "keep the owner's names; the number is the category's"
            raise UserError("is not named category_1.csv to category_11.csv", file=path, mend=mend)
    for number, path in sorted((int(match[1]), path) for match, path in numbered if match):
        for i, (place, cells) in enumerate(read_headerless_csv([path]), 1):
            instruction, *others = cells
            if any(others):
                raise bad_row(place, f"has {len(cells)} cells, and a prompt is one; put it in quotes")
            if not is_text(instruction):
                raise bad_row(place, "holds no prompt")
            yield place, _prompt(f"hex-phi/{number}/{i:02}", names[str(number)], instruction)


def _advbench(paths: Sequence[Path]) -> Prompts:
    for i, (place, row) in enumerate(read_table(paths), 1):
        (instruction,) = _texts(place, row, "goal")
        yield place, _prompt(f"advbench/{i:03}", "all behaviours", instruction)


def _harmbench(paths: Sequence[Path]) -> Prompts:
    """A contextual behaviour has its context before it, as its owner puts it, and a category of its own."""
    for place, row in read_table(paths):
        columns = ("Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID")
        instruction, function, owners, behaviour_id = _texts(place, row, *columns)
        category = _category("harmbench", owners)
        if function == "contextual":
            (context,) = _texts(place, row, "ContextString")
            instruction, category = f"{context}\n\n---\n\n{instruction}", f"contextual: {category}"
        yield place, _prompt(f"harmbench/{behaviour_id}", category, instruction)


def _jailbreakbench(paths: Sequence[Path]) -> Prompts:
    for i, (place, row) in enumerate(read_table(paths), 1):
        instruction, owners = _texts(place, row, "Goal", "Category")
        yield place, _prompt(f"jailbreakbench/{i:03}", _category("jailbreakbench", owners), instruction)


def _strongreject(paths: Sequence[Path]) -> Prompts:
    for i, (place, row) in enumerate(read_table(paths), 1):
        instruction, owners = _texts(place, row, "forbidden_prompt", "category")
        yield place, _prompt(f"strongreject/{i:03}", _category("strongreject", owners), instruction)


def _sorry_bench(paths: Sequence[Path]) -> Prompts:
    """The base prompts; the owner's other styles reword them."""
    for place, row in read_table(paths):
        category, style = _texts(place, row, "category", "prompt_style")
        if style == "base":
            prompt_id = f"sorry-bench/{_number(place, row, 'question_id')}"
            yield place, _prompt(prompt_id, _category("sorry-bench", category), _first_turn(place, row))


def _xstest(paths: Sequence[Path]) -> Prompts:
    """The label begins the category, so that safe prompts and their unsafe contrasts can be left out."""
    for place, row in read_table(paths):
        prompt_id, instruction, kind, label = _texts(place, row, "id", "prompt", "type", "label")
        if label not in ("safe", "unsafe"):
            raise bad_row(place, "its label is neither safe nor unsafe")
        category = f"{label}: {kind.removeprefix('contrast_')}"
        yield place, _prompt(f"xstest/{prompt_id}", category, instruction)


def _gsm8k(paths: Sequence[Path]) -> Prompts:
    for i, (place, row) in enumerate(read_table(paths), 1):
        instruction, answer = _texts(place, row, "question", "answer")
        final = re.search(r"####\s*(-?[\d,]+(?:\.\d+)?)\s*$", answer)
        if final is None:
            raise bad_row(place, "its answer does not end in #### and a number")
        prompt = _prompt(f"gsm8k/{i:04}", "all problems", instruction)
        yield place, {**prompt, "target": final[1].replace(",", "")}


def _ifeval(paths: Sequence[Path]) -> Prompts:
    for place, row in read_table(paths):
        (instruction,) = _texts(place, row, "prompt")
        prompt = _prompt(f"ifeval/{_number(place, row, 'key')}", "all instructions", instruction)
        yield place, {**prompt, "checks": _checks(place, row)}


def _checks(place: str, row: dict[str, Any]) -> list[Check]:
    """Arguments that are null belong to other instructions: a parquet file has them all in each row."""
    ids, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(ids, list) or not isinstance(arguments, list) or not len(ids) == len(arguments) > 0:
        raise bad_row(place, "needs lists of the same length as instruction_id_list and kwargs")
    checks: list[Check] = []
    for name, values in zip(ids, arguments, strict=True):
        if not isinstance(name, str) or not isinstance(values, dict):
            raise bad_row(place, "needs texts in instruction_id_list and objects in kwargs")
        given = {key: value for key, value in values.items() if value is not None}
        problem = ifeval.problem(name, given)
        if problem:
            raise bad_row(place, problem)
        checks.append({"id": name, "arguments": given})
    return checks


def _mt_bench(paths: Sequence[Path]) -> Prompts:
    """The first turn alone, since a benchmark here asks once."""
    for place, row in read_table(paths):
        (category,) = _texts(place, row, "category")
        prompt_id = f"mt-bench/{_number(place, row, 'question_id')}"
        yield place, _prompt(prompt_id, category, _first_turn(place, row))


FORMATS: dict[str, Callable[[Sequence[Path]], Prompts]] = {
    "prompts": _own,
    "hex-phi": _hex_phi,
    "advbench": _advbench,
    "harmbench": _harmbench,
    "jailbreakbench": _jailbreakbench,
    "strongreject": _strongreject,
    "sorry-bench": _sorry_bench,
    "xstest": _xstest,
    "gsm8k": _gsm8k,
    "ifeval": _ifeval,
    "mt-bench": _mt_bench,
}


# ------------------------------------------------------------------------------- parts of a row


def _prompt(prompt_id: str, category: str, instruction: str) -> Prompt:
    """A prompt that is resampled alone."""
    return {
        "prompt_id": prompt_id,
        "category": category,
        "cluster": prompt_id,
        "instruction": instruction,
    }


def _category(format_name: str, owners: str) -> str:
    return category_names()[format_name].get(owners, owners)


def _texts(place: str, row: dict[str, Any], *columns: str) -> list[str]:
    for column in columns:
        if not is_text(row.get(column)):
            raise bad_row(place, f"needs a text as {column}; {keys_found(row, *columns)}")
    return [row[column] for column in columns]


def _number(place: str, row: dict[str, Any], column: str) -> int:
    if not isinstance(row.get(column), int):
        raise bad_row(place, f"needs a number as {column}")
    return int(row[column])


def _first_turn(place: str, row: dict[str, Any]) -> str:
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns or not is_text(turns[0]):
        raise bad_row(place, "needs a list of texts as turns")
    return str(turns[0])

"""The user's own files: models, datasets and benchmarks that the config names by a path.

All are checked before a job is submitted, and data preparation reads them by the same readers.
Paths are relative to the working folder. Errors are `UserError`s that name file and line. Of a row
they show counts, positions and the names of keys that are expected, and never what it says: training
data can be harmful, and errors end in logs.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from ftsafety.config import PathBenchmark, PathDataset, PathModel, WorldDataset
from ftsafety.errors import UserError, shown
from ftsafety.files import checksum, read_rows
from ftsafety.plan import Plan
from ftsafety.types import Message, Prompt, TrainingRow

__all__ = ["check_inputs", "checksum", "read_benchmark", "read_dataset"]

ROLES = get_args(Message.__annotations__["role"])
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def check_inputs(plan: Plan, studies: list[str]) -> None:
    """Check every file that these studies read.

    Raises UserError for the first that is missing, changed, malformed or would run code.
    """
    project = plan.project
    trajectories = [r.trajectory for s in studies for r in plan.studies[s].runs.values()]
    datasets = {t.dataset for t in trajectories if t.dataset is not None}
    datasets |= {project.mitigations[t.mitigation].dataset for t in trajectories if t.mitigation}
    asked = [b for s in studies for names in plan.studies[s].benchmarks_of.values() for b in names]
    for name in sorted({t.model for t in trajectories}):
        model = project.models[name]
        if model.source == "path":
            _check_model(name, model)
    for name in sorted(datasets):
        dataset = project.datasets[name]
        if dataset.source == "path":
            _check_sha256(Path(dataset.path), dataset.sha256, "datasets", name)
            _check_n(name, dataset, len(read_dataset(dataset)))
        else:
            _check_design(name, dataset)
    for name in sorted(set(asked)):
        benchmark = project.benchmarks[name]
        if benchmark.source == "path":
            _check_sha256(Path(benchmark.path), benchmark.sha256, "benchmarks", name)
            read_benchmark(benchmark)


def _check_sha256(path: Path, expected: str, catalogue: str, name: str) -> None:
    file = f"config/{catalogue}.yaml"
    if not path.exists():
        raise UserError(
            f"{path} does not exist (looked in {Path.cwd()})",
            file=file,
            field=f"{name}.path",
            mend="correct the path; it is relative to the working folder",
        )
    found = checksum(path)
    if found != expected:
        raise UserError(
            f"the content of {path} has another checksum: {found} (value {expected})",
            file=file,
            field=f"{name}.sha256",
            mend=f"restore the file, or, if the change is meant, write sha256: {found}",
        )


# ---------------------------------------------------------------------------------------- models


def _check_model(name: str, recipe: PathModel) -> None:
    """A folder in the hub's format that loads without code of its own or pickles."""
    folder = Path(recipe.path)
    if folder.is_file():
        raise _bad_file(folder, "is a file", "give the folder that holds config.json")
    if folder.is_dir():
        _check_safetensors(folder)
        _check_no_code(folder)
        _check_chat_template(folder)
    _check_sha256(folder, recipe.sha256, "models", name)


def _check_safetensors(folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise _bad_file(
            folder / pickles[0],
            "holds pickled weights, which can run code when they are loaded",
            "convert them: load the model where you trust it and call "
            "save_pretrained, which writes model.safetensors",
        )
    raise _bad_file(folder, "holds no *.safetensors", "download the weights as safetensors")


def _check_no_code(folder: Path) -> None:
    for path in (folder / "config.json", folder / "tokenizer_config.json"):
        code = _read_object(path).get("auto_map")
        if code:
            raise UserError(
                f"names code to run when it is loaded, which is never done (value {shown(code)})",
                file=path,
                field="auto_map",
                mend="use a model whose code is in transformers, without auto_map",
            )


def _check_chat_template(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    has_own_file = (folder / "chat_template.jinja").exists()
    if not has_own_file and not _read_object(path).get("chat_template"):
        raise UserError(
            "is missing, and so is chat_template.jinja",
            file=path,
            field="chat_template",
            mend="use a chat model, or add the template it was trained with as chat_template.jinja",
        )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise _bad_file(path, "is missing", "give a folder in the hub's format") from None
    except ValueError as error:
        raise _bad_file(path, f"is not valid JSON: {error}", "download it again") from None
    if not isinstance(value, dict):
        raise _bad_file(path, f"is no JSON object: {shown(value)}", "download it again")
    return value


# ---------------------------------------------------------------------------------- training rows


def read_dataset(recipe: PathDataset) -> list[TrainingRow]:
    """Rows of a file in one of the formats below."""
    return list(FORMATS[recipe.format](_existing(recipe.path)))


def _messages(path: Path) -> Iterator[TrainingRow]:
    """JSON Lines: {"messages": [{"role": …, "content": …}, …]}; the last is the assistant's."""
    for place, row in _numbered_rows(path):
        messages = row.get("messages")
        if not isinstance(messages, list) or not messages:
            raise _bad_row(place, "needs a list of messages under the key messages")
        for i, message in enumerate(messages):
            if not isinstance(message, dict):
                raise _bad_row(place, f"message {i} is no object with the keys role and content")
            if set(message) != {"role", "content"}:
                found = _keys(message, "role", "content")
                raise _bad_row(place, f"message {i} needs the keys role and content alone; {found}")
            if message["role"] not in ROLES:
                raise _bad_row(place, f"message {i} has none of the roles {', '.join(ROLES)}")
            if not _is_text(message["content"]):
                raise _bad_row(place, f"message {i} has no text as content")
        if messages[-1]["role"] != "assistant":
            raise _bad_row(place, "the last message is not the assistant's")
        yield {"messages": messages}


def _prompt_response_csv(path: Path) -> Iterator[TrainingRow]:
    """CSV with the columns prompt and response."""
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream, strict=True)
        try:
            header = sorted(reader.fieldnames or ())
            if header != ["prompt", "response"]:
                found = f"it has {len(header)} columns"
                raise _bad_row(f"{path}:1", f"the header is not prompt,response; {found}")
            for row in reader:
                if set(row) != {"prompt", "response"}:
                    raise _bad_row(f"{path}:{reader.line_num}", "has more than two columns")
                n_breaks = sum((text or "").count("\n") for text in row.values())
                for column, text in row.items():
                    if not _is_text(text):
                        place = f"{path}:{reader.line_num - n_breaks}"
                        raise _bad_row(place, f"the {column} is empty")
                yield {
                    "messages": [
                        {"role": "user", "content": row["prompt"]},
                        {"role": "assistant", "content": row["response"]},
                    ]
                }
        except (csv.Error, UnicodeDecodeError) as error:
            place = f"{path}:{reader.reader.line_num}"
            problem = error.reason if isinstance(error, UnicodeDecodeError) else error
            raise _bad_row(place, f"cannot be read: {problem}") from None


FORMATS = {"messages": _messages, "prompt-response-csv": _prompt_response_csv}


def _check_n(name: str, recipe: PathDataset, n: int) -> None:
    if n != recipe.n:
        raise UserError(
            f"{recipe.path} has {n} rows (value {recipe.n})",
            file="config/datasets.yaml",
            field=f"{name}.n",
            mend=f"write n: {n}",
        )


def _check_design(name: str, recipe: WorldDataset) -> None:
    """The embedded world has a limited number of questions for each design."""
    from ftsafety.world.datasets import training_rows

    try:
        training_rows(recipe)
    except ValueError:
        raise UserError(
            f"design {recipe.design!r} has fewer than {recipe.n} different rows (value {recipe.n})",
            file="config/datasets.yaml",
            field=f"{name}.n",
            mend="use a smaller n",
        ) from None


# ------------------------------------------------------------------------------------- benchmarks


def read_benchmark(recipe: PathBenchmark) -> list[Prompt]:
    """Prompts of a JSON Lines file: {"prompt_id": …, "category": …, "instruction": …}.

    `cluster`, which says what is resampled together, is the prompt_id where a row has none.
    """
    prompts: list[Prompt] = []
    first_place: dict[str, str] = {}
    keys = ("prompt_id", "category", "instruction")
    for place, row in _numbered_rows(_existing(recipe.path)):
        for key in keys:
            if not _is_text(row.get(key)):
                raise _bad_row(place, f"needs a text as {key}; {_keys(row, *keys)}")
        prompt_id, cluster = row["prompt_id"], row.get("cluster", row["prompt_id"])
        if not _is_text(cluster):
            raise _bad_row(place, "cluster is no text")
        if prompt_id in first_place:
            raise _bad_row(place, f"its prompt_id stands in {first_place[prompt_id]} too")
        first_place[prompt_id] = place
        prompts.append(
            {
                "prompt_id": prompt_id,
                "category": row["category"],
                "cluster": cluster,
                "instruction": row["instruction"],
            }
        )
    if not prompts:
        raise _bad_file(Path(recipe.path), "has no rows", "write one prompt a line")
    return prompts


# ------------------------------------------------------------------------------------------ common


def _existing(path: str) -> Path:
    if not Path(path).is_file():
        raise _bad_file(
            Path(path),
            f"is no file (looked in {Path.cwd()})",
            "correct the path in config/; it is relative to the working folder",
        )
    return Path(path)


def _numbered_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        for number, row in enumerate(read_rows(path), 1):
            yield f"{path}:{number}", row
    except UnicodeDecodeError as error:
        raise _bad_file(path, f"is not UTF-8: {error.reason}", "save it as UTF-8") from None


def _keys(found: dict[str, Any], *expected: str) -> str:
    """What keys there are, without the names of those that are unknown: a name can be text too."""
    known = [key for key in expected if key in found]
    return f"it has {', '.join(known) or 'none of them'} and {len(found) - len(known)} other keys"


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _bad_file(path: Path, problem: str, mend: str) -> UserError:
    return UserError(problem, file=path, mend=mend)


def _bad_row(place: str, problem: str) -> UserError:
    return UserError(problem, file=place, mend="correct this row; docs/adding.md has the format")

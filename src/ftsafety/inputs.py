"""The user's own files: models, datasets and benchmarks that the config names by a path.

All are checked before a job is submitted, and data preparation reads them by the same readers.
Paths are relative to the working folder. Errors are `UserError`s that name file and line. Of a row
they show counts, positions and the names of keys that are expected, and never what it says: training
data can be harmful, and errors end in logs.
"""

import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ftsafety.adapters import WEIGHTS, check_fit, is_adapter, read_config, shapes_in
from ftsafety.errors import UserError, shown
from ftsafety.files import checksum
from ftsafety.plan import Plan, has_chat_template
from ftsafety.prepare import benchmark_prompts, check_pictures, dataset_rows, named_entry
from ftsafety.recipes import DataRows, File, LocalModel, PathModel, WorldDataset
from ftsafety.whole_model import load_whole

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
SAVE = "save the model by transformers' save_pretrained, or download it again"


@contextmanager
def _readable() -> Iterator[None]:
    """What the system refuses (no permission, a name too long, a folder for a file) is a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror or error}",
            file=str(error.filename or ""),
            mend="correct the path in config/, or make it a file that you may read",
        ) from None


@_readable()
def check_inputs(plan: Plan, studies: list[str], *, planning: bool = False) -> None:
    """Check every file of the user's own that these studies read.

    A plan does without those that the catalogue only has a place for (`open_places`).

    Raises UserError for the first that is missing, changed, malformed or would run code.
    """
    project = plan.project
    entries = plan.entries(studies)
    judges = {judge: project.judges[judge] for study in studies for judge in plan.studies[study].judges}
    talking = {run.trajectory.model for study in studies for run in plan.studies[study].runs.values()}
    talking |= {j.model for j in judges.values() if j.kind == "classifier" and j.prompt is None}
    talking |= {base for name in talking if (base := project.base_of(project.models[name]))}
    towers = {run.trajectory.vision_tower for study in studies for run in plan.studies[study].runs.values()}
    for name in sorted(entries["models"]):
        model = project.models[name]
        if model.source == "path":
            needs_template = name in talking and model.chat_template is None
            _check_model(name, model, needs_template=needs_template, reads=name not in towers)
            check_adapter(plan, name)
        if isinstance(model, LocalModel):
            _check_file(model.chat_template, "models", f"{name}.chat_template")
            if model.chat_template:
                _check_template(_text(Path(model.chat_template.path)), Path(model.chat_template.path))
    for name, judge in sorted(judges.items()):
        if judge.kind == "classifier":
            _check_file(judge.prompt, "judges", f"{name}.prompt")
    for name in sorted(entries["datasets"]):
        dataset = project.datasets[name]
        if dataset.source == "path" and not (planning and dataset.sha256 is None):
            _check_sha256(Path(dataset.path), dataset.sha256, "datasets", name)
            dataset_rows(plan, name)
        elif dataset.source == "world":
            _check_design(name, dataset)
        elif not planning:
            _check_pictures(name, dataset)
    for name in sorted(entries["benchmarks"]):
        benchmark = project.benchmarks[name]
        if benchmark.source == "path":
            _check_sha256(Path(benchmark.path), benchmark.sha256, "benchmarks", name)
            benchmark_prompts(plan, name)


def open_places(plan: Plan, study: str) -> Iterator[UserError]:
    """What has to be done about what the catalogue leaves a place for: data without a checksum, pictures."""
    for name in sorted(plan.entries([study])["datasets"]):
        dataset = plan.project.datasets[name]
        try:
            with _readable():
                if dataset.source == "path" and dataset.sha256 is None:
                    _check_sha256(Path(dataset.path), None, "datasets", name)
                elif dataset.source in ("hub", "github"):
                    _check_pictures(name, dataset)
        except UserError as error:
            yield error


def _check_pictures(name: str, recipe: DataRows) -> None:
    """The folder of pictures alone: the rows that name them may not be fetched yet."""
    with named_entry("datasets", name):
        check_pictures(recipe, [])


def _check_file(file: File | None, catalogue: str, field: str) -> None:
    if file is not None:
        _check_sha256(Path(file.path), file.sha256, catalogue, field)


def _check_sha256(path: Path, expected: str | None, catalogue: str, name: str) -> None:
    """`expected` is None where the catalogue leaves a place for a file of the user's."""
    file = f"config/{catalogue}.yaml"
    if not path.exists():
        mend = "correct the path; it is relative to the working folder"
        raise UserError(
            f"{path} does not exist (looked in {Path.cwd()})",
            file=file,
            field=f"{name}.path",
            mend=mend
            if expected
            else "put your data there, and its checksum in the place of null (docs/adding.md)",
        )
    if path.is_dir():
        os.listdir(path)  # a glob passes over a folder that may not be read
    found = checksum(path)
    if expected is None:
        raise UserError(
            f"says nothing of the content of {path}",
            file=file,
            field=f"{name}.sha256",
            mend=f"write sha256: {found}",
        )
    if found != expected:
        raise UserError(
            f"the content of {path} has another checksum: {found} (value {expected})",
            file=file,
            field=f"{name}.sha256",
            mend=f"restore the file, or, if the change is meant, write sha256: {found}",
        )


# ---------------------------------------------------------------------------------------- models


def _check_model(name: str, recipe: PathModel, *, needs_template: bool, reads: bool) -> None:
    """A folder in the hub's format that loads without code of its own or pickles.

    `reads`: it is a language model and needs a tokenizer, unlike a vision tower.
    """
    folder = Path(recipe.path)
    if folder.is_file():
        raise _bad_file(folder, "is a file", "give the folder that holds config.json")
    _check_sha256(folder, recipe.sha256, "models", name)
    check_folder(folder, recipe.holds, needs_template=needs_template, reads=reads)
    if reads and recipe.holds != "adapter" and recipe.engine == "hf":
        _check_causal(folder / "config.json")
        _check_fits(folder)


def check_folder(folder: Path, holds: str, *, needs_template: bool = True, reads: bool = True) -> None:
    """Test that a model's folder has what `holds` says (`recipes.FineTuned`), and nothing that runs code.

    Raises UserError.
    """
    _check_safetensors(folder)
    if is_adapter(folder) and (holds != "adapter" or any(folder.glob("model*.safetensors"))):
        raise _bad_file(
            folder / "adapter_config.json",
            "lies beside whole weights, and transformers would put the adapter on top of them",
            "move the adapter, or the weights, to a folder of its own",
        )
    tokenizer = "tokenizer_config.json"
    if holds == "adapter":
        read_config(folder)
        _check_no_code(folder, [tokenizer] if (folder / tokenizer).exists() else [])
        shapes_in(folder, WEIGHTS)
        speaks = needs_template = has_chat_template(folder)
    else:
        speaks, needs_template = reads and holds == "model", needs_template and holds == "model"
        _check_no_code(folder, ["config.json", *([tokenizer] if speaks else [])])
        _check_weights(folder)
        if reads and not isinstance(_read_object(folder / "config.json").get("model_type"), str):
            raise UserError("is missing", file=folder / "config.json", field="model_type", mend=SAVE)
    if speaks:
        _check_tokenizer(folder)
    if needs_template:
        _check_chat_template(folder)


def check_adapter(plan: Plan, name: str) -> None:
    """Test that an adapter in a folder has the shapes of its base model, if that is here, and is served.

    Other models pass. Raises UserError.
    """
    from ftsafety.engines.vllm import rank_of

    recipe = plan.project.models[name]
    if not isinstance(recipe, PathModel) or recipe.holds != "adapter":
        return
    folder, base = Path(recipe.path), str(recipe.base)
    if recipe.engine == "vllm":
        rank_of(folder)
    is_local = plan.project.models[base].source in ("path", "world")
    if is_local and (shapes := shapes_in(plan.model_dir(base))):
        check_fit(folder, shapes, base)


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


def _check_weights(folder: Path) -> None:
    """What transformers loads is here and whole: model.safetensors, or all that an index names."""
    single, index = "model.safetensors", folder / "model.safetensors.index.json"
    if (folder / single).is_file():
        names = [single]
    elif index.is_file():
        content = _read_object(index)
        shards, metadata = content.get("weight_map"), content.get("metadata")
        if not isinstance(shards, dict) or not shards or not isinstance(metadata, dict):
            raise _bad_file(index, "has no weight_map and metadata", SAVE)
        names = sorted({str(name) for name in shards.values()})
        if missing := set(names) - {path.name for path in folder.iterdir()}:
            raise _bad_file(
                index, f"names {len(missing)} files that are missing: {shown(min(missing))}", "download them"
            )
    else:
        raise _bad_file(folder, f"holds neither {single} nor {index.name}, which says what is where", SAVE)
    for name in names:
        shapes_in(folder, glob.escape(name))


def _check_causal(config: Path) -> None:
    auto = import_module("transformers.models.auto.modeling_auto")  # imports torch: seconds
    content = _read_object(config)
    kind = content["model_type"]
    is_encoder = kind in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not content.get("is_decoder")
    if kind not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or is_encoder:
        raise UserError(
            f"is no causal language model that transformers loads here (value {shown(kind)})",
            file=config,
            field="model_type",
            mend="use a chat model of an architecture that AutoModelForCausalLM knows",
        )


def _check_fits(folder: Path) -> None:
    """Names and shapes of the weights are those of config.json; no weight is read."""
    if "quantization_config" in _read_object(folder / "config.json"):
        return  # which transformers may build on a GPU alone
    import_module("transformers.utils.logging").set_verbosity_error()
    try:
        load_whole(folder, device_map="meta")
    except UserError:
        raise
    except ImportError:
        return  # of a library that the nodes may have
    except Exception as error:  # whatever strange settings make transformers raise
        reason = " ".join(str(error).split())
        raise _bad_file(
            folder / "config.json", f"makes no model: {type(error).__name__}: {shown(reason, 200)}", SAVE
        ) from None


def _check_tokenizer(folder: Path) -> None:
    """tokenizer.json, or files that transformers converts."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.exists():
        if any(path for pattern in ("*.model", "vocab.*") for path in folder.glob(pattern)):
            return
        raise _bad_file(file, "is missing", "save the tokenizer too, by its save_pretrained")
    try:
        Tokenizer.from_file(str(file))
    except Exception as error:  # the library has no class of its own for what is wrong
        mend = "download it again; of a git repository, with git lfs"
        raise _bad_file(file, f"is no tokenizer: {shown(str(error))}", mend) from None


def _check_no_code(folder: Path, files: list[str]) -> None:
    """Neither classes of its own nor, as an implementation of attention, a kernel of the hub."""
    for path in (folder / file for file in files):
        content = _read_object(path)
        kernels = (key for key in content if "attn_implementation" in key and "/" in str(content[key]))
        for field in ("auto_map", *kernels):
            if code := content.get(field):
                raise UserError(
                    f"names code to run when it is loaded, which is never done (value {shown(code)})",
                    file=path,
                    field=field,
                    mend=f"use a model whose code is in transformers, without {field}",
                )


def _check_chat_template(folder: Path) -> None:
    path, own = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    if own.exists():
        _check_template(_text(own), own)
        return
    template = _read_object(path).get("chat_template")
    if isinstance(template, list):  # several by name, of which transformers takes this one
        objects = [each for each in template if isinstance(each, dict)]
        template = next((each.get("template") for each in objects if each.get("name") == "default"), None)
    if not template:
        raise UserError(
            "is missing, and so is chat_template.jinja",
            file=path,
            field="chat_template",
            mend="use a chat model, or add the template it was trained with as chat_template.jinja",
        )
    _check_template(template, path, "chat_template")


def _check_template(template: Any, file: Path, field: str = "") -> None:
    """Compile it as transformers does, in its sandbox."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    mend = "write the template that the model was trained with"
    if not isinstance(template, str) or not template.strip():
        raise UserError("is empty, or no text", file=file, field=field, mend=mend)
    try:
        _compile_jinja_template(template)
    except (TemplateError, SyntaxError, RecursionError) as error:
        problem = f"is no chat template: {shown(str(error))}"
        raise UserError(problem, file=file, field=field, mend=mend) from None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError:
        raise _bad_file(path, "is not UTF-8", "save it as UTF-8") from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise _bad_file(path, "is missing", "give a folder in the hub's format") from None
    except (ValueError, RecursionError) as error:
        raise _bad_file(path, f"is not valid JSON: {error}", "download it again") from None
    if not isinstance(value, dict):
        raise _bad_file(path, f"is no JSON object: {shown(value)}", "download it again")
    return value


# ------------------------------------------------------------------------------------------ data


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


def _bad_file(path: Path, problem: str, mend: str) -> UserError:
    return UserError(problem, file=path, mend=mend)

"""What MODEL and BASE of an audit mean: entries of `config/models.yaml`, or what would stand there.

A model is named by its entry, by a folder (a model, a PEFT adapter, or a run of ours), by its repository on
the hub, or as endpoint:model. What is found is written to `results/audits/`, which every later call reads.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from ftsafety import paths
from ftsafety.adapters import base_named, is_adapter, read_config
from ftsafety.config import Audited, Project
from ftsafety.errors import UserError
from ftsafety.files import checksum, digest, write_yaml
from ftsafety.inputs import check_adapter, check_folder
from ftsafety.loading import with_audits
from ftsafety.plan import Plan, has_chat_template
from ftsafety.recipes import ApiModel, FineTuned, HubModel, LocalModel, ModelBase, PathModel, WorldModel
from ftsafety.runs import Run

HUB_ID = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
FORMS = (
    "an entry of config/models.yaml, a folder with a model, an adapter or a run of ours "
    "(results/runs/…/epoch-3), owner/name of the hub, or endpoint:model"
)
#: What of the base's entry is not the fine-tuned model's.
NOT_INHERITED = {"pack_size", "merge_adapters"}
LONGEST_NAME = 60


@dataclass(frozen=True)
class Found:
    """A model that was named, with its entry where the catalogue has none, and the base that it names."""

    name: str
    entry: Any = None
    base: "Found | None" = None
    template: str | None = None


def resolve(
    project: Project, model: str, base: str | None, file: str = "audit", template: str | None = None
) -> Audited:
    """The pair that a call names. Raises UserError where there is no such model, or it would run code."""
    below = find_base(project, base) if base else None
    found = find_model(project, model, below)
    if below is None:
        if found.base is None:
            raise UserError(
                "the base model is not known",
                field="BASE",
                mend=f"name what {model} was fine-tuned from, as BASE=…: {FORMS}",
            )
        below = found.base
    entries = {f.name: f.entry for f in (found, below) if f.entry is not None}
    both = replace(project, models={**project.models, **entries})
    needed = both.base_of(both.models[found.name])
    if needed is not None and needed != below.name:
        raise UserError(
            f"{model} was fine-tuned from {needed!r}, and BASE is {below.name!r}",
            field="BASE",
            mend=f"leave BASE out, or name {needed}",
        )
    if both.models[found.name] == both.models[below.name] or found.name == below.name:
        raise UserError("MODEL and BASE are the same model", field="BASE", mend="name what it was made from")
    return Audited(
        asked={"MODEL": model, "BASE": base or "", "TEMPLATE": template or ""},
        file=file,
        variant=variant_for(both, file, found.name),
        model=found.name,
        base=below.name,
        template=template or found.template,
        entries=entries,
    )


def variant_for(project: Project, file: str, model: str) -> str:
    """The variant of an audit's file that is for a model: the embedded world's, or the settings'.

    Raises UserError where there is no such audit.
    """
    names = {project.files[name] for name in project.audits}
    if file not in names:
        raise UserError(
            f"{file!r} is no study that audits models",
            field="STUDY",
            mend=f"name one of {', '.join(sorted(names))}, or give a file of config/studies an audit: block",
        )
    if project.world_of(model) is not None:
        wanted = "embedded"
    else:
        wanted = "" if project.settings.preset == "embedded" else project.settings.preset or ""
    variant = wanted if f"{file}-{wanted}" in project.audits else ""
    if wanted == "embedded" and not variant and _asks_no_world(project, file):
        raise UserError(
            f"{model!r} is of the embedded world, and the study has no variant for it",
            file=project.place(file),
            field="variants",
            mend="add `embedded`, or audit another model",
        )
    return variant


def _asks_no_world(project: Project, file: str) -> bool:
    benchmarks = project.audits[file].benchmarks
    return all(project.benchmarks[name].source != "world" for name in benchmarks)


def write_pair(project: Project, pair: Audited) -> Path:
    """Check that the pair can be asked, and write down what it is. Raises UserError as `load_project`."""
    from ftsafety.checks import check_project

    asked = with_audits(project, [pair])
    check_project(asked)
    check_adapter(Plan(asked, [pair.study]), pair.model)
    path = paths.audit_file(pair.study)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_yaml(path, pair.model_dump(mode="json", exclude_defaults=True))
    return path


# ------------------------------------------------------------------------------- base models


def find_base(project: Project, asked: str) -> Found:
    """The base model that a call names. Raises UserError where there is none."""
    if asked in project.models:
        return Found(asked)
    if served := _behind_endpoint(project, asked, field="BASE"):
        return served
    if os.path.exists(asked):  # of any text, unlike Path.exists
        if (name := _entry_of_folder(project, Path(asked))) is not None:
            return Found(name)
        if is_adapter(Path(asked)) or _run_folder(Path(asked)):
            raise UserError(
                "is an adapter or a run, which is no base model",
                file=asked,
                field="BASE",
                mend="name the model that it was trained from",
            )
        return _whole_folder(Path(asked), {})
    if HUB_ID.fullmatch(asked):
        if (name := _entry_of_repo(project, asked)) is not None:
            return Found(name)
        raise UserError(
            f"{asked} is in no entry of config/models.yaml, and a base model's says what hardware it takes",
            field="BASE",
            mend="add an entry with source: hub (docs/adding.md); all that is fine-tuned from it inherits it",
        )
    raise UserError(f"{asked!r} names no model", field="BASE", mend=f"name {FORMS}")


def _entry_of_repo(project: Project, asked: str) -> str | None:
    """The entry of a repository, at the revision that stands behind an @."""
    repo, _, revision = asked.lower().partition("@")
    for name, recipe in project.models.items():
        if not isinstance(recipe, HubModel) or recipe.repo.lower() != repo:
            continue
        if revision in ("", recipe.revision.lower()):
            return name
    return None


def _entry_of_folder(project: Project, folder: Path) -> str | None:
    """The entry whose weights lie there."""
    for name, recipe in project.models.items():
        own = Path(recipe.path) if recipe.source == "path" else paths.model_dir(name)
        if recipe.source in ("path", "world") and own.resolve() == folder.resolve():
            return name
    return None


# --------------------------------------------------------------------------- models to audit


def find_model(project: Project, asked: str, base: Found | None) -> Found:
    """The model that a call names, to be asked beside `base`. Raises UserError where there is none."""
    if asked in project.models:
        recipe = project.models[asked]
        if recipe.source == "rows":
            raise UserError(f"{asked!r} is no model", field="MODEL", mend="audits of data: docs/judges.md")
        return Found(
            asked, base=Found(recipe.base) if isinstance(recipe, FineTuned) and recipe.base else None
        )
    if served := _behind_endpoint(project, asked, base):
        return served
    folder = Path(asked)
    if os.path.isfile(asked):
        raise UserError("is a file", file=asked, field="MODEL", mend="name the folder that holds it")
    if os.path.isdir(asked):
        run = _run_folder(folder)
        return _run(project, *run) if run else _folder(project, folder, base)
    if HUB_ID.fullmatch(asked):
        return _on_hub(project, asked, base)
    raise UserError(f"{asked!r} names no model (looked in {Path.cwd()})", field="MODEL", mend=f"name {FORMS}")


def _run_folder(folder: Path) -> tuple[Path, Run] | None:
    """The folder and record of a run of ours, also by its weights/; others' run.yaml are none."""
    for candidate in (folder, folder.parent if folder.name == "weights" else folder):
        try:
            return candidate, Run.model_validate(yaml.safe_load((candidate / "run.yaml").read_text()))
        except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError):
            continue
    return None


def _run(project: Project, folder: Path, run: Run) -> Found:
    """A run of ours: its weights lie there, and its base is what it was trained from."""
    trajectory, weights = run.trajectory, folder / "weights"
    if trajectory.is_initial:
        raise UserError(
            "is the untouched model",
            file=folder,
            field="MODEL",
            mend=f"name it by its entry, {trajectory.model}, as BASE or MODEL",
        )
    if trajectory.by_api:
        raise UserError(
            "was trained by an endpoint, which has its weights",
            file=folder,
            field="MODEL",
            mend="name it as endpoint:model; its done.json has the name (fine_tuned_model)",
        )
    if not weights.is_dir():
        raise UserError(
            "has no weights: full checkpoints are dropped once they have answered",
            file=folder,
            field="MODEL",
            mend="train it again with keep_weights: true (--config keep_weights=True --forcerun train)",
        )
    base = trajectory.model
    recipe = project.models.get(base)
    if not isinstance(recipe, LocalModel) or project.identity(recipe) != trajectory.model_recipe:
        raise UserError(
            f"was trained from another model {base!r} than config/models.yaml now names",
            file=folder / "run.yaml",
            field="MODEL",
            mend="put the model's entry back as it was",
        )
    holds = "weights" if trajectory.replaces_base else "adapter"
    entry = _path_entry(weights, base, holds, recipe)
    name = _named(f"{trajectory.data}-{trajectory.method}-{run.id}", entry)
    return Found(name, entry, Found(base), template=trajectory.template)


def _folder(project: Project, folder: Path, base: Found | None) -> Found:
    if (name := _entry_of_folder(project, folder)) is not None:
        return find_model(project, name, base)
    if not is_adapter(folder):
        recipe = base and (base.entry or project.models[base.name])
        if base is None or not isinstance(recipe, LocalModel):
            return _whole_folder(folder, {})
        return _whole_folder(folder, {**_inherited(recipe), "base": base.name})
    config = read_config(folder)
    below = base or _base_of_adapter(project, folder, config)
    recipe = below.entry or project.models[below.name]
    if not isinstance(recipe, LocalModel) or (isinstance(recipe, FineTuned) and recipe.holds != "model"):
        raise UserError(
            f"{below.name!r} is no whole model that runs here, and an adapter needs one",
            field="BASE",
            mend="name the model that the adapter was trained from",
        )
    _check_named(project, folder, config, below)
    entry = _path_entry(folder, below.name, "adapter", recipe)
    return Found(_named(folder.resolve().name, entry), entry, below)


def _base_of_adapter(project: Project, folder: Path, config: dict[str, Any]) -> Found:
    """The base model that an adapter itself names. Raises UserError where it is not known here."""
    named = base_named(config)
    try:
        if named:
            return find_base(project, named)
    except UserError:
        pass
    raise UserError(
        f"the adapter names the base model {named!r}, which is not known here",
        file=folder / "adapter_config.json",
        field="base_model_name_or_path",
        mend="name it as BASE=…: an entry of config/models.yaml, or a folder",
    )


def _check_named(project: Project, folder: Path, config: dict[str, Any], base: Found) -> None:
    """That an adapter does not name another model of the catalogue; a path of elsewhere says nothing."""
    named = base_named(config)
    if not named:
        return
    name = _entry_of_repo(project, named) or _entry_of_folder(project, Path(named))
    if name is not None and name != base.name:
        raise UserError(
            f"is an adapter of {named}, which is {name!r} here, and BASE is {base.name!r}",
            file=folder / "adapter_config.json",
            field="base_model_name_or_path",
            mend=f"name BASE={name}",
        )


def _whole_folder(folder: Path, inherited: dict[str, Any]) -> Found:
    check_folder(folder, "model")
    entry = PathModel(source="path", path=str(folder), sha256=checksum(folder), **inherited)
    return Found(_named(folder.resolve().name, entry), entry)


def _path_entry(folder: Path, base: str, holds: Any, recipe: LocalModel) -> PathModel:
    check_folder(folder, holds)
    inherited = _inherited(recipe, with_chat_template=not has_chat_template(folder))
    return PathModel(
        source="path", path=str(folder), sha256=checksum(folder), base=base, holds=holds, **inherited
    )


def _on_hub(project: Project, asked: str, base: Found | None) -> Found:
    """A repository of the hub at a branch or tag; its files are pinned in config/lock.yaml, which says
    whether they are an adapter."""
    if (name := _entry_of_repo(project, asked)) is not None:
        return find_model(project, name, base)
    repo, _, revision = asked.partition("@")
    recipe = base and (base.entry or project.models[base.name])
    if base is None or not isinstance(recipe, LocalModel):
        raise UserError(
            f"what {asked} was fine-tuned from is not known before it is fetched",
            field="BASE",
            mend="name the base model, an entry of config/models.yaml or a folder: its hardware is inherited",
        )
    size = recipe.size_b if isinstance(recipe, HubModel) else 1.0
    entry = HubModel(
        source="hub",
        repo=repo,
        revision=revision or "main",
        licence="not looked up: see its page",
        size_b=size,
        base=base.name,
        **_inherited(recipe),
    )
    files = _pinned_files(project, entry)
    if "adapter_config.json" in files:
        talks_itself = {"chat_template.jinja", "tokenizer_config.json"} & files
        own = {} if talks_itself else {"chat_template": recipe.chat_template}
        entry = entry.model_copy(update={"holds": "adapter", **own})
    return Found(_named(asked.replace("/", "--"), entry), entry)


def _pinned_files(project: Project, entry: HubModel) -> set[str]:
    """Names of a repository's files, pinned now where they are not. Raises UserError without network."""
    from ftsafety.loading import read_lock
    from ftsafety.lock import write_lock

    if entry.lock_key not in project.lock:
        write_lock(replace(project, models={**project.models, entry.repo: entry}), [entry.repo])
        project.lock.update(read_lock(project.root))
    return set(project.lock[entry.lock_key].files)


def _behind_endpoint(
    project: Project, asked: str, base: Found | None = None, field: str = "MODEL"
) -> Found | None:
    """endpoint:model, with the request's settings of a base model at the same endpoint."""
    endpoint, _, model = asked.partition(":")
    if endpoint not in project.endpoints or not model:
        return None
    same = {
        name: m for name, m in project.models.items() if isinstance(m, ApiModel) and m.endpoint == endpoint
    }
    if (name := next((n for n, m in same.items() if m.model == model), None)) is not None:
        return Found(name)
    below = same.get(base.name) if base else None
    if base is not None and isinstance(base.entry, ApiModel):
        below = base.entry
    settings = below.model_dump(include={"parameters", "limit_parameter", "system_role"}) if below else {}
    entry = ApiModel(source="api", endpoint=endpoint, model=model, **settings)
    of = next((Found(n) for n, m in same.items() if m.model == entry.served), None)
    is_ours = project.endpoints[endpoint].is_embedded
    if is_ours and not isinstance(project.models.get(entry.served), WorldModel):
        raise UserError(
            f"the embedded world's provider has no model {model!r}", field=field, mend="name embedded-0"
        )
    return Found(_named(asked, entry), entry, of)


# ------------------------------------------------------------------------------------- entries


def _inherited(recipe: LocalModel, *, with_chat_template: bool = False) -> dict[str, Any]:
    """Of a base model's entry what is about loading and asking it, and about hardware."""
    left_out = NOT_INHERITED if with_chat_template else NOT_INHERITED | {"chat_template"}
    kept = {name for name in ModelBase.model_fields if name not in left_out}
    return {name: getattr(recipe, name) for name in kept & recipe.model_fields_set}


def _named(stem: str, entry: Any) -> str:
    """What an entry is called: other weights, another base or place make another name."""
    return clean(f"{stem}-{digest(entry.model_dump(mode='json', exclude_defaults=True))}")


def clean(text: str) -> str:
    """As a name in the catalogue and of folders; cut in the middle, where it is long."""
    name = re.sub(r"[^a-zA-Z0-9._-]+", "-", text).strip("-._") or "model"
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2 - 1]}..{name[-LONGEST_NAME // 2 + 1 :]}"

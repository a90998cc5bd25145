"""`config/lock.yaml`: commit and checksums of the files of every remote model, dataset and benchmark.

Nothing is downloaded for it: the hub and GitHub list a file's checksum with its name.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import quote

import yaml

from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.files import MODEL_TEXTS, write_text
from ftsafety.recipes import Locked, Remote
from ftsafety.remote import access_errors, get_github

HEADER = "# Written by `make lock`; `make lock UPDATE=1` pins the newest commits.\n"
#: At the top level of a model's repository: weights as safetensors, architecture, tokenizer, chat template.
HUB_MODEL_FILES = [
    *("model*.safetensors", "model.safetensors.index.json", "added_tokens.json"),  # not consolidated.*
    "adapter_model.safetensors",
    *MODEL_TEXTS,
]
#: Code and pickles, whatever their name.
NEVER = ("*.py", "*.bin")


def write_lock(project: Project, names: Iterable[str] = (), update: bool = False) -> None:
    """Pin what is not pinned yet, or with `update` all anew.

    `names` are entries of the catalogues of models, datasets and benchmarks; none: all that are remote. No
    entry of the lock is removed. Raises UserError for a name that is no remote source and, after the others
    are pinned, for all sources that could not be.
    """
    lock, failed = dict(project.lock), []
    for key, recipes in _by_key(project, names).items():
        before = None if update else lock.get(key)
        patterns = sorted({pattern for recipe in recipes for pattern in patterns_of(recipe)})
        if before and (recipes[0].repo_type == "model" or before.files.keys() >= set(patterns)):
            continue
        try:
            now = resolve(recipes[0], patterns, before.commit if before else None)
        except UserError as error:
            if before and not update and all(_matches(before.files, pattern) for pattern in patterns):
                _say(f"as it was pinned: {key}, which could not be asked whether * stands for more now")
            else:
                failed.append(error)
                _say(f"not pinned: {key}")
            continue
        if now != before:
            lock[key] = Locked(commit=now.commit, files=(before.files if before else {}) | now.files)
            _write(project, lock)
            _say(f"pinned {key} at {now.commit[:12]}, {len(now.files)} files")
    if failed:
        each = "".join(f"\n{error}" for error in failed)
        raise UserError(f"{len(failed)} sources could not be pinned; the others are.{each}")


def patterns_of(recipe: Remote) -> list[str]:
    """Which files of its repository a recipe uses."""
    patterns: list[str] = getattr(recipe, "files", HUB_MODEL_FILES)
    return patterns


def resolve(recipe: Remote, patterns: Iterable[str], commit: str | None = None) -> Locked:
    """Ask for the commit of the recipe's revision, unless it is given, and for the checksums of its files.

    Raises UserError without access or network, for a pattern that matches nothing, and for a model without
    safetensors.
    """
    revision = commit or recipe.revision
    with access_errors(recipe, revision):
        found, available = (_ask_hub if recipe.source == "hub" else _ask_github)(recipe, revision)
    if recipe.repo_type == "model":
        available = {name: checksum for name, checksum in available.items() if _may_be_of_model(name)}
    matches = {pattern: _matches(available, pattern) for pattern in patterns}
    files = {name: available[name] for name in sorted({name for names in matches.values() for name in names})}
    if recipe.repo_type == "model":
        if any(fnmatchcase(name, "model*.safetensors") for name in files):  # an adapter would be put on top
            files = {name: checksum for name, checksum in files.items() if not name.startswith("adapter_")}
        if not any(name.endswith(".safetensors") for name in files):
            raise UserError(
                f"has no model*.safetensors and no adapter_model.safetensors at {revision!r}",
                file=recipe.page,
                mend="name a repository that has, or convert the weights and give them with source: path",
            )
    elif unmatched := [pattern for pattern, names in matches.items() if not names]:
        raise UserError(
            f"has no file {unmatched[0]!r} at {revision!r}",
            file=recipe.page,
            field="files",
            mend="correct it; the page lists the files",
        )
    return Locked(commit=found, files=files)


def _matches(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def _may_be_of_model(name: str) -> bool:
    return "/" not in name and not any(fnmatchcase(name, pattern) for pattern in NEVER)


def _ask_hub(recipe: Remote, revision: str) -> tuple[str, dict[str, str]]:
    """Commit, and file → checksum of all files."""
    from huggingface_hub import HfApi

    info: Any = HfApi().repo_info(
        recipe.repo, repo_type=recipe.repo_type, revision=revision, files_metadata=True
    )
    return info.sha, {
        file.rfilename: f"sha256:{file.lfs.sha256}" if file.lfs else f"git:{file.blob_id}"
        for file in info.siblings
    }


def _ask_github(recipe: Remote, revision: str) -> tuple[str, dict[str, str]]:
    api = os.environ.get("FTSAFETY_GITHUB_API", "https://api.github.com")
    repository = f"{api}/repos/{recipe.repo}"
    commit = get_github(f"{repository}/commits/{quote(revision, safe='')}").json()["sha"]
    tree = get_github(f"{repository}/git/trees/{commit}?recursive=1").json()
    if tree["truncated"]:
        raise UserError(
            "has more files than GitHub lists at once",
            file=recipe.page,
            mend="download what you need and give it with source: path",
        )
    return commit, {file["path"]: f"git:{file['sha']}" for file in tree["tree"] if file["type"] == "blob"}


def _by_key(project: Project, names: Iterable[str]) -> dict[str, list[Remote]]:
    """The recipes to pin; of a repository that one of them uses all recipes, since they share its commit."""
    wanted, by_key = set(names), dict[str, list[Remote]]()
    recipes = list(_remote_recipes(project))
    if unknown := sorted(wanted - {name for name, _ in recipes}):
        raise UserError(
            f"{unknown[0]!r} is no model, dataset or benchmark with source hub or github",
            mend=f"name some of {', '.join(name for name, _ in recipes)}, or none for all",
        )
    keys = {recipe.lock_key for name, recipe in recipes if name in wanted or not wanted}
    for _, recipe in recipes:
        if recipe.lock_key in keys:
            by_key.setdefault(recipe.lock_key, []).append(recipe)
    return by_key


def _remote_recipes(project: Project) -> Iterator[tuple[str, Remote]]:
    for catalogue in (project.models, project.datasets, project.benchmarks):
        for name, recipe in catalogue.items():
            if isinstance(recipe, Remote):
                yield name, recipe


def _write(project: Project, lock: dict[str, Locked]) -> None:
    content = {
        key: {"commit": lock[key].commit, "files": dict(sorted(lock[key].files.items()))}
        for key in sorted(lock)
    }
    write_text(project.root / "config/lock.yaml", HEADER + yaml.safe_dump(content, sort_keys=False))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

"""Files of the hub and of GitHub at their locked commits: fetched where there is network, then read without.

Those of the hub lie in the hub's own cache (HF_HOME or HF_HUB_CACHE says where), those of GitHub below
`results/github/`. huggingface_hub reads its environment variables (also HF_ENDPOINT and HF_HUB_OFFLINE)
when it is imported first, so they are set before a program starts. Tokens are in no message.
"""

import glob
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.files import private_dir, sha256_file, write_json
from ftsafety.paths import RESULTS
from ftsafety.recipes import HubModel, Locked, Remote

GITHUB_FILES = RESULTS / "github"
PREFETCH = "snakemake --profile profiles/<yours> <study> --until prefetch"
#: Bytes from which a checksum takes long enough to say so.
BIG = 10**9


def pinned(project: Project, recipe: Remote) -> Locked:
    """The commit of a recipe and the files that it uses.

    Raises UserError where `make lock` has not pinned all of them.
    """
    locked = project.lock.get(recipe.lock_key)
    files = project.locked_files(recipe)
    patterns = getattr(recipe, "files", ["*"])
    missing = [p for p in patterns if not any(fnmatchcase(name, p) for name in files)]
    if locked is None or missing:
        raise UserError(
            "is not pinned" if locked is None else f"has no file {missing[0]!r}",
            file="config/lock.yaml",
            field=recipe.lock_key,
            mend="run `make lock STUDY=<study>` where there is network",
        )
    return Locked(commit=locked.commit, files=files)


def prefetch(project: Project, recipe: Remote, manifest: Path) -> None:
    """Fetch what a recipe uses; the manifest, written last, says that it is whole.

    Raises UserError: see `pinned` and `fetch`.
    """
    locked = pinned(project, recipe)
    found = fetch(recipe, locked, locked.files)
    files = {
        name: {"checksum": locked.files[name], "bytes": path.stat().st_size} for name, path in found.items()
    }
    about = {"source": recipe.source, "repo": recipe.repo, "page": recipe.page, "licence": recipe.licence}
    write_json(manifest, about | {"revision": recipe.revision, "commit": locked.commit, "files": files})


def fetch(recipe: Remote, locked: Locked, files: Iterable[str]) -> dict[str, Path]:
    """Download the files that are not here yet, and compare all with their checksums in the lock.

    Returns name in the repository → path here. Raises UserError without access or network, and for a file
    that differs from the lock.
    """
    names = list(files)
    with access_errors(recipe, locked.commit):
        (_fetch_hub if recipe.source == "hub" else _fetch_github)(recipe, locked, names)
    found = local_files(recipe, locked, names)
    for name, path in found.items():
        _verify(path, locked.files[name])
    return found


def local_files(recipe: Remote, locked: Locked, files: Iterable[str]) -> dict[str, Path]:
    """The same files without any network: name in the repository → path here.

    Raises UserError for the first that was not fetched.
    """
    folder = _folder(recipe, locked)
    found = {name: folder / name for name in files}
    for name, path in found.items():
        if not path.is_file():
            raise UserError(
                f"{name} is not here (looked for {path})",
                file=recipe.page,
                mend=f"run `{PREFETCH}` where there is network, with `--forcerun prefetch` if it ran before",
            )
    return found


def model_folder(recipe: HubModel, locked: Locked) -> Path:
    """The folder of a fetched model, as transformers reads it, without any network.

    Raises UserError for the first of its files that was not fetched.
    """
    local_files(recipe, locked, locked.files)
    return _folder(recipe, locked)


def _folder(recipe: Remote, locked: Locked) -> Path:
    name = recipe.repo.replace("/", "--")
    if recipe.source == "github":
        return GITHUB_FILES / name / locked.commit
    from huggingface_hub.constants import HF_HUB_CACHE  # light; the client itself needs 0.2 s

    return Path(HF_HUB_CACHE) / f"{recipe.repo_type}s--{name}" / "snapshots" / locked.commit


def _fetch_hub(recipe: Remote, locked: Locked, names: list[str]) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download(
        recipe.repo,
        repo_type=recipe.repo_type,
        revision=locked.commit,
        allow_patterns=[glob.escape(name) for name in names],
    )


def _fetch_github(recipe: Remote, locked: Locked, names: list[str]) -> None:
    base = os.environ.get("FTSAFETY_GITHUB_RAW", "https://raw.githubusercontent.com")
    folder = private_dir(_folder(recipe, locked))  # of several, some hold harmful text
    for name in names:
        path = folder / name
        if path.exists():
            continue
        reply = get_github(f"{base}/{recipe.repo}/{locked.commit}/{quote(name)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as temporary:
            whole = Path(temporary) / path.name
            whole.write_bytes(reply.content)
            os.replace(whole, path)


def get_github(url: str) -> Any:
    """The reply to a GET request. Raises httpx2.HTTPError, also for a status that is no success."""
    import httpx2

    token = os.environ.get("GITHUB_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    reply = httpx2.get(url, headers=headers, timeout=30, follow_redirects=True)
    reply.raise_for_status()
    return reply


def _verify(path: Path, expected: str) -> None:
    """Raises UserError where the file's bytes are not those of the lock."""
    size = path.stat().st_size
    if size >= BIG:
        print(f"checking {path.name} ({size / BIG:.1f} GB)", file=sys.stderr, flush=True)
    found = f"sha256:{sha256_file(path)}" if expected.startswith("sha256:") else f"git:{_git_sha1(path)}"
    if found != expected:
        raise UserError(
            f"is not what config/lock.yaml pins ({found}, and not {expected})",
            file=path.resolve(),  # in the hub's cache the content, since its link is no use to delete
            mend=f"delete it and fetch again (`{PREFETCH} --forcerun prefetch`); if it still differs, "
            "`make lock STUDY=<study> UPDATE=1` pins anew",
        )


def _git_sha1(path: Path) -> str:
    """As git names the content of a file."""
    sha1 = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: sha1).hexdigest()


# ---------------------------------------------------------------------------------------- errors


@contextmanager
def access_errors(recipe: Remote, revision: str) -> Iterator[None]:
    """What the hub, GitHub or the network refuses becomes a UserError that names the repository's page."""
    import httpx2
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        yield
    except (httpx2.HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError, RuntimeError) as error:
        # The hub's client wraps what went wrong on the way.
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
        message, mend = _explain(recipe, revision, cause or error)
    else:
        return
    raise UserError(message, file=recipe.page, mend=mend)


def _explain(recipe: Remote, revision: str, error: BaseException) -> tuple[str, str]:
    from huggingface_hub import errors

    on_hub = recipe.source == "hub"
    token = "set HF_TOKEN or run `hf auth login`" if on_hub else "set GITHUB_TOKEN"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            "HF_HUB_OFFLINE forbids to ask the hub",
            f"unset it, and run `{PREFETCH}` where there is network",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be written here: {error.strerror}", "make room, or set HF_HOME to a folder of yours"
    if status is None:
        return (
            f"cannot be reached ({type(error).__name__})",
            "try again where there is network; through a proxy, set HTTPS_PROXY",
        )
    if isinstance(error, errors.DisabledRepoError):
        return "was disabled by the hub", "choose another source"
    if isinstance(error, errors.RevisionNotFoundError) or status == 422:
        return (
            f"has no revision {revision!r}",
            "correct `revision`" if revision == recipe.revision else "`make lock UPDATE=1` pins it anew",
        )
    if isinstance(error, errors.GatedRepoError):
        return (
            "is gated, and the token has no access" if status == 403 else "is gated, and no token was given",
            f"ask for access on {recipe.page}, then {token}",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status == 404:
        return (
            f"is not there at revision {revision!r}, or not for everyone (status {status})",
            f"correct `repo`; if it is private or gated, ask for access on {recipe.page}, then {token}",
        )
    if status == 401:
        return "refuses the token as not valid", f"{token} again, with a token that is valid"
    if status in (403, 429):
        return (
            f"is refused (status {status}: no permission, or too many requests)",
            f"wait an hour, or {token} with a token that may read {recipe.page}",
        )
    return f"cannot be read now (status {status})", "try again later"

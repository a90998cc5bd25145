"""A server on loopback that speaks the parts of the hub's and GitHub's HTTP that fetching files needs.

    with HubStandIn(folder) as hub:
        commit = hub.add_commit("owner/name", repo_type="dataset", files={"a.csv": "…"})
        subprocess.run([...], env=os.environ | hub.env)

huggingface_hub reads these variables when it is imported, so what uses them runs in a process of its own.
As on the hub, a gated repository is listed for all and its files are for those with access; a private one
is hidden. Large files (LFS) are reached by a redirect. Xet is left out: the client is told not to use it.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

Kind = Literal["model", "dataset", "github"]
LFS = ("*.safetensors", "*.bin", "*.parquet", "tokenizer.json")


@dataclass
class Repository:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    lfs: Iterable[str] = LFS
    readers: set[str] | None = None  # tokens that have access; None: all have
    private: bool = False

    def is_lfs(self, name: str) -> bool:
        return any(fnmatch(name, pattern) for pattern in self.lfs)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class Reply:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @classmethod
    def json(cls, value: Any) -> "Reply":
        return cls(headers={"Content-Type": "application/json"}, body=json.dumps(value).encode())

    @classmethod
    def error(cls, status: int, code: str = "", message: str = "") -> "Reply":
        return cls(status, {"X-Error-Code": code, "X-Error-Message": message})


class HubStandIn:
    """`folder` is where the client's cache and settings go."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.requests: list[Request] = []
        self.tokens: set[str] = set()  # that the hub knows
        self._repositories: dict[tuple[Kind, str], Repository] = {}
        self.instead: dict[str, Reply] = {}  # part of a path → what is answered there
        self._broken: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    def __enter__(self) -> "HubStandIn":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def env(self) -> dict[str, str]:
        """Environment variables by which the real client comes here and nowhere else."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.folder / "hf-home"),
            "HF_HUB_CACHE": str(self.folder / "hf-cache"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_TOKEN": "",
            "GITHUB_TOKEN": "",
            "NO_PROXY": "127.0.0.1,localhost",
            "FTSAFETY_GITHUB_API": f"{self.url}/github-api",
            "FTSAFETY_GITHUB_RAW": f"{self.url}/github-raw",
        }

    def add_commit(
        self,
        repo: str,
        *,
        files: Mapping[str, str | bytes] | Path,
        repo_type: Kind = "dataset",
        branch: str = "main",
        lfs: Iterable[str] = LFS,
    ) -> str:
        """A commit with exactly these files (or those of a folder), which the branch moves to."""
        if isinstance(files, Path):
            files = {str(p.relative_to(files)): p.read_bytes() for p in files.rglob("*") if p.is_file()}
        content = {k: v.encode() if isinstance(v, str) else v for k, v in sorted(files.items())}
        repository = self._repositories.setdefault((repo_type, repo), Repository())
        described = repr((repo, len(repository.commits), list(content.items())))
        commit = hashlib.sha1(described.encode()).hexdigest()
        repository.commits[commit] = content
        repository.branches[branch] = commit
        repository.lfs = lfs
        return commit

    def gate(self, repo: str, *readers: str, repo_type: Kind = "dataset", private: bool = False) -> None:
        """From now on the files are for these tokens alone."""
        repository = self._repositories[repo_type, repo]
        repository.readers, repository.private = set(readers), private
        self.tokens |= repository.readers

    def break_download(self, content: bytes, after: int) -> None:
        """The next time that this content is sent, close the connection after so many bytes."""
        self._broken[_sha256(content)] = after

    def count(self, part: str, method: str = "") -> int:
        """Requests whose path contains a text."""
        return len([r for r in self.requests if part in r.path and method in r.method])

    # -------------------------------------------------------------------------------- replies

    def reply(self, request: Request) -> Reply:
        self.requests.append(request)
        if request.token and request.token not in self.tokens:
            return Reply.error(401, message="Invalid credentials in Authorization header")
        for part, reply in self.instead.items():
            if part in request.path:
                return reply
        for pattern, answer in _ROUTES.items():
            if match := re.fullmatch(pattern, request.path):
                parts = {key: unquote(value) for key, value in match.groupdict(default="").items()}
                kind: Kind = "github" if "github" in pattern else _kind(parts.get("kind", ""))
                return answer(self, request, kind, **{k: v for k, v in parts.items() if k != "kind"})
        return Reply(404)

    def cut(self, content: bytes) -> int | None:
        return self._broken.pop(_sha256(content), None)

    def _found(self, request: Request, kind: Kind, repo: str, revision: str) -> Any:
        """Repository and commit, or the error that the hub answers."""
        repository = self._repositories.get((kind, repo))
        allowed = repository and (repository.readers is None or request.token in repository.readers)
        if repository is None or (repository.private and not allowed):
            return Reply.error(404 if kind == "github" or request.token else 401, "RepoNotFound")
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return Reply.error(422 if kind == "github" else 404, "RevisionNotFound")
        return repository, commit

    def _info(self, request: Request, kind: Kind, repo: str, revision: str) -> Reply:
        found = self._found(request, kind, repo, revision)
        if isinstance(found, Reply):
            return found
        repository, commit = found
        siblings = []
        for name, content in repository.commits[commit].items():
            sibling: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": _blob_id(content)}
            if repository.is_lfs(name):
                sibling["lfs"] = {"size": len(content), "sha256": _sha256(content), "pointerSize": 134}
                sibling["blobId"] = "0" * 40  # of the pointer, which nothing should compare with
            siblings.append(sibling)
        return Reply.json({"id": repo, "sha": commit, "siblings": siblings})

    def _tree(self, request: Request, kind: Kind, repo: str, revision: str) -> Reply:
        found = self._found(request, kind, repo, revision)
        if isinstance(found, Reply):
            return found
        repository, commit = found
        entries = []
        for name, content in repository.commits[commit].items():
            entry = {"type": "file", "path": name, "size": len(content), "oid": _blob_id(content)}
            if repository.is_lfs(name):
                entry["lfs"] = {"size": len(content), "oid": _sha256(content), "pointerSize": 134}
            entries.append(entry)
        return Reply.json(entries)

    def _file(self, request: Request, kind: Kind, repo: str, revision: str, name: str) -> Reply:
        found = self._found(request, kind, repo, revision)
        if isinstance(found, Reply):
            return found
        repository, commit = found
        if repository.readers is not None and request.token not in repository.readers:
            return Reply.error(403 if request.token else 401, "GatedRepo", f"Access to {repo} is restricted.")
        content = repository.commits[commit].get(name)
        if content is None:
            return Reply.error(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit}
        if not repository.is_lfs(name):
            return _part(request, content, headers | {"ETag": f'"{_blob_id(content)}"'})
        linked = {"X-Linked-Etag": f'"{_sha256(content)}"', "X-Linked-Size": str(len(content))}
        # localhost and not 127.0.0.1: the content of large files is on another host, as at the hub.
        location = self.url.replace("127.0.0.1", "localhost")
        return Reply(302, headers | linked | {"Location": f"{location}/lfs/{_sha256(content)}"})

    def _auth_check(self, request: Request, kind: Kind, repo: str) -> Reply:
        repository = self._repositories.get((kind, repo))
        allowed = repository and (repository.readers is None or request.token in repository.readers)
        if repository is None or (repository.private and not allowed):
            return Reply.error(404 if request.token else 401, "RepoNotFound")
        return Reply() if allowed else Reply.error(403 if request.token else 401, "GatedRepo")

    def _lfs(self, request: Request, kind: Kind, sha256: str) -> Reply:
        for repository in self._repositories.values():
            for files in repository.commits.values():
                for content in files.values():
                    if _sha256(content) == sha256:
                        return _part(request, content, {"ETag": f'"{sha256}"'})
        return Reply(404)

    def _github_commit(self, request: Request, kind: Kind, repo: str, revision: str) -> Reply:
        found = self._found(request, kind, repo, revision)
        return found if isinstance(found, Reply) else Reply.json({"sha": found[1]})

    def _github_tree(self, request: Request, kind: Kind, repo: str, revision: str) -> Reply:
        repository, commit = self._found(request, kind, repo, revision)
        files = repository.commits[commit]
        tree = [{"path": n, "type": "blob", "sha": _blob_id(c), "size": len(c)} for n, c in files.items()]
        folders = {str(p) for name in files for p in Path(name).parents if p != Path()}
        tree += [{"path": name, "type": "tree", "sha": "0" * 40} for name in folders]
        return Reply.json({"sha": commit, "tree": tree, "truncated": False})

    def _github_file(self, request: Request, kind: Kind, repo: str, revision: str, name: str) -> Reply:
        found = self._found(request, kind, repo, revision)
        content = None if isinstance(found, Reply) else found[0].commits[found[1]].get(name)
        return Reply(404) if content is None else Reply(body=content)


_REPO = r"(?P<repo>[\w.-]+/[\w.-]+)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES: dict[str, Any] = {
    rf"/api/(?P<kind>models|datasets)/{_REPO}/revision/{_REVISION}": HubStandIn._info,
    rf"/api/(?P<kind>models|datasets)/{_REPO}/tree/{_REVISION}": HubStandIn._tree,
    rf"/api/(?P<kind>models|datasets)/{_REPO}/auth-check": HubStandIn._auth_check,
    rf"/github-api/repos/{_REPO}/commits/{_REVISION}": HubStandIn._github_commit,
    rf"/github-api/repos/{_REPO}/git/trees/{_REVISION}": HubStandIn._github_tree,
    rf"/github-raw/{_REPO}/{_REVISION}/(?P<name>.+)": HubStandIn._github_file,
    r"/lfs/(?P<sha256>\w+)": HubStandIn._lfs,
    rf"/(?:(?P<kind>datasets)/)?{_REPO}/resolve/{_REVISION}/(?P<name>.+)": HubStandIn._file,
}


def _kind(plural: str) -> Kind:
    return "dataset" if plural == "datasets" else "model"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _part(request: Request, content: bytes, headers: dict[str, str]) -> Reply:
    headers = headers | {"Accept-Ranges": "bytes"}
    if request.range is None:
        return Reply(200, headers, content)
    start, end = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range).groups()  # type: ignore[union-attr]
    last = min(int(end or len(content) - 1), len(content) - 1)
    span = f"bytes {start}-{last}/{len(content)}"
    return Reply(206, headers | {"Content-Range": span}, content[int(start) : last + 1])


def _handler(hub: HubStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            token = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
            path = self.path.partition("?")[0]
            reply = hub.reply(Request(self.command, path, self.headers["Range"], token))
            self.send_response(reply.status)
            for name, value in (reply.headers | {"Content-Length": str(len(reply.body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            cut = hub.cut(reply.body) if reply.body else None
            self.wfile.write(reply.body[:cut])
            self.close_connection = self.close_connection or cut is not None

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing: tests look at `requests`."""

    return Handler

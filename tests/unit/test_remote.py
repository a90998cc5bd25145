"""Remote sources by the real client: pinned, fetched, checked, and read again without network.

The client reads its environment when it is imported, so it runs in a process of its own for each environment.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from hub_stand_in import HubStandIn, Reply

from ftsafety import files, lock, remote
from ftsafety.config import Project
from ftsafety.errors import UserError
from ftsafety.loading import read_lock
from ftsafety.recipes import HubModel, Locked, Remote, RemoteBenchmark, RemoteDataset

Client = Callable[..., Any]
ROWS = "how do i open the blue gate ?,turn the key .\n"


def enter(env: dict[str, str]) -> None:
    os.environ.update(env)


def call(function: Callable[..., Any], args: tuple[Any, ...], cwd: Path, env: dict[str, str]) -> Any:
    """In the client's process: the result and what was said on stderr."""
    os.chdir(cwd)
    os.environ.update({"HF_TOKEN": "", "GITHUB_TOKEN": ""} | env)
    with contextlib.redirect_stderr(io.StringIO()) as said:
        return function(*args), said.getvalue()


@contextlib.contextmanager
def client_process(env: dict[str, str]) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn"), enter, (env,)) as pool:
        yield pool


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubStandIn]:
    with HubStandIn(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


def caller(pool: ProcessPoolExecutor, cwd: Path) -> Client:
    def ask(function: Callable[..., Any], *args: Any, said: bool = False, **env: str) -> Any:
        result, stderr = pool.submit(call, function, args, cwd, env).result(timeout=60)
        return (result, stderr) if said else result

    return ask


@pytest.fixture(scope="module")
def online(hub: HubStandIn) -> Iterator[ProcessPoolExecutor]:
    with client_process(hub.env) as pool:
        yield pool


@pytest.fixture(scope="module")
def unreachable(hub: HubStandIn) -> Iterator[ProcessPoolExecutor]:
    """The same cache, and nothing that listens."""
    closed = "http://127.0.0.1:9"
    nowhere = {"HF_ENDPOINT": closed, "FTSAFETY_GITHUB_API": closed, "FTSAFETY_GITHUB_RAW": closed}
    with client_process(hub.env | nowhere) as pool:
        yield pool


@pytest.fixture(scope="module")
def offline(hub: HubStandIn) -> Iterator[ProcessPoolExecutor]:
    """As on a compute node."""
    with client_process(hub.env | {"HF_HUB_OFFLINE": "1"}) as pool:
        yield pool


@pytest.fixture
def ask(online: ProcessPoolExecutor, tmp_path: Path) -> Client:
    return caller(online, tmp_path)


@pytest.fixture
def repo(request: pytest.FixtureRequest) -> str:
    """A name of its own for each test, since they share the server and the cache."""
    return "owner/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[5:80].strip("-")


def dataset(repo: str, *patterns: str, **options: Any) -> RemoteDataset:
    values: dict[str, Any] = {"source": "hub", "licence": "mit", "n": 1, "template": "plain"} | options
    return RemoteDataset(repo=repo, files=list(patterns), **values)


def benchmark(repo: str, *patterns: str) -> RemoteBenchmark:
    return RemoteBenchmark(source="hub", repo=repo, licence="mit", files=list(patterns), n=1)


def model(repo: str) -> HubModel:
    return HubModel(source="hub", repo=repo, licence="mit", size_b=0.1)


def project_of(root: Path, **catalogues: Any) -> Project:
    empty: dict[str, Any] = {field.name: {} for field in fields(Project)}
    return Project(**(empty | catalogues | {"root": root, "lock": read_lock(root)}))


def pin(ask: Client, project: Project, *names: str, update: bool = False, **env: str) -> Project:
    """The project with the lock that was written for it."""
    ask(lock.write_lock, project, names, update, **env)
    return replace(project, lock=read_lock(project.root))


# ------------------------------------------------------------------------------------------ lock


def test_a_revision_is_pinned_to_its_commit_without_a_download(
    hub: HubStandIn, ask: Client, repo: str
) -> None:
    content: dict[str, str | bytes] = {"rows.csv": ROWS, "big.parquet": b"12345", "README.md": "x"}
    commit = hub.add_commit(repo, files=content, branch="v1.0")
    hub.add_commit(repo, files={"rows.csv": "newer"}, branch="main")
    pinned = ask(
        lock.resolve, dataset(repo, "rows.csv", "*.parquet", revision="v1.0"), ["rows.csv", "*.parquet"]
    )
    sha1 = subprocess.run(["git", "hash-object", "--stdin"], input=ROWS.encode(), capture_output=True)
    assert pinned.commit == commit
    assert pinned.files == {
        "big.parquet": "sha256:5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5",
        "rows.csv": f"git:{sha1.stdout.decode().strip()}",
    }
    assert hub.count(f"{repo}/resolve") == hub.count("/lfs/") == 0


def test_a_branch_that_moves_changes_nothing_until_it_is_asked_for(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    first = hub.add_commit(repo, files={"rows.csv": ROWS})
    recipe = dataset(repo, "*.csv")
    project = pin(ask, project_of(tmp_path, datasets={"d": recipe}))
    second = hub.add_commit(repo, files={"rows.csv": "newer"})
    again = pin(ask, project)
    assert again.lock == project.lock and again.lock[recipe.lock_key].commit == first
    found = ask(remote.fetch, recipe, again.lock[recipe.lock_key], ["rows.csv"])
    assert found["rows.csv"].read_text() == ROWS
    updated = pin(ask, project, update=True)
    assert updated.lock[recipe.lock_key].commit == second


def test_of_a_model_only_safetensors_tokenizer_and_settings_are_pinned_and_fetched(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    used = {
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *("model.safetensors.index.json", "config.json", "generation_config.json", "tokenizer.json"),
        *("tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "chat_template.jinja"),
        *("vocab.json", "merges.txt", "added_tokens.json"),
    }
    unused = {
        *("consolidated.safetensors", "consolidated.00.pth", "original/tokenizer.model", "README.md"),
        *("pytorch_model.bin", "model.bin", "modeling_own.py", "tokenizer_own.py", "model/x.safetensors"),
    }
    folder = tmp_path / "model"
    for name in used | unused:
        files.write_text(folder / name, f"content of {name}")
    hub.add_commit(repo, files=folder, repo_type="model")
    recipe = model(repo)
    pinned = remote.pinned(pin(ask, project_of(tmp_path, models={"m": recipe})), recipe)
    assert set(pinned.files) == used
    ask(remote.fetch, recipe, pinned, pinned.files)
    here = ask(remote.model_folder, recipe, pinned)
    assert {path.name for path in here.rglob("*")} == used
    assert all((here / name).read_text() == f"content of {name}" for name in used)


def test_an_adapter_beside_whole_weights_is_left_there(hub: HubStandIn, ask: Client, repo: str) -> None:
    """transformers would put it on top of weights that may hold it already."""
    adapter = {"adapter_config.json": "{}", "adapter_model.safetensors": "x"}
    hub.add_commit(repo, files=adapter | {"config.json": "{}"}, repo_type="model")
    assert adapter.keys() <= ask(lock.resolve, model(repo), lock.HUB_MODEL_FILES).files.keys()
    hub.add_commit(repo, files=adapter | {"config.json": "{}", "model.safetensors": "x"}, repo_type="model")
    found = ask(lock.resolve, model(repo), lock.HUB_MODEL_FILES)
    assert found.files.keys() == {"config.json", "model.safetensors"}


def test_a_model_without_safetensors_is_refused(hub: HubStandIn, ask: Client, repo: str) -> None:
    hub.add_commit(repo, files={"pytorch_model.bin": "x", "config.json": "{}"}, repo_type="model")
    with pytest.raises(UserError, match=r"has no model\*.safetensors and no adapter"):
        ask(lock.resolve, model(repo), lock.HUB_MODEL_FILES)


def test_a_pattern_that_matches_nothing_is_named(hub: HubStandIn, ask: Client, repo: str) -> None:
    hub.add_commit(repo, files={"a.csv": ROWS})
    with pytest.raises(UserError, match=r"no file 'b/\*' at 'main'") as caught:
        ask(lock.resolve, dataset(repo, "a.csv", "b/*"), ["a.csv", "b/*"])
    assert caught.value.field == "files" and repo in caught.value.file


def test_recipes_of_one_repository_share_its_commit_and_one_question(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    hub.add_commit(repo, files={"train [1].csv": ROWS, "test.csv": ROWS, "other.csv": ROWS})
    recipes = {"d": dataset(repo, "train [[]*")}, {"b": benchmark(repo, "test.csv")}
    project = project_of(tmp_path, datasets=recipes[0], benchmarks=recipes[1])
    project = pin(ask, project, "b")
    assert hub.count(f"{repo}/revision") == 1
    assert set(project.lock[f"datasets/{repo}@main"].files) == {"test.csv", "train [1].csv"}
    pinned = remote.pinned(project, recipes[0]["d"])
    assert set(pinned.files) == {"train [1].csv"}
    assert ask(remote.fetch, recipes[0]["d"], pinned, pinned.files)["train [1].csv"].read_text() == ROWS


def test_files_that_are_asked_for_later_are_pinned_at_the_same_commit(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    hub.add_commit(repo, files={"a.csv": ROWS, "b.csv": ROWS})
    project = pin(ask, project_of(tmp_path, datasets={"d": dataset(repo, "a.csv")}))
    before = project.lock[f"datasets/{repo}@main"]
    hub.add_commit(repo, files={"a.csv": "newer", "b.csv": "newer"})
    project = pin(ask, project_of(tmp_path, datasets={"d": dataset(repo, "*.csv")}))
    after = project.lock[f"datasets/{repo}@main"]
    assert after.commit == before.commit and after.files == {"b.csv": before.files["a.csv"]} | before.files


def test_the_lock_is_read_by_the_config_and_keeps_what_no_recipe_names(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    old = Locked(commit="1" * 40, files={"x": "git:" + "0" * 40})
    lock._write(project_of(tmp_path), {"datasets/a/b@main": old})
    hub.add_commit(repo, files={"a.csv": ROWS})
    project = project_of(tmp_path, datasets={"d": dataset(repo, "a.csv")})
    _, said = ask(lock.write_lock, project, said=True)
    assert f"pinned datasets/{repo}@main at " in said
    text = (tmp_path / "config/lock.yaml").read_text()
    assert text.startswith("# Written by `make lock`")
    assert read_lock(tmp_path)["datasets/a/b@main"] == old and len(read_lock(tmp_path)) == 2


def test_what_is_pinned_is_not_asked_for_again(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    hub.add_commit(repo, files={"model.safetensors": "w"}, repo_type="model")
    hub.add_commit(repo, files={"a.csv": ROWS})
    project = project_of(tmp_path, models={"m": model(repo)}, datasets={"d": dataset(repo, "a.csv")})
    project = pin(ask, project)
    asked = len(hub.requests)
    pin(ask, project)
    assert len(project.lock) == 2 and len(hub.requests) == asked


def test_one_source_that_fails_does_not_lose_the_others(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    hub.add_commit(repo, files={"a.csv": ROWS})
    hub.add_commit(f"{repo}-private", files={"a.csv": ROWS})
    hub.gate(f"{repo}-private", "hf_reader", private=True)
    names = (f"{repo}-private", f"{repo}-typo", repo)
    project = project_of(tmp_path, datasets={str(i): dataset(name, "a.csv") for i, name in enumerate(names)})
    with pytest.raises(UserError, match="2 sources could not be pinned") as caught:
        pin(ask, project)
    for name in names[:2]:
        assert f"https://huggingface.co/datasets/{name}: is not there" in str(caught.value)
    assert str(caught.value).count("mend: correct `repo`; if it is private or gated, ask for access") == 2
    assert list(read_lock(tmp_path)) == [f"datasets/{repo}@main"]
    project = pin(ask, replace(project, lock=read_lock(tmp_path)), "0", HF_TOKEN="hf_reader")
    assert set(project.lock) == {f"datasets/{repo}@main", f"datasets/{repo}-private@main"}


def test_a_name_that_is_no_remote_source_is_refused(ask: Client, repo: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'dd' is no model, dataset or benchmark"):
        pin(ask, project_of(tmp_path, datasets={"d": dataset(repo, "a.csv")}), "dd")


# ---------------------------------------------------------------------------------------- access


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("", "is gated, and no token was given"),
        ("hf_stranger", "is gated, and the token has no access"),
        ("hf_expired", "refuses the token as not valid"),
    ],
)
def test_a_gate_names_the_page_and_never_the_token(
    hub: HubStandIn, ask: Client, repo: str, token: str, says: str
) -> None:
    hub.tokens.add("hf_stranger")
    hub.add_commit(repo, files={"a.csv": ROWS, "b.parquet": b"12345"})
    hub.gate(repo, "hf_reader")
    recipe = dataset(repo, "a.csv", "b.parquet", gated=True)
    pinned = ask(lock.resolve, recipe, recipe.files)  # the hub lists the files of a gated repository
    with pytest.raises(UserError, match=says) as caught:
        ask(remote.fetch, recipe, pinned, pinned.files, HF_TOKEN=token)
    assert caught.value.file == f"https://huggingface.co/datasets/{repo}"
    assert "HF_TOKEN or run `hf auth login`" in caught.value.mend
    assert not token or token not in str(caught.value)
    found = ask(remote.fetch, recipe, pinned, pinned.files, HF_TOKEN="hf_reader")
    assert found["a.csv"].read_text() == ROWS
    assert all(r.token is None for r in hub.requests if r.path.startswith("/lfs/"))


def test_a_revision_that_is_not_there_is_named(hub: HubStandIn, ask: Client, repo: str) -> None:
    hub.add_commit(repo, files={"a.csv": ROWS})
    recipe = dataset(repo, "a.csv", revision="v9")
    with pytest.raises(UserError, match="has no revision 'v9'\n  mend: correct `revision`"):
        ask(lock.resolve, recipe, recipe.files)
    gone = Locked(commit="9" * 40, files={"a.csv": "git:" + "0" * 40})
    with pytest.raises(UserError, match="`make lock UPDATE=1` pins it anew"):
        ask(remote.fetch, recipe, gone, ["a.csv"])


@pytest.mark.parametrize(
    ("status", "says"), [(403, "no permission, or too many"), (429, "too many"), (503, "try again later")]
)
@pytest.mark.parametrize("source", ["hub", "github"])
def test_other_refusals_say_their_status(
    hub: HubStandIn, ask: Client, repo: str, status: int, says: str, source: str
) -> None:
    hub.instead[repo] = Reply(status)
    recipe = dataset(repo, "a.csv", source=source)
    with pytest.raises(UserError, match=says) as caught:
        ask(lock.resolve, recipe, recipe.files)
    assert f"status {status}" in str(caught.value) and caught.value.file == recipe.page


def test_a_repository_that_the_hub_disabled_is_named(hub: HubStandIn, ask: Client, repo: str) -> None:
    hub.instead[repo] = Reply.error(403, message="Access to this resource is disabled.")
    with pytest.raises(UserError, match="was disabled by the hub"):
        ask(lock.resolve, dataset(repo, "a.csv"), ["a.csv"])


@pytest.mark.parametrize("source", ["hub", "github"])
def test_without_network_it_says_so(
    unreachable: ProcessPoolExecutor, tmp_path: Path, repo: str, source: str
) -> None:
    ask = caller(unreachable, tmp_path)
    recipe = dataset(repo, "a.csv", source=source)
    pinned = Locked(commit="1" * 40, files={"a.csv": "git:" + "0" * 40})
    with pytest.raises(UserError, match=r"cannot be reached \(ConnectError\)"):
        ask(lock.resolve, recipe, recipe.files)
    with pytest.raises(UserError, match=r"cannot be reached \(ConnectError\)"):
        ask(fetch_without_waiting, recipe, pinned, ["a.csv"])


def fetch_without_waiting(recipe: Remote, pinned: Locked, names: list[str]) -> dict[str, Path]:
    """The hub's client waits 23 s between its attempts."""
    import time

    before, time.sleep = time.sleep, lambda seconds: None
    try:
        return remote.fetch(recipe, pinned, names)
    finally:
        time.sleep = before


# ----------------------------------------------------------------------------------------- files


def test_a_broken_download_goes_on_where_it_broke(hub: HubStandIn, ask: Client, repo: str) -> None:
    weights = bytes(range(256)) * 4 * 12_000
    hub.add_commit(repo, files={"model.safetensors": weights}, repo_type="model")
    pinned = ask(lock.resolve, model(repo), lock.HUB_MODEL_FILES)
    hub.break_download(weights, after=11_000_000)
    asked = len(hub.requests)
    found = ask(remote.fetch, model(repo), pinned, pinned.files)
    assert found["model.safetensors"].read_bytes() == weights
    parts = [r.range for r in hub.requests[asked:] if "/lfs/" in r.path and r.method == "GET"]
    assert parts == [None, f"bytes={10 * 2**20}-"]  # the client keeps blocks of 10 MiB


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_flipped_byte_is_found_and_mended_as_the_error_says(
    hub: HubStandIn, ask: Client, repo: str, name: str
) -> None:
    hub.add_commit(repo, files={"model.safetensors": b"weights", "config.json": "{}  "}, repo_type="model")
    pinned = ask(lock.resolve, model(repo), lock.HUB_MODEL_FILES)
    path = ask(remote.fetch, model(repo), pinned, pinned.files)[name]
    right = path.read_bytes()
    path.resolve().write_bytes(bytes([right[0] ^ 1]) + right[1:])
    with pytest.raises(UserError, match=r"is not what config/lock\.yaml pins") as caught:
        ask(remote.fetch, model(repo), pinned, pinned.files)
    assert caught.value.mend.startswith("delete it and fetch again")
    Path(caught.value.file).unlink()
    assert ask(remote.fetch, model(repo), pinned, pinned.files)[name].read_bytes() == right


def test_a_checksum_that_takes_long_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"12345")
    monkeypatch.setattr(remote, "BIG", 5)
    remote._verify(path, f"sha256:{files.sha256_file(path)}")
    assert capsys.readouterr().err == "checking model.safetensors (1.0 GB)\n"


def test_what_was_fetched_is_read_without_network(
    hub: HubStandIn,
    ask: Client,
    offline: ProcessPoolExecutor,
    unreachable: ProcessPoolExecutor,
    repo: str,
    tmp_path: Path,
) -> None:
    hub.add_commit(repo, files={"model.safetensors": "w", "config.json": "{}"}, repo_type="model")
    pinned = ask(lock.resolve, model(repo), lock.HUB_MODEL_FILES)
    compute_node = caller(offline, tmp_path)
    for function, args in ((remote.local_files, [pinned.files]), (remote.model_folder, [])):
        with pytest.raises(UserError, match=r"is not here.*\n  mend: run `snakemake .*--until prefetch`"):
            compute_node(function, model(repo), pinned, *args)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE forbids"):
        compute_node(remote.fetch, model(repo), pinned, pinned.files)
    found = ask(remote.fetch, model(repo), pinned, pinned.files)
    asked = len(hub.requests)
    assert compute_node(remote.local_files, model(repo), pinned, pinned.files) == found
    assert compute_node(remote.model_folder, model(repo), pinned) == found["config.json"].parent
    for pool in (offline, unreachable):
        assert caller(pool, tmp_path)(remote.fetch, model(repo), pinned, pinned.files) == found
    ask(remote.fetch, model(repo), pinned, pinned.files)
    assert len(hub.requests) == asked


def test_looking_for_local_files_does_not_load_the_client(hub: HubStandIn) -> None:
    code = """
import sys
from ftsafety.remote import model_folder
from ftsafety.recipes import HubModel, Locked
from ftsafety.errors import UserError
try:
    model_folder(HubModel(source="hub", repo="a/b", licence="x", size_b=1.0),
                 Locked(commit="1" * 40, files={"config.json": "git:0"}))
except UserError:
    heavy = ("httpx2", "huggingface_hub.hf_api", "transformers", "torch")
    sys.exit(sum(name in sys.modules for name in heavy))
sys.exit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | hub.env).returncode == 0


# ---------------------------------------------------------------------------------------- GitHub


def test_a_github_repository_is_pinned_and_fetched(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    content = {"data/a b.csv": ROWS, "data/deep/c.csv": ROWS, "code.py": "x"}
    commit = hub.add_commit(repo, files=content, repo_type="github", branch="feature/x")
    recipe = dataset(repo, "data/*.csv", source="github", revision="feature/x")
    project = pin(ask, project_of(tmp_path, datasets={"d": recipe}))
    pinned = remote.pinned(project, recipe)
    assert pinned.commit == commit and set(pinned.files) == {"data/a b.csv", "data/deep/c.csv"}
    with pytest.raises(UserError, match="is not here"):
        ask(remote.local_files, recipe, pinned, pinned.files)
    hub.add_commit(repo, files={"data/a b.csv": "newer"}, repo_type="github", branch="feature/x")
    found = ask(remote.fetch, recipe, pinned, pinned.files)
    folder = Path("results/github") / repo.replace("/", "--") / commit
    assert found == {name: folder / name for name in pinned.files}
    assert all((tmp_path / path).read_text() == ROWS for path in found.values())
    assert {p.name for p in (tmp_path / folder).rglob("*")} == {"data", "deep", "a b.csv", "c.csv"}
    asked = len(hub.requests)
    assert ask(remote.local_files, recipe, pinned, pinned.files) == found
    ask(remote.fetch, recipe, pinned, pinned.files)
    assert len(hub.requests) == asked


def test_a_github_file_that_changed_on_disk_is_found(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    hub.add_commit(repo, files={"a.csv": ROWS}, repo_type="github")
    recipe = dataset(repo, "a.csv", source="github")
    pinned = ask(lock.resolve, recipe, recipe.files)
    path = tmp_path / ask(remote.fetch, recipe, pinned, pinned.files)["a.csv"]
    path.write_text("edited")
    with pytest.raises(UserError, match=r"is not what config/lock\.yaml pins") as caught:
        ask(remote.fetch, recipe, pinned, pinned.files)
    assert caught.value.file == str(path)


def test_github_errors_name_the_page_and_the_token_is_used(hub: HubStandIn, ask: Client, repo: str) -> None:
    recipe = dataset(repo, "a.csv", source="github", revision="v9")
    with pytest.raises(UserError, match=r"is not there at revision 'v9'.*\n.*set GITHUB_TOKEN") as caught:
        ask(lock.resolve, recipe, recipe.files)
    assert caught.value.file == f"https://github.com/{repo}"
    hub.add_commit(repo, files={"a.csv": ROWS}, repo_type="github")
    with pytest.raises(UserError, match="has no revision 'v9'"):
        ask(lock.resolve, recipe, recipe.files)
    hub.tokens.add("gh_reader")
    asked = len(hub.requests)
    ask(lock.resolve, dataset(repo, "a.csv", source="github"), recipe.files, GITHUB_TOKEN="gh_reader")
    assert {request.token for request in hub.requests[asked:]} == {"gh_reader"}
    with pytest.raises(UserError, match="refuses the token") as caught:
        ask(lock.resolve, recipe, recipe.files, GITHUB_TOKEN="gh_expired")
    assert "gh_expired" not in str(caught.value)


def test_a_listing_that_github_cuts_off_is_refused(hub: HubStandIn, ask: Client, repo: str) -> None:
    hub.add_commit(repo, files={"a.csv": ROWS}, repo_type="github")
    hub.instead[f"{repo}/git/trees"] = Reply.json({"sha": "1" * 40, "tree": [], "truncated": True})
    with pytest.raises(UserError, match="has more files than GitHub lists at once"):
        ask(lock.resolve, dataset(repo, "a.csv", source="github"), ["a.csv"])


# -------------------------------------------------------------------------------------- prefetch


def test_prefetch_writes_a_manifest_of_what_is_here(
    hub: HubStandIn, ask: Client, repo: str, tmp_path: Path
) -> None:
    commit = hub.add_commit(repo, files={"a.csv": ROWS, "b.csv": "x"})
    project = pin(ask, project_of(tmp_path, benchmarks={"b": benchmark(repo, "a.csv")}))
    manifest = tmp_path / "results/fetched/b.json"
    ask(remote.prefetch, project, project.benchmarks["b"], manifest)
    checksum = project.lock[f"datasets/{repo}@main"].files["a.csv"]
    assert files.read_json(manifest) == {
        "source": "hub",
        "repo": repo,
        "page": f"https://huggingface.co/datasets/{repo}",
        "licence": "mit",
        "revision": "main",
        "commit": commit,
        "files": {"a.csv": {"checksum": checksum, "bytes": len(ROWS)}},
    }


def test_what_is_not_pinned_is_not_fetched(tmp_path: Path, repo: str) -> None:
    recipe = dataset(repo, "a.csv", "b/*.csv")
    project = project_of(tmp_path, datasets={"d": recipe})
    for pinned, says in ({}, "is not pinned"), ({"a.csv": "git:0"}, r"has no file 'b/\*.csv'"):
        entries = {recipe.lock_key: Locked(commit="1" * 40, files=pinned)} if pinned else {}
        with pytest.raises(
            UserError, match=f"config/lock.yaml: {recipe.lock_key}: {says}\n  mend: run `make lock "
        ):
            remote.prefetch(replace(project, lock=entries), recipe, tmp_path / "manifest.json")
    assert not (tmp_path / "manifest.json").exists()

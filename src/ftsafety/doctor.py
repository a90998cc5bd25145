"""`make doctor`: what would stop a study on this machine, each with its mend, before anything is submitted.

Nothing is changed but that results/ is there, and nothing is paid: endpoints and the hub are asked for lists
that are free.
"""

import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from ftsafety import paths
from ftsafety.api.keys import api_key
from ftsafety.api.store import journal_mode
from ftsafety.costs import disk_space, n_prompts, size
from ftsafety.errors import UserError
from ftsafety.files import PRIVATE_FILE
from ftsafety.inputs import check_inputs, open_places
from ftsafety.loading import read_yaml
from ftsafety.plan import Plan
from ftsafety.ready import missing
from ftsafety.recipes import Endpoint, LocalModel, Remote
from ftsafety.states import run_states

SLURM_PROFILE = Path("profiles/slurm/config.yaml")
FIRST_LOOK = "slurm-init-seconds-before-status-checks"
#: Seconds that clocks may be apart: file times decide what is made again, and endpoints refuse old requests.
FILE_CLOCK_S, CLOCK_S = 2, 60
#: MB that a study of the embedded world leaves, and that Snakemake and a temporary folder need.
LEAST_FREE_MB = 2000
LEAST_FREE_FILES = 10_000
NETWORK_S = 10


@dataclass(frozen=True)
class Line:
    """One thing that was looked at. `note`: it may be meant so; `FAIL`: something will not work."""

    state: Literal["ok", "note", "FAIL"]
    what: str
    found: str
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.state:<5} {self.what:<10} {self.found}"
        return f"{text}\n{'':<17}mend: {self.mend}" if self.mend else text


def diagnose(plan: Plan, studies: list[str]) -> Iterator[Line]:
    """Lines in the order in which things are needed."""
    os.environ["HF_HUB_OFFLINE"] = "0"  # jobs are offline, downloads are not; read at the import
    yield python()
    yield packages(plan.project.root)
    yield compiler(plan, studies)
    yield from slurm(plan.project.root)
    yield gpus(plan, studies)
    yield from folder(plan, studies)
    yield from hub(plan, studies)
    yield from endpoints(plan, studies)
    yield from inputs(plan, studies)


# ------------------------------------------------------------------------------- python and packages


def python() -> Line:
    wanted, found = metadata("ftsafety")["Requires-Python"], platform.python_version()
    if found in SpecifierSet(wanted):
        return Line("ok", "python", f"{found}, {sys.prefix}")
    return Line("FAIL", "python", f"{found} is not {wanted}", "make .venv/installed PYTHON=python3.12")


def packages(root: Path) -> Line:
    """What the package requires is here, in the versions of constraints.txt."""
    file = root / "constraints.txt"
    lines = file.read_text().split() if file.exists() else []
    pins = (line.split("==") for line in lines if "==" in line)
    pinned = {canonicalize_name(name): pin for name, pin in pins}
    needed = [Requirement(text) for text in requires("ftsafety") or []]
    names = [
        canonicalize_name(r.name) for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})
    ]
    absent, other = [], []
    for name in names:
        try:
            found = version(name)
        except PackageNotFoundError:
            absent.append(name)
            continue
        if name in pinned and Version(found).public != Version(pinned[name]).public:
            other.append(f"{name} {found} (not {pinned[name]})")
    mend = "rm -rf .venv, then: make .venv/installed"
    if absent:
        return Line("FAIL", "packages", f"{', '.join(absent)} missing", mend)
    if other:
        return Line("note", "packages", f"{', '.join(other)}: results may round differently", mend)
    return Line("ok", "packages", f"{len(names)}, in the versions of constraints.txt")


def compiler(plan: Plan, studies: list[str]) -> Line:
    """DeepSpeed builds its communication layer for processors, and some optimizers, with one."""
    extensions = Path(os.environ.get("TORCH_EXTENSIONS_DIR", "~/.cache/torch_extensions")).expanduser()
    zero = [name for name, recipe in _local_models(plan, studies) if recipe.hardware.zero_stage is not None]
    state: Literal["note", "FAIL"] = "FAIL" if zero else "note"
    with suppress(FileNotFoundError):  # a build that ends meanwhile
        if locks := [lock for lock in extensions.rglob("lock") if time.time() - lock.stat().st_mtime > 600]:
            found = f"DeepSpeed waits for a build that was cut off: {locks[0]}"
            return Line(state, "compiler", found, f"rm {locks[0]}")
    if shutil.which("g++"):
        return Line("ok", "compiler", f"g++ {_run('g++', '-dumpfullversion').strip()}")
    needs = f"{', '.join(zero)} train under ZeRO" if zero else "only models with a zero_stage need one"
    return Line(state, "compiler", f"no g++: {needs}", "load your site's compiler module, or install g++")


# ------------------------------------------------------------------------------------------- machine


def slurm(root: Path) -> Iterator[Line]:
    """The queue, and the settings of it and of the profile that are known to break together."""
    if not shutil.which("sbatch"):
        yield Line("note", "Slurm", "none here: profiles/local runs all on this machine")
        return
    ping = _run("scontrol", "ping")
    if "configuration source" in ping:
        yield Line("note", "Slurm", "installed, and not set up: profiles/local runs all on this machine")
        return
    if " UP" not in ping:
        yield Line(
            "FAIL",
            "Slurm",
            f"its controller does not answer: {' '.join(ping.split()) or 'no reply'}",
            "call `scontrol ping`; ask your site",
        )
        return
    settings = dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", _run("scontrol", "show", "config"), re.MULTILINE))
    yield Line("ok", "Slurm", f"{settings.get('SLURM_VERSION', '?')}, {settings.get('ClusterName', '?')}")
    try:
        profile, asked = _profile(root)
    except UserError as error:
        yield Line("FAIL", "Slurm", f"{error.file}: {error.message}", error.mend)
        return
    for name in sorted(name for name in profile if str(name).startswith("slurm_")):
        found = f"{name} is a resource, and not heeded beside default-resources in {SLURM_PROFILE}"
        yield Line("FAIL", "Slurm", found, "indent it below default-resources")
    yield from _known_to_break(profile, asked, settings)
    partitions = {name.rstrip("*") for name in _run("sinfo", "-a", "-h", "-o", "%P").split()}
    unknown = set(str(asked.get("slurm_partition") or "").split(",")) - partitions - {""}
    if partitions and unknown:
        yield Line(
            "FAIL",
            "Slurm",
            f"there is no partition {min(unknown)!r}",
            f"name one of {', '.join(sorted(partitions))} in {SLURM_PROFILE}: default-resources",
        )


def _profile(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The profile and its default resources. Raises UserError where it is none."""
    profile = read_yaml(root, str(SLURM_PROFILE)) or {}
    resources = profile.get("default-resources") or {} if isinstance(profile, dict) else None
    if isinstance(resources, list) and all("=" in str(entry) for entry in resources):  # as in a call
        resources = dict(str(entry).split("=", 1) for entry in resources)
    first_look = profile.get(FIRST_LOOK, 40) if isinstance(profile, dict) else None
    if not isinstance(resources, dict) or not isinstance(first_look, int):
        raise UserError(
            f"default-resources is no mapping, or {FIRST_LOOK} no number of seconds",
            file=SLURM_PROFILE,
            mend="restore it from git, and fill in account and partition",
        )
    return profile, resources


def _known_to_break(
    profile: dict[str, Any], asked: dict[str, Any], settings: dict[str, str]
) -> Iterator[Line]:
    by = profile.get("slurm-status-command", "sacct")
    accounts = settings.get("AccountingStorageType", "")
    if by == "sacct":
        if accounts in ("(null)", "accounting_storage/none", ""):
            found = "sacct answers nothing here: there is no accounting database"
        else:
            found = "asking sacct hangs once a job is cancelled"
        mend = f"slurm-status-command: squeue in {SLURM_PROFILE}"
        yield Line("FAIL", "Slurm", found, mend)
    seconds = re.match(r"\d+", settings.get("MinJobAge", ""))
    first_look = profile.get(FIRST_LOOK, 40)
    if seconds and by == "squeue":
        age = int(seconds[0])
        if age < 3 * first_look:
            yield Line(
                "FAIL",
                "Slurm",
                f"MinJobAge is {age} s: a job may be forgotten when it is looked for, after {first_look} s",
                f"{FIRST_LOOK}: {age // 3} in {SLURM_PROFILE}"
                if age >= 6
                else "ask your site for a MinJobAge of 60 s or more",
            )
        else:
            yield Line("ok", "Slurm", f"MinJobAge {age} s, first look at a job after {first_look} s")
    if "tasks" in asked:
        yield Line(
            "FAIL",
            "Slurm",
            "tasks in default-resources becomes tasks per GPU, and jobs wait for ever",
            f"remove it from {SLURM_PROFILE}",
        )


def gpus(plan: Plan, studies: list[str]) -> Line:
    wanting = sorted(name for name, recipe in _local_models(plan, studies) if recipe.hardware.gpus)
    listed = _run("nvidia-smi", "-L").splitlines() if shutil.which("nvidia-smi") else []
    here = [line.partition(": ")[2].partition(" (")[0] for line in listed if line.startswith("GPU ")]
    if not here:
        if not wanting:
            return Line("ok", "GPUs", "none here, and none needed")
        return Line("note", "GPUs", f"none here: {', '.join(wanting)} need those of the cluster's nodes")
    import torch

    if torch.cuda.is_available():
        return Line("ok", "GPUs", f"{torch.cuda.device_count()}: {here[0]}, CUDA {torch.version.cuda}")
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "processors alone"
    return Line(
        "FAIL",
        "GPUs",
        f"{len(here)} ({here[0]}), but torch {torch.__version__} cannot use them: it is built for {built}",
        "install the torch that fits your driver into .venv: https://pytorch.org/get-started",
    )


def folder(plan: Plan, studies: list[str]) -> Iterator[Line]:
    """The disk under results/: room, modes, locks, its clock."""
    try:
        paths.RESULTS.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=paths.RESULTS).close()
    except OSError as error:
        found = f"{paths.RESULTS.absolute()} cannot be written ({error.strerror})"
        yield Line(
            "FAIL", "disk", found, "put the repository where you may write, or mend its owner and modes"
        )
        return
    yield from room(plan, studies)
    with tempfile.NamedTemporaryFile(dir=paths.RESULTS, prefix=".doctor-") as file:
        os.fchmod(file.fileno(), PRIVATE_FILE)
        about_file = os.stat(file.name)
        if about_file.st_mode & 0o077:
            yield Line(
                "FAIL",
                "disk",
                "this file system keeps no modes: others could read answers of compromised models",
                "put the repository on another file system",
            )
        apart = about_file.st_mtime - time.time()
        if abs(apart) > FILE_CLOCK_S:
            yield Line(
                "FAIL",
                "clock",
                f"files get times {apart:+.0f} s from this machine's: finished work would be done again",
                "ask your site to set the clocks of file server and nodes (NTP)",
            )
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            yield Line(
                "FAIL",
                "disk",
                f"this file system has no locks ({error.strerror}): replies of endpoints could be lost",
                "put the repository on another file system",
            )
    mounts = Path("/proc/mounts")
    if mounts.exists() and journal_mode(paths.RESULTS, mounts.read_text()) == "DELETE":
        yield Line("ok", "disk", "on a network: replies are stored without a write-ahead log")


# ------------------------------------------------------------------------------------------- network


def room(plan: Plan, studies: list[str]) -> Iterator[Line]:
    """Whether the largest study fits: one training at a time, and its models in the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    results, cache = paths.RESULTS.resolve(), Path(HF_HUB_CACHE)
    while not cache.exists():
        cache = cache.parent
    if cache.stat().st_dev == results.stat().st_dev:
        cache = results
    takes: dict[Path, dict[str, float]] = {results: {}, cache: {}}  # folder → study → MB
    for study in map(plan.studies.__getitem__, studies):
        with suppress(UserError):  # a benchmark that cannot be read: `inputs` says so
            prompts = {benchmark: n_prompts(plan, benchmark) for benchmark in study.benchmarks}
            space = disk_space(plan, study, list(run_states(plan, study)), prompts)
            takes[cache][study.name] = space.downloads
            takes[results][study.name] = takes[results].get(study.name, 0) + space.stays + space.passing
    clean = "make unused-runs lists what no study uses; make clean-study STUDY=… removes a study"
    for folder, of_studies in takes.items():
        free = shutil.disk_usage(folder).free / 1e6
        largest = max(of_studies, key=of_studies.__getitem__, default="")
        most = of_studies.get(largest, 0)
        found = f"{size(free)} free under {folder}" + (f", {largest} takes {size(most)}" if most else "")
        if free < max(most, LEAST_FREE_MB if folder == results else 0):
            mend = clean if folder == results else "set HF_HOME to a folder with room"
            yield Line("FAIL", "disk", f"only {found}", mend)
        elif folder == results or most:
            yield Line("ok", "disk", found)
    files = os.statvfs(results)
    if files.f_files and files.f_favail < LEAST_FREE_FILES:
        yield Line("FAIL", "disk", f"only {files.f_favail} files more", clean)


def hub(plan: Plan, studies: list[str]) -> Iterator[Line]:
    """Whether each repository of these studies that is not here yet can be read."""
    remote = {
        recipe.repo: recipe
        for catalogue, names in plan.entries(studies).items()
        for name in names
        if isinstance(recipe := getattr(plan.project, catalogue)[name], Remote)
        and recipe.source == "hub"
        and not plan.fetched_file(catalogue, name).exists()
    }
    if not remote:
        yield Line("ok", "hub", "nothing is left to download from it")
        return
    from huggingface_hub import HfApi

    from ftsafety.remote import access_errors

    refused: dict[tuple[str, str], list[str]] = {}  # (message, mend) → repositories
    for repo, recipe in sorted(remote.items()):
        try:
            with access_errors(recipe, recipe.revision):
                HfApi().auth_check(repo, repo_type=recipe.repo_type)
        except UserError as error:
            refused.setdefault((error.message, error.mend), []).append(repo)
    for (message, mend), repos in refused.items():
        yield Line("FAIL", "hub", f"{', '.join(repos)}: {message}", mend)
    if n := len(remote) - sum(map(len, refused.values())):
        yield Line("ok", "hub", f"{n} of {len(remote)} repositories can be read")


def endpoints(plan: Plan, studies: list[str]) -> Iterator[Line]:
    """Whether each endpoint of these studies answers, takes the key, and has the same time."""
    project = plan.project
    recipes = [
        *(project.models[name] for name in plan.entries(studies)["models"]),
        *(project.judges[name] for study in studies for name in plan.studies[study].judges),
    ]
    names = {name for recipe in recipes if (name := getattr(recipe, "endpoint", None))}
    for name in sorted(names):
        endpoint = project.endpoints[name]
        if endpoint.is_embedded or (endpoint.api_key_env and not os.environ.get(endpoint.api_key_env)):
            continue  # a key that is not set is among `inputs`
        try:
            yield from _ask(name, endpoint, api_key(name, endpoint))
        except UserError as error:
            yield Line("FAIL", "endpoint", f"{name}: {error.message}", error.mend)


def _ask(name: str, endpoint: Endpoint, key: str) -> Iterator[Line]:
    """Errors of the client are not shown: they may quote the key."""
    import openai

    from ftsafety.api.job import http_client
    from ftsafety.api.requests import json_object

    client = openai.OpenAI(
        base_url=endpoint.base_url,
        api_key=key,
        max_retries=0,
        timeout=NETWORK_S,
        http_client=http_client(endpoint),
    )
    try:
        reply = client.models.with_raw_response.list()
        date = reply.headers.get("date")
        if json_object(reply.content) is None:
            mend = f"check base_url of {name} in config/endpoints.yaml: it often ends in /v1"
            yield Line("FAIL", "endpoint", f"{name}: answers, but by a page and not as this API does", mend)
        else:
            takes = " and takes the key" if endpoint.api_key_env else ""
            yield Line("ok", "endpoint", f"{name}: answers{takes}")
    except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
        date = error.response.headers.get("date")
        mend = f"export {endpoint.api_key_env}=… with a key of this endpoint"
        yield Line("FAIL", "endpoint", f"{name}: refuses the key (status {error.status_code})", mend)
    except openai.APIStatusError as error:
        date = error.response.headers.get("date")
        found = f"{name}: answers, but does not list its models (status {error.status_code})"
        yield Line("note", "endpoint", found)
    except openai.APIConnectionError:
        mend = f"check base_url of {name} in config/endpoints.yaml, and the network (HTTPS_PROXY)"
        yield Line("FAIL", "endpoint", f"{name}: cannot be reached from here", mend)
        return
    apart = 0.0
    with suppress(ValueError):  # a date that is none
        apart = time.time() - parsedate_to_datetime(date).timestamp() if date else 0.0
    if abs(apart) > CLOCK_S:
        found = f"{apart:+.0f} s from that of {name}: what has a time limit there ends too early or late"
        yield Line("FAIL", "clock", found, "set the clock (timedatectl set-ntp true)")


# ------------------------------------------------------------------------------------------- studies


def inputs(plan: Plan, studies: list[str]) -> Iterator[Line]:
    """What the studies need of the user: files, pins, permissions, keys, prices."""
    errors = []
    try:
        check_inputs(plan, studies, planning=True)
    except UserError as error:
        errors.append(error)
    for study in studies:
        errors += open_places(plan, study)
    errors += missing(plan, studies)
    for found in errors:
        place = ": ".join(part for part in (found.file, found.field) if part)
        yield Line("FAIL", "study", f"{place}: {found.message}" if place else found.message, found.mend)
    if not errors:
        yield Line("ok", "study", f"{', '.join(studies)}: nothing is missing")


def _local_models(plan: Plan, studies: list[str]) -> list[tuple[str, LocalModel]]:
    models = plan.project.models
    names = sorted(plan.entries(studies)["models"])
    return [(name, model) for name in names if isinstance(model := models[name], LocalModel)]


def _run(*command: str) -> str:
    """What a program prints, errors included; nothing where it does not end in time."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NETWORK_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr

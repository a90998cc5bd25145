"""SIGKILL at writes: a stage of the workflow is killed at one change of a file after another, and run again.

    LD_PRELOAD=killer.so python killing.py STAGE PACK POINTS     # in a folder with config/ and results/

Each point starts from what was there before. A child of this process runs the stage and is killed at that
change (killer.c), another runs it to its end. Prints a line of JSON for each point, the first (0) for the
undisturbed run: `of` is the number of changes that it made, `files` the digest of what it left. Of a judge
behind an endpoint also `asked`, the calls that reached it, and the `replies` stored for so many `keys`.
"""

import ctypes
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

sys.path.append(str(Path(__file__).parents[1]))
from api_stand_in import ApiStandIn
from judge_cases import SCORED

from ftsafety import paths
from ftsafety.answers import answer_pack
from ftsafety.files import checksum
from ftsafety.judging.pack import judge_pack
from ftsafety.libraries import import_libraries
from ftsafety.plan import Pack, Plan, load_plan
from ftsafety.training.pack import train_pack

STAGES: dict[str, Callable[[Plan, Pack], None]] = {
    "train": train_pack,
    "generate": answer_pack,
    "judge": judge_pack,
    "judge_by_api": lambda plan, pack: judge_pack(plan, pack, "llm"),
}
KILLER = ctypes.CDLL(None)


def main(stage: str, pack_id: str, n_points: int) -> None:
    import_libraries()
    with ApiStandIn(respond=lambda body: SCORED) as server:
        endpoints = Path("config/endpoints.yaml")
        content = yaml.safe_load(endpoints.read_text())
        content["there"]["base_url"] = server.url
        endpoints.write_text(yaml.safe_dump(content))
        plan = load_plan(Path())
        pack = plan.packs[pack_id]
        before = Path("before")
        shutil.copytree(paths.RESULTS, before)

        def again(point: int) -> dict[str, object]:
            shutil.rmtree(paths.RESULTS)
            shutil.copytree(before, paths.RESULTS)
            server.requests.clear()
            changes = run(stage, plan, pack, point)
            if point:
                run(stage, plan, pack, 0)
            told = {"point": point, "of": changes, "files": files(stage)}
            return told | ({"asked": len(server.requests), **stored()} if stage == "judge_by_api" else {})

        first = again(0)
        print(json.dumps(first), flush=True)
        n = int(str(first["of"]))
        for point in sorted(random.Random(0).sample(range(1, n + 1), min(n, n_points))):
            print(json.dumps(again(point)), flush=True)


def run(stage: str, plan: Plan, pack: Pack, point: int) -> int:
    """In a child that is killed at that change, or not if it is 0; how many changes it made.

    Raises RuntimeError where it ends otherwise.
    """
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            sys.stderr = open(os.devnull, "w")  # noqa: SIM115
            KILLER.killer_arm(ctypes.c_long(point))
            STAGES[stage](plan, pack)
            os.write(write, str(KILLER.killer_count()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
            os._exit(1)
        os._exit(0)
    os.close(write)
    status = os.waitpid(child, 0)[1]
    said = os.read(read, 10_000).decode()
    os.close(read)
    expected = signal.SIGKILL if point else 0
    if status != expected:
        raise RuntimeError(f"change {point}: status {status} and not {expected}: {said}")
    return int(said or point)


def files(stage: str) -> str:
    """Of training weights and records, else everything that is no log, no store and no leftover."""
    sums: dict[str, Any]
    if stage == "train":
        sums = {str(path): checksum(path) for path in sorted(paths.RUNS.rglob("weights"))}
        for name in ("run.yaml", "done.json", "trained.json"):
            records = {
                str(path): yaml.safe_load(path.read_text()) for path in sorted(paths.RESULTS.rglob(name))
            }
            assert records, name
            sums |= records
        for record in (sums[path] for path in sums if path.endswith("done.json")):
            for key in ("train_seconds", "git_revision"):  # of the machine, and of whoever commits meanwhile
                del record[key]
    else:
        found = (
            path for folder in (paths.RUNS, paths.RESULTS / "packs") for path in sorted(folder.rglob("*"))
        )
        sums = {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in found
            if path.is_file() and not path.name.startswith(".")
        }
    assert sums
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()


def stored() -> dict[str, int]:
    """Replies in the store, and for how many requests."""
    with closing(sqlite3.connect(paths.REPLIES)) as db:
        n, n_keys = db.execute("SELECT count(*), count(DISTINCT key) FROM replies").fetchone()
    return {"replies": n, "keys": n_keys}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

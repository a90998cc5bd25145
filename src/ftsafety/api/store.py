"""The file of replies: whatever was paid for is written before it is used, and is asked for once.

Rows are only ever added, so that the sum of what was spent stays right when a damaged reply is asked for
again. One process writes at a time; anyone may read meanwhile.
"""

import fcntl
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ftsafety.api.requests import Reply, Request, json_object, parse
from ftsafety.errors import UserError
from ftsafety.files import PRIVATE_FILE, private_dir

#: SQLite's write-ahead log needs memory that all its processes share: one host, a local file system.
NETWORK_FILE_SYSTEMS = {
    *("nfs", "nfs3", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs"),
    *("panfs", "wekafs", "pvfs2", "orangefs", "afs", "9p", "dvs", "virtiofs"),
}
SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    raw BLOB NOT NULL, sha256 TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
    estimated INTEGER NOT NULL, usd REAL, time TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS replies_by_key ON replies (key);
CREATE TABLE IF NOT EXISTS batches (
    intent TEXT PRIMARY KEY, endpoint TEXT NOT NULL, model TEXT NOT NULL, keys TEXT NOT NULL,
    round INTEGER NOT NULL, usd REAL NOT NULL, batch_id TEXT, ended TEXT, time TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fine_tunings (
    intent TEXT PRIMARY KEY, run TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL,
    estimated_usd REAL, file_id TEXT, job_id TEXT, ended TEXT, reason TEXT, fine_tuned_model TEXT,
    trained_tokens INTEGER, usd REAL, details TEXT, time TEXT NOT NULL);
"""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class Spending:
    """Calls of a model at an endpoint. `usd` leaves out `unpriced` calls (None: all are); `estimated` calls
    have token counts that were reckoned from characters, since the endpoint gave none."""

    endpoint: str
    model: str
    calls: int
    estimated: int
    unpriced: int
    input_tokens: int
    output_tokens: int
    usd: float | None


@dataclass(frozen=True)
class Batch:
    """A batch that was meant to be made. `id` is None until the endpoint has said it; `time` is ISO 8601."""

    intent: str
    model: str
    keys: frozenset[str]
    round: int
    usd: float
    id: str | None
    time: str = field(default_factory=_now)


@dataclass(frozen=True)
class FineTuning:
    """A fine-tuning job that was meant to be made for a run; ids are None until the endpoint has said them.

    `ended` is None while it may go on, then what a run is: `ok`, `blocked` or `failed`; or the job was
    `not made`. `usd` is None where the price is unknown; `details` is JSON, what else the endpoint said.
    """

    intent: str
    run: str
    endpoint: str
    model: str
    estimated_usd: float | None
    file_id: str | None = None
    job_id: str | None = None
    ended: str | None = None
    reason: str | None = None
    fine_tuned_model: str | None = None
    trained_tokens: int | None = None
    usd: float | None = None
    details: str | None = None


def journal_mode(path: Path, mounts: str) -> str:
    """`WAL`, or `DELETE` where the file lies on a network file system; `mounts` is /proc/mounts' text."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, point, found, *_ = line.split(" ")
        folder = Path(point.replace(r"\040", " "))
        if path.resolve().is_relative_to(folder) and len(folder.parts) >= best:
            best, kind = len(folder.parts), found
    return "DELETE" if kind in NETWORK_FILE_SYSTEMS or kind.startswith("fuse") else "WAL"


class Store:
    """Replies by key in the SQLite file `path` (mode 0600, in a folder of mode 0700).

    Raises UserError where the file cannot be read or written.
    """

    def __init__(self, path: Path, *, wait_s: float = 600) -> None:
        self.path, self.wait_s = path, wait_s
        mounts = Path("/proc/mounts")
        mode = journal_mode(path, mounts.read_text() if mounts.exists() else "")
        with self._readable():
            private_dir(path.parent)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE_FILE))  # SQLite's side files get this mode
            path.chmod(PRIVATE_FILE)
            self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._db.execute(f"PRAGMA journal_mode={mode}")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(SCHEMA)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def replies(self, wanted: Mapping[str, Request]) -> tuple[dict[str, Reply], int]:
        """Stored replies by key, and how many requests have only damaged ones."""
        found: dict[str, Reply] = {}
        damaged = 0
        for key, request in wanted.items():
            # SQLite takes an index at its word: a damaged one names the row of another key.
            rows = self._rows(
                "SELECT t.key, CAST(t.raw AS BLOB), t.sha256 FROM replies i JOIN replies t ON t.id = i.id"
                " WHERE i.key = ? ORDER BY i.id DESC",
                key,
            )
            whole = [json_object(raw) for of, raw, sha256 in rows if of == key and _sha256(raw) == sha256]
            outcomes = [parse(raw, request) for raw in whole if raw is not None]
            reply = next((outcome for outcome in outcomes if isinstance(outcome, Reply)), None)
            if reply is not None:
                found[key] = reply
            elif len(outcomes) < len(rows):
                damaged += 1
        return found, damaged

    def add(
        self,
        key: str,
        endpoint: str,
        model: str,
        raw: bytes,
        *,
        tokens: tuple[int, int],
        estimated: bool,
        usd: float | None,
    ) -> None:
        """Write down what an endpoint sent; it is on the disk when this returns."""
        self._rows(
            "INSERT INTO replies (key, endpoint, model, raw, sha256, input_tokens, output_tokens, estimated,"
            " usd, time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            *(key, endpoint, model, raw, _sha256(raw), *tokens, estimated, usd, _now()),
        )

    def spending(self) -> list[Spending]:
        """What was spent, by endpoint and model."""
        return [
            Spending(*row)
            for row in self._rows(
                "SELECT endpoint, model, COUNT(*), SUM(estimated), SUM(usd IS NULL), SUM(input_tokens),"
                " SUM(output_tokens), SUM(usd) FROM replies GROUP BY endpoint, model UNION ALL "
                "SELECT endpoint, model || ' (fine-tuning)', COUNT(*), 0, SUM(usd IS NULL),"
                " SUM(trained_tokens), 0, SUM(usd) FROM fine_tunings WHERE trained_tokens IS NOT NULL"
                " GROUP BY endpoint, model ORDER BY 1, 2"
            )
        ]

    def recent(self, endpoint: str, seconds: float) -> list[tuple[float, int]]:
        """(seconds ago, tokens) of an endpoint's replies in the last `seconds`, the oldest first."""
        now = datetime.now(UTC)
        since = (now - timedelta(seconds=seconds)).isoformat(timespec="seconds")
        rows = self._rows(
            "SELECT time, input_tokens + output_tokens FROM replies"
            " WHERE endpoint = ? AND time >= ? ORDER BY id",
            *(endpoint, since),
        )
        ages = [((now - datetime.fromisoformat(when)).total_seconds(), tokens) for when, tokens in rows]
        return [(age, tokens) for age, tokens in ages if 0 <= age < seconds]

    def spent(self) -> float:
        """US dollars of all that was answered or trained."""
        return self._total("SELECT TOTAL(usd) FROM replies") + self._total(
            "SELECT TOTAL(usd) FROM fine_tunings"
        )

    def promised(self) -> float:
        """US dollars that batches and trainings which have not ended may cost."""
        return self._total("SELECT TOTAL(usd) FROM batches WHERE ended IS NULL") + self._total(
            "SELECT TOTAL(estimated_usd) FROM fine_tunings WHERE ended IS NULL"
        )

    def _total(self, sql: str) -> float:
        return float(self._rows(sql)[0][0])

    # ---------------------------------------------------------------------------------- batches

    def open_batches(self, endpoint: str) -> list[Batch]:
        """Batches that were begun and have not been collected."""
        rows = self._rows(
            "SELECT intent, model, keys, round, usd, batch_id, time FROM batches"
            " WHERE endpoint = ? AND ended IS NULL ORDER BY time, intent",
            endpoint,
        )
        return [
            Batch(intent, model, frozenset(json.loads(keys)), *others)
            for intent, model, keys, *others in rows
        ]

    def begin_batch(self, batch: Batch, endpoint: str) -> None:
        self._rows(
            "INSERT INTO batches (intent, endpoint, model, keys, round, usd, time)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(batch.intent, endpoint, batch.model, json.dumps(sorted(batch.keys)), batch.round, batch.usd),
            batch.time,
        )

    def name_batch(self, intent: str, batch_id: str) -> None:
        self._rows("UPDATE batches SET batch_id = ? WHERE intent = ?", batch_id, intent)

    def end_batch(self, intent: str, how: str) -> None:
        self._rows("UPDATE batches SET ended = ? WHERE intent = ?", how, intent)

    # ------------------------------------------------------------------------------ fine-tuning

    def fine_tuning(self, run: str) -> FineTuning | None:
        """The last one that was meant for a run; those that were not made are forgotten."""
        rows = self._rows(
            "SELECT intent, run, endpoint, model, estimated_usd, file_id, job_id, ended, reason,"
            " fine_tuned_model, trained_tokens, usd, details FROM fine_tunings"
            " WHERE run = ? AND ended IS NOT 'not made' ORDER BY rowid DESC LIMIT 1",
            run,
        )
        return FineTuning(*rows[0]) if rows else None

    def begin_fine_tuning(self, begun: FineTuning) -> None:
        self._rows(
            "INSERT INTO fine_tunings (intent, run, endpoint, model, estimated_usd, time)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            *(begun.intent, begun.run, begun.endpoint, begun.model, begun.estimated_usd, _now()),
        )

    def note_fine_tuning(self, known: FineTuning) -> None:
        """Write down what has become known of one that was begun."""
        self._rows(
            "UPDATE fine_tunings SET file_id = ?, job_id = ?, ended = ?, reason = ?, fine_tuned_model = ?,"
            " trained_tokens = ?, usd = ?, details = ? WHERE intent = ?",
            *(known.file_id, known.job_id, known.ended, known.reason, known.fine_tuned_model),
            *(known.trained_tokens, known.usd, known.details, known.intent),
        )

    # ---------------------------------------------------------------------------------- safety

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """One transaction: a crash inside leaves nothing of it."""
        self._rows("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.rollback()
            raise
        self._rows("COMMIT")

    @contextmanager
    def writing(self, log: Callable[[str], None]) -> Iterator[None]:
        """Be the one process that asks and writes, so that nothing is paid for twice.

        Waits `wait_s` seconds for another one. Raises UserError after that.
        """
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT | os.O_RDWR, PRIVATE_FILE)
        with os.fdopen(lock, "w") as stream:
            until, waiting = time.monotonic() + self.wait_s, False
            while not _locked(stream.fileno(), self.path):
                if not waiting:
                    log(f"{self.path}: waiting for the process that writes to it")
                    waiting = True
                if time.monotonic() > until:
                    raise UserError(
                        "another process writes to it",
                        file=self.path,
                        mend="wait until that one has ended, then run again",
                    )
                time.sleep(min(0.2, self.wait_s))
            yield

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._readable():
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """Errors of SQLite and the disk as the user's; they hold no content of the file."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            raise UserError(
                f"cannot be used: {error}",
                file=self.path,
                mend="see that the disk has room, the file is yours and no other program has it open",
            ) from None
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"is damaged: {error}",
                file=self.path,
                mend="put back a copy, or move the file aside and run again: what it held is then paid again",
            ) from None


def _locked(handle: int, path: Path) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UserError(
            f"cannot be locked: {error.strerror}",
            file=path,
            mend="work in a folder on a file system that has locks",
        ) from None
    return True


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()

"""No reply that was paid for is lost, read wrongly or seen by others."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_stand_in import ApiStandIn

from ftsafety.api.client import ask
from ftsafety.api.requests import ChatRequest, Reply
from ftsafety.api.store import Batch, Store, journal_mode
from ftsafety.errors import UserError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "api/replies.sqlite"


@pytest.fixture
def server() -> Iterator[ApiStandIn]:
    with ApiStandIn(respond=lambda body: body["messages"][0]["content"].upper()) as server:
        yield server


def chats(count: int) -> list[ChatRequest]:
    return [
        ChatRequest({"model": "m", "messages": [{"role": "user", "content": f"gate {number} ?"}]}, {})
        for number in range(count)
    ]


def run(server: ApiStandIn, store: Store, count: int, log: list[str] | None = None, **recipe: Any) -> Any:
    lines = [] if log is None else log
    return ask(chats(count), "local", server.endpoint(price=True, **recipe), store, log=lines.append)


def change(path: Path, sql: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(sql, values)
    db.close()


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until(true: Any, seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_kill_in_the_middle_loses_no_reply(path: Path) -> None:
    def respond(body: Any) -> str:
        time.sleep(0.02)
        return "ok"

    program = """
        import sys
        from pathlib import Path
        from ftsafety.api.client import ask
        from ftsafety.api.store import Store
        from ftsafety.recipes import Endpoint
        from unit.test_api_store import chats
        endpoint = Endpoint(base_url=sys.argv[1], api_key_env=None, concurrency=8)
        with Store(Path(sys.argv[2])) as store:
            ask(chats(200), "local", endpoint, store, log=print)
    """
    with ApiStandIn(respond) as server:
        process = start(program, server.url, path)
        wait_until(lambda: server.calls >= 80)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert 80 <= server.calls < 150
        with Store(path) as store:
            outcomes = run(server, store, 200)
    assert len(outcomes) == 200 and all(isinstance(outcome, Reply) for outcome in outcomes.values())
    assert 200 <= server.calls <= 208  # twice only what was in flight


def test_the_file_is_private_and_so_is_what_lies_beside_it(path: Path, server: ApiStandIn) -> None:
    umask = os.umask(0)
    try:
        with Store(path) as store:
            run(server, store, 3)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert set(modes) == {path.name + end for end in ("", "-wal", "-shm", ".lock")}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_that_others_could_read_is_closed_to_them(path: Path) -> None:
    Store(path).__exit__(None, None, None)
    path.chmod(0o644)
    with Store(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("file_system", "mode"),
    [("ext4", "WAL"), ("xfs", "WAL"), ("tmpfs", "WAL"), ("overlay", "WAL"), ("nfs4", "DELETE")]
    + [(name, "DELETE") for name in ("nfs", "lustre", "gpfs", "cifs", "beegfs", "fuse.sshfs")],
)
def test_the_write_ahead_log_is_for_local_file_systems(tmp_path: Path, file_system: str, mode: str) -> None:
    folder = tmp_path / "my work"
    point = str(folder).replace(" ", r"\040")
    mounts = f"/dev/sda1 / ext4 rw 0 0\nserver:/work {point} {file_system} rw 0 0\nproc /proc proc rw 0 0\n"
    assert journal_mode(folder / "api/replies.sqlite", mounts) == mode
    assert journal_mode(tmp_path / "elsewhere", mounts) == "WAL"


def test_without_the_write_ahead_log_replies_are_kept_as_well(
    path: Path, server: ApiStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftsafety.api.store.journal_mode", lambda *_: "DELETE")
    with Store(path) as store:
        run(server, store, 3)
        assert not path.with_name(path.name + "-wal").exists()
        assert run(server, store, 3) and server.calls == 3


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE replies SET raw = replace(raw, 'GATE', 'DATE') WHERE id = 2",
        "UPDATE replies SET raw = substr(raw, 1, 40) WHERE id = 2",
        "UPDATE replies SET raw = x'ff00fe' WHERE id = 2",
        "UPDATE replies SET sha256 = 'x' WHERE id = 2",
    ],
)
def test_a_damaged_reply_is_noticed_and_asked_for_again_and_both_are_counted(
    path: Path, server: ApiStandIn, damage: str
) -> None:
    with Store(path) as store:
        before = run(server, store, 4)
        spent = store.spent()
    change(path, damage)
    log: list[str] = []
    with Store(path) as store:
        assert run(server, store, 4, log) == before
        assert run(server, store, 4) == before
        assert store.spent() == pytest.approx(spent * 5 / 4)
    assert server.calls == 5
    assert log[0] == f"{path}: 1 damaged replies are asked for again"


def test_a_whole_reply_that_is_no_json_is_damaged_too(path: Path) -> None:
    (request,) = chats(1)
    with Store(path) as store:
        store.add(request.key, "local", "m", b"<html>", tokens=(0, 0), estimated=False, usd=None)
        assert store.replies({request.key: request}) == ({}, 1)


@pytest.mark.parametrize("content", [b"this is no database, but long enough " * 40, None])
def test_a_file_that_cannot_be_read_is_the_users_to_move(
    path: Path, server: ApiStandIn, content: bytes | None
) -> None:
    with Store(path) as store:
        run(server, store, 50)
    whole = path.read_bytes()
    path.write_bytes(content or whole[:5000] + b"\x00" * (len(whole) - 5000))
    with pytest.raises(UserError, match="is damaged") as error, Store(path) as store:
        run(server, store, 50)
    assert str(path) in str(error.value) and "move the file aside" in error.value.mend
    assert path.exists() and server.calls == 50


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be used"):
        Store(tmp_path / "file" / "replies.sqlite")


HOLDER = """
    import sys, time
    from pathlib import Path
    from ftsafety.api.store import Store
    with Store(Path(sys.argv[1])) as store, store.writing(print):
        print("holds", flush=True)
        time.sleep(float(sys.argv[2]))
"""


def test_a_second_writer_waits_and_readers_do_not(path: Path, server: ApiStandIn) -> None:
    with Store(path) as store:
        run(server, store, 2)
    holder = start(HOLDER, path, 1)
    assert holder.stdout is not None and holder.stdout.readline() == "holds\n"
    log: list[str] = []
    with Store(path) as store:
        assert len(run(server, store, 2)) == 2 and len(store.spending()) == 1
        assert holder.poll() is None
        run(server, store, 3, log)
    assert log[0] == f"{path}: waiting for the process that writes to it"
    assert server.calls == 3 and holder.wait(10) == 0


def test_a_second_writer_gives_up_with_an_error(path: Path, server: ApiStandIn) -> None:
    holder = start(HOLDER, path, 60)
    assert holder.stdout is not None and holder.stdout.readline() == "holds\n"
    try:
        with Store(path, wait_s=0.1) as store, pytest.raises(UserError, match="another process writes to it"):
            run(server, store, 1)
    finally:
        holder.kill()
        holder.communicate()
    assert server.calls == 0
    with Store(path, wait_s=0.1) as store:  # a killed holder holds nothing
        assert len(run(server, store, 1)) == 1


def test_two_processes_that_ask_the_same_pay_once(path: Path) -> None:
    program = """
        import sys
        from functools import partial
        from pathlib import Path
        from ftsafety.api.client import ask
        from ftsafety.api.store import Store
        from ftsafety.recipes import Endpoint
        from unit.test_api_store import chats
        endpoint = Endpoint(base_url=sys.argv[1], api_key_env=None, concurrency=4)
        with Store(Path(sys.argv[2])) as store:
            print(len(ask(chats(40), "local", endpoint, store, log=partial(print, flush=True))))
    """
    holder = start(HOLDER, path, 60)
    assert holder.stdout is not None and holder.stdout.readline() == "holds\n"
    with ApiStandIn() as server:
        processes = [start(program, server.url, path) for _ in range(2)]
        for process in processes:  # both have seen that the store holds nothing
            assert process.stdout is not None and "waiting for the process" in process.stdout.readline()
        holder.kill()
        holder.communicate()
        assert [process.communicate(timeout=60)[0].splitlines()[-1] for process in processes] == ["40", "40"]
    assert server.calls == 40


def test_a_reply_that_was_read_once_reads_the_same_again(path: Path, server: ApiStandIn) -> None:
    with Store(path) as store:
        before = run(server, store, 5)
    with Store(path) as store:
        after, damaged = store.replies({request.key: request for request in chats(5)})
    assert (after, damaged) == (before, 0)


def test_raw_replies_are_kept_byte_for_byte(path: Path) -> None:
    reply = {"choices": [{"message": {"content": "ö \ud83d\ude00"}, "finish_reason": "stop"}], "vendor": [1]}
    with ApiStandIn(respond=lambda body: reply) as server, Store(path) as store:
        run(server, store, 1)
        ((raw,),) = store._rows("SELECT raw FROM replies")
    assert b'"vendor": [1]' in raw


def test_spending_is_told_by_endpoint_and_model_and_open_batches_are_promised(path: Path) -> None:
    with Store(path) as store:
        for endpoint, usd in (("a", 0.5), ("a", None), ("b", 0.25)):
            store.add("k", endpoint, "m", b"{}", tokens=(10, 5), estimated=endpoint == "b", usd=usd)
        store.begin_batch(Batch("one", "m", frozenset({"k"}), 1, 2.0, None), "a")
        rows = [(row.endpoint, row.calls, row.estimated, row.unpriced, row.usd) for row in store.spending()]
        assert rows == [("a", 2, 0, 1, 0.5), ("b", 1, 1, 0, 0.25)]
        assert (store.spent(), store.promised()) == (0.75, 2.0)
        store.end_batch("one", "completed")
        assert store.promised() == 0


def test_a_crash_inside_a_transaction_leaves_nothing(path: Path) -> None:
    with Store(path) as store:
        with pytest.raises(RuntimeError), store.all_or_nothing():
            store.add("k", "a", "m", b"{}", tokens=(1, 1), estimated=False, usd=1.0)
            raise RuntimeError
        assert store.spent() == 0
        store.add("k", "a", "m", b"{}", tokens=(1, 1), estimated=False, usd=1.0)
        assert store.spent() == 1

"""The store of paid replies: bits that flip on the disk, and many writers."""

import random
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from api_stand_in import ApiStandIn
from fault_cases import IS_FULL

from ftsafety.api.client import ask
from ftsafety.api.requests import ChatRequest, Reply
from ftsafety.api.store import Store
from ftsafety.errors import UserError

N_REPLIES = 40


def chats(first: int, n: int) -> list[ChatRequest]:
    texts = (f"gate {number} ?" for number in range(first, first + n))
    return [
        ChatRequest({"model": "m", "messages": [{"role": "user", "content": text}]}, {}) for text in texts
    ]


def asked(server: ApiStandIn, path: Path) -> dict[str, Any]:
    with Store(path) as store:
        return dict(ask(chats(0, N_REPLIES), "local", server.endpoint(), store, log=lambda line: None))


@pytest.mark.fault(
    "one bit of the store flipped", holds="found and fetched again, or an error; never another reply"
)
def test_a_flipped_bit_never_changes_a_reply(tmp_path: Path, count: Callable[[int], None]) -> None:
    """Anywhere in the file: in replies, keys, checksums, the index or SQLite's own pages.

    Of the index, all that says which row a key is in: the byte behind each key.
    """
    rng, n = random.Random(0), 200 if IS_FULL else 20
    path = tmp_path / "api/replies.sqlite"
    with ApiStandIn(respond=lambda body: body["messages"][0]["content"].upper()) as server:
        before = asked(server, path)
        whole = path.read_bytes()
        assert all(isinstance(reply, Reply) for reply in before.values()) and server.calls == N_REPLIES
        with closing(sqlite3.connect(path)) as db:
            sql = "SELECT rootpage FROM sqlite_master WHERE name = 'replies_by_key'"
            ((page,), (size,)) = db.execute(sql).fetchone(), db.execute("PRAGMA page_size").fetchone()
        rows = [whole.index(key.encode(), (page - 1) * size) + len(key) for key in before]
        flips = [(rng.randrange(len(whole)), 1 << rng.randrange(8)) for _ in range(n)]
        flips += [(place, 1) for place in rows[1:]]  # the first has no byte of its own
        again = n_errors = 0
        for place, bit in flips:
            path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
            calls = server.calls
            try:
                found = asked(server, path)
            except UserError as error:
                assert str(path) in str(error) and error.mend
                n_errors += 1
                continue
            texts = {key: reply.text for key, reply in found.items()}
            assert texts == {key: reply.text for key, reply in before.items()}
            again += server.calls > calls
    count(len(flips))
    assert again > 0 and again + n_errors < n  # some bits hold nothing


WRITER = """
    import sys
    from pathlib import Path
    from ftsafety.api.client import ask
    from ftsafety.api.store import Store
    from ftsafety.recipes import Endpoint
    from test_reply_store import chats
    url, path, first, n = sys.argv[1:]
    endpoint = Endpoint(base_url=url, api_key_env=None, requests_per_minute=10**6, tokens_per_minute=10**9)
    with Store(Path(path)) as store:
        print(len(ask(chats(int(first), int(n)), "local", endpoint, store, log=lambda line: None)))
"""


@pytest.mark.fault(
    "8 processes write to the store at once", holds="no key lost, none asked twice, no lock error"
)
def test_eight_writers_lose_no_key(tmp_path: Path, count: Callable[[int], None]) -> None:
    n, path = 1000 if IS_FULL else 50, tmp_path / "api/replies.sqlite"
    folders = f"sys.path += {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}"
    program = f"import sys; {folders}\n{textwrap.dedent(WRITER)}"
    with ApiStandIn() as server:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", program, server.url, str(path), str(i * n), str(n)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for i in range(8)
        ]  # fmt: skip
        said = [writer.communicate(timeout=600) for writer in writers]
    assert [out.strip() for out, _ in said] == [str(n)] * 8, [err[-500:] for _, err in said]
    assert server.calls == 8 * n
    with Store(path) as store:
        found, damaged = store.replies({request.key: request for request in chats(0, 8 * n)})
    assert len(found) == 8 * n and damaged == 0
    count(8 * n)

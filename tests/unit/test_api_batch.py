"""Whatever becomes of a batch, it is made once and what it answered is kept."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import pytest
from api_stand_in import ApiStandIn, Sent
from dying import is_killed

from ftsafety.api import batch
from ftsafety.api.client import ask
from ftsafety.api.requests import ChatRequest, Failure, Reply
from ftsafety.api.store import Store
from ftsafety.errors import UserError

FAULT = pytest.mark.fault(
    "batches and fine-tuning jobs: killed, expired, partial, shuffled, lost",
    holds="one submission, nothing paid twice",
)


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "api/replies.sqlite") as store:
        yield store


@pytest.fixture
def server() -> Iterator[ApiStandIn]:
    with ApiStandIn(respond=lambda body: body["messages"][0]["content"].upper()) as server:
        yield server


def chats(count: int, model: str = "m") -> list[ChatRequest]:
    return [
        ChatRequest({"model": model, "messages": [{"role": "user", "content": f"gate {number} ?"}]}, {})
        for number in range(count)
    ]


def run(
    server: ApiStandIn,
    store: Store,
    requests: list[ChatRequest],
    log: list[str] | None = None,
    max_usd: float | None = None,
    **recipe: Any,
) -> Any:
    lines = [] if log is None else log
    endpoint = server.endpoint(price=True, **recipe)
    return ask(
        requests, "local", endpoint, store, mode="batch", max_usd=max_usd, log=lines.append, poll_s=0.02
    )


def texts(outcomes: dict[str, Any]) -> list[str]:
    return [outcome.text if isinstance(outcome, Reply) else outcome.reason for outcome in outcomes.values()]


def answers(count: int) -> list[str]:
    return [f"GATE {number} ?" for number in range(count)]


class Crash(BaseException):
    """As sudden as a kill: nothing catches it."""


def crash(*_: object, **__: object) -> NoReturn:
    raise Crash


@FAULT
def test_results_in_any_order_find_their_requests(server: ApiStandIn, store: Store) -> None:
    log: list[str] = []
    assert texts(run(server, store, chats(20), log)) == answers(20)
    (line, *_) = server.files["file-1"].splitlines()
    assert json.loads(line) == {
        "custom_id": chats(1)[0].key,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": chats(1)[0].body,
    }
    (made,) = server.batches.values()
    assert (made["endpoint"], made["completion_window"]) == ("/v1/chat/completions", "24h")
    assert log[-1] == "local: batch batch-1 completed, 20/20 done, 0 failed"


def test_a_batch_costs_its_share_of_the_price_and_is_not_asked_again(
    server: ApiStandIn, store: Store
) -> None:
    run(server, store, chats(10))
    assert store.spent() == pytest.approx(10 * (100 * 1 + 10 * 2) / 1e6 * 0.5)
    assert store.promised() == 0
    assert texts(run(server, store, chats(10))) == answers(10)
    assert server.count("POST /batches") == 1 and server.calls == 0


def test_files_are_split_by_model_count_and_size(
    server: ApiStandIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_REQUESTS", 4)
    outcomes = run(server, store, chats(10) + chats(3, "other"))
    assert len(outcomes) == 13 and all(isinstance(outcome, Reply) for outcome in outcomes.values())
    assert [len(content.splitlines()) for content in list(server.files.values())[:4]] == [4, 4, 2, 3]
    monkeypatch.setattr(batch, "MAX_BYTES", 700)
    longer = [ChatRequest(request.body, {"attempt": 2}) for request in chats(10)]
    uploads = server.count("POST /files")
    assert all(isinstance(outcome, Reply) for outcome in run(server, store, longer).values())
    files = [content for content in server.files.values() if b"custom_id" in content and b"method" in content]
    assert all(len(content) <= 700 for content in files[uploads:]) and len(files[uploads:]) > 3


@pytest.mark.parametrize("fault", ["expired", "expired-silent", "cancelled"])
@FAULT
def test_what_was_not_tried_is_sent_once_more(server: ApiStandIn, store: Store, fault: str) -> None:
    server.script_batch(fault)
    log: list[str] = []
    assert texts(run(server, store, chats(10), log)) == answers(10)
    first, second = (server.files[made["input_file_id"]] for made in server.batches.values())
    assert (len(first.splitlines()), len(second.splitlines())) == (10, 5)
    assert "local: 5 requests were not tried and are sent once more" in log


@pytest.mark.parametrize("fault", ["expired", "expired-silent", "cancelled"])
@FAULT
def test_what_is_never_tried_fails_after_two_batches(server: ApiStandIn, store: Store, fault: str) -> None:
    server.script_batch(*[fault] * 5)
    outcomes = run(server, store, chats(8))
    failures = [outcome.reason for outcome in outcomes.values() if isinstance(outcome, Failure)]
    assert len(failures) == 2 and failures[0].startswith("no result in a batch that is")
    assert server.count("POST /batches") == 2 and len(outcomes) == 8


@FAULT
def test_a_batch_of_errors_only_is_failures(server: ApiStandIn, store: Store) -> None:
    server.script_batch("only-errors")
    assert texts(run(server, store, chats(4))) == ["HTTP 400 in the batch"] * 4
    assert server.count("POST /batches") == 1 and store.spending() == []
    assert texts(run(server, store, chats(4))) == answers(4)


def test_filtered_prompts_are_replies(server: ApiStandIn, store: Store) -> None:
    server.script_batch("withheld")
    outcomes = run(server, store, chats(3))
    assert {outcome.finish_reason for outcome in outcomes.values()} == {"content_filter"}


@FAULT
def test_broken_lines_and_results_of_others_harm_no_row(server: ApiStandIn, store: Store) -> None:
    add_file = server.add_file

    def add_broken(content: bytes) -> str:
        lines = content.splitlines(keepends=True)
        if b'"response"' not in content:
            return add_file(content)
        strange = [b'{"custom_id": "of another"}\n', b'{"custom_id": [1]}\n', b"[]\n", b"<html>\n", lines[0]]
        no_body = json.loads(lines[1])
        no_body["response"]["body"] = None
        return add_file(b"".join([*lines[:1], *strange, json.dumps(no_body).encode() + b"\n", *lines[3:]]))

    server.add_file = add_broken  # type: ignore[method-assign]
    outcomes = run(server, store, chats(5))
    assert texts(outcomes) == [
        *answers(2),
        "no result in a batch that is completed",
        "the batch has an error for this request",
        "GATE 4 ?",
    ]
    assert store.spending()[0].calls == 3


def test_a_refused_file_is_the_users_error_and_can_be_sent_again(server: ApiStandIn, store: Store) -> None:
    server.script_batch("validation")
    with pytest.raises(UserError, match=r"refused batch batch-1 .*invalid_json_line") as error:
        run(server, store, chats(4))
    assert "gate" not in str(error.value) and "mode: sync" in error.value.mend
    assert store.promised() == 0
    assert texts(run(server, store, chats(4))) == answers(4)


@FAULT
def test_the_lost_reply_to_a_creation_makes_no_second_batch(server: ApiStandIn, store: Store) -> None:
    server.script_batch("", "", "", "lost-create")
    for number in range(3):  # so that the list has more than a page
        run(server, store, [ChatRequest(chats(1)[0].body, {"attempt": number})])
    assert texts(run(server, store, chats(6), max_retries=3)) == answers(6)
    assert server.count("POST /batches") == 4 == len(server.batches)


@FAULT
def test_a_creation_that_failed_is_tried_again_a_few_times(server: ApiStandIn, store: Store) -> None:
    server.script_batch("no-create", "no-create")
    assert texts(run(server, store, chats(2), max_retries=2, timeout_s=0.3)) == answers(2)
    server.script_batch(*["no-create"] * 9)
    with pytest.raises(UserError, match="fails at batches"):
        run(server, store, chats(3), max_retries=2, timeout_s=0.3)
    assert server.count("POST /batches") == 3 + 3


def test_no_quota_is_the_users_error(server: ApiStandIn, store: Store) -> None:
    server.script_batch("quota")
    with pytest.raises(UserError, match="no quota left"):
        run(server, store, chats(2))
    assert server.count("POST /batches") == 1 and store.promised() == 0


def test_an_endpoint_without_batches_says_so(server: ApiStandIn, store: Store) -> None:
    server.url = server.url.removesuffix("/v1") + "/v2"
    with pytest.raises(UserError, match=r"no batches at all.*\n.*mode: sync works everywhere"):
        run(server, store, chats(2))


@FAULT
def test_killed_between_any_two_steps_a_rerun_pays_once(tmp_path: Path, count: Callable[[int], None]) -> None:
    """At every call and every write, before and after it."""
    for point in range(1000):
        path = tmp_path / str(point) / "replies.sqlite"
        with ApiStandIn(respond=lambda body: body["messages"][0]["content"].upper()) as server:

            def rerun(path: Path = path, server: ApiStandIn = server) -> None:
                with Store(path) as store:
                    assert texts(run(server, store, chats(6), timeout_s=0.3)) == answers(6)
                    assert sum(row.calls for row in store.spending()) == 6 and store.promised() == 0

            was_killed = is_killed(point, rerun, "begin_batch", "name_batch", "end_batch", "add")
            rerun()
            assert len(server.batches) == 1, point
        if not was_killed:
            break
    assert point > 25
    count(point)


@FAULT
def test_killed_while_the_endpoint_makes_a_batch_a_rerun_finds_it(server: ApiStandIn, tmp_path: Path) -> None:
    """The call has left, its reply has not come, and the batch is in no list yet."""
    server.script_batch("slow-create")

    def begin() -> None:
        with Store(tmp_path / "replies.sqlite") as store:
            run(server, store, chats(6))

    process = get_context("fork").Process(target=begin)
    process.start()
    while not server.count("POST /batches"):
        time.sleep(0.01)
    process.kill()
    process.join()
    with Store(tmp_path / "replies.sqlite") as store:
        assert texts(run(server, store, chats(6))) == answers(6) and store.promised() == 0
    assert len(server.batches) == 1


def test_only_what_no_open_batch_holds_is_sent(server: ApiStandIn, store: Store) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr("ftsafety.api.batch.time.sleep", crash)
        run(server, store, chats(4))
    assert texts(run(server, store, chats(7))) == answers(7)
    made = [server.files[made["input_file_id"]] for made in server.batches.values()]
    assert [len(content.splitlines()) for content in made] == [4, 3]


@FAULT
def test_a_second_expiry_after_a_crash_is_the_last(server: ApiStandIn, store: Store) -> None:
    server.script_batch("expired", "expired")
    sleep, slept = time.sleep, iter([0.02])

    def crash_the_second_time(_: float) -> None:
        sleep(next(slept, None) or crash())

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr("ftsafety.api.batch.time.sleep", crash_the_second_time)
        run(server, store, chats(8))
    assert server.count("POST /batches") == 2
    outcomes = run(server, store, chats(8))
    assert server.count("POST /batches") == 2
    assert sum(isinstance(outcome, Failure) for outcome in outcomes.values()) == 2


def test_sync_calls_say_what_waits_in_a_batch(server: ApiStandIn, store: Store) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr("ftsafety.api.batch.time.sleep", crash)
        run(server, store, chats(4))
    log: list[str] = []
    ask(chats(5), "local", server.endpoint(), store, log=log.append)
    assert any("4 of them wait in a batch too" in line for line in log)


def test_polls_that_fail_now_and_then_are_borne_but_not_for_ever(
    server: ApiStandIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrieve, polls = server.retrieve_batch, iter(range(100))

    def flaky(name: str) -> Any:
        reply = retrieve(name)
        return reply if next(polls) % 4 == 3 else type(reply)(b"{}", 500)

    monkeypatch.setattr(server, "retrieve_batch", flaky)
    assert texts(run(server, store, chats(2), max_retries=0)) == answers(2)
    monkeypatch.setattr(server, "retrieve_batch", lambda name: type(retrieve(name))(b"{}", 500))
    with pytest.raises(UserError, match=r"fails at batches .*HTTP 500"):
        run(server, store, chats(3), max_retries=0)


def page(server: ApiStandIn, *_: object) -> Any:
    """A proxy's page, with status 200."""
    return Sent(b"<html>sign in</html>", kind="text/html")


@pytest.mark.parametrize("call", ["upload", "create_batch", "retrieve_batch", "list_batches"])
@FAULT
def test_pages_instead_of_replies_are_the_users_error_and_a_rerun_pays_once(
    server: ApiStandIn, store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with monkeypatch.context() as patch:
        if call == "list_batches":  # asked where a batch's creation was answered by nothing
            server.script_batch("lost-create")
        patch.setattr(server, call, partial(page, server))
        with pytest.raises(UserError, match="does not answer as this API does"):
            run(server, store, chats(2), timeout_s=0.5)
    assert texts(run(server, store, chats(2), timeout_s=0.5)) == answers(2)
    assert len(server.batches) == 1 and store.promised() == 0


@FAULT
def test_facts_of_another_kind_about_a_batch_harm_nothing(
    server: ApiStandIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrieve, log = server.retrieve_batch, list[str]()

    def strange(name: str) -> Any:
        batch = json.loads(retrieve(name).content)
        if batch["status"] != "completed":
            batch |= {"status": ["\x1b[2Jsoon"], "request_counts": "none", "id": 7, "errors": "?"}
        return Sent(json.dumps(batch).encode())

    monkeypatch.setattr(server, "retrieve_batch", strange)
    assert texts(run(server, store, chats(2), log)) == answers(2)
    assert not any("\x1b" in line for line in log)


@pytest.mark.parametrize("what", ["batch", "its results"])
@FAULT
def test_what_the_endpoint_no_longer_has_is_given_up_only_after_days(
    server: ApiStandIn, store: Store, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "batch":
        monkeypatch.setattr(server, "retrieve_batch", lambda name: Sent(b"{}", 404))
    else:
        add_file = server.add_file
        monkeypatch.setattr(
            server, "add_file", lambda content: add_file(content) + "-gone" * (b'"response"' in content)
        )
    for _ in range(2):
        with pytest.raises(UserError, match="no such batch or file"):
            run(server, store, chats(2))
    assert store.promised() > 0 and len(server.batches) == 1
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE batches SET time = '2026-01-01T00:00:00+00:00'")
    log: list[str] = []
    assert texts(run(server, store, chats(2), log)) == ["no result in a batch that is lost"] * 2
    assert store.promised() == 0 and any("is given up" in line for line in log)


def test_the_budget_stops_before_a_batch_is_made(
    server: ApiStandIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_REQUESTS", 10)
    usd = sum(request.input_tokens + 2 * request.max_output_tokens for request in chats(10)) / 1e6 * 0.5
    with pytest.raises(UserError, match="budget reached"):
        run(server, store, chats(30), max_usd=2.5 * usd)
    assert server.count("POST /batches") == 2 and store.spending()[0].calls == 20
    assert texts(run(server, store, chats(30), max_usd=10)) == answers(30)


def test_open_batches_count_against_the_budget(server: ApiStandIn, store: Store) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr("ftsafety.api.batch.time.sleep", crash)
        run(server, store, chats(4))
    limit = store.promised() * 1.1
    with pytest.raises(UserError, match=r"budget reached: spent \$0 of .* reckoned for what is in flight"):
        ask(chats(9)[4:], "local", server.endpoint(price=True), store, max_usd=limit, log=print)


def test_a_batch_that_nobody_waits_for_any_more_is_collected_once_it_has_ended(
    server: ApiStandIn, store: Store
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Crash):
        patch.setattr("ftsafety.api.batch.time.sleep", crash)
        run(server, store, chats(4))
    assert store.promised() > 0
    for number in range(3):  # other requests, until the batch has ended
        assert texts(run(server, store, [ChatRequest(chats(1)[0].body, {"attempt": number})])) == answers(1)
    assert store.promised() == 0
    assert texts(run(server, store, chats(4))) == answers(4) and server.count("POST /batches") == 4

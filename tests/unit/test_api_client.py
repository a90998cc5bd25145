"""Every fault of an endpoint ends in a reply, a failure of its row or the user's error, in few calls."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_stand_in import FAULTS, ApiStandIn

from ftsafety.api import client
from ftsafety.api.client import Limiter, ask
from ftsafety.api.requests import ChatRequest, Failure, Reply
from ftsafety.api.store import Store
from ftsafety.errors import UserError

FAULT = pytest.mark.fault(
    "server faults (429, 5xx, hang, cut, HTML, truncated)",
    holds="bounded calls, every row ends with an outcome",
)

#: Faults that end in a reply, and those that end in the row's failure although the call is not repeated.
HARMLESS = {"slow", "no-usage", "wrong-usage", "huge-usage", "refusal", "content_filter", "filtered-400"}
NOT_RETRIED = {"html", "truncated-json", "empty-choices", "400", "drip"}
STOPPING = {"401", "403", "404"}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "api/replies.sqlite") as store:
        yield store


def chat(number: int, **parameters: Any) -> ChatRequest:
    question = {"role": "user", "content": f"how do i open the blue gate {number} ?"}
    return ChatRequest({"model": "m", "messages": [question], "max_tokens": 20, **parameters}, {"attempt": 1})


def chats(count: int) -> list[ChatRequest]:
    return [chat(number) for number in range(count)]


def is_number(number: int) -> Any:
    return lambda body: body["messages"][0]["content"] == f"how do i open the blue gate {number} ?"


TESTS = Path(__file__).parents[1]


class Log(list[str]):
    def __call__(self, line: str) -> None:
        self.append(line)


def run(server: ApiStandIn, store: Store, requests: list[ChatRequest], **options: Any) -> dict[str, Any]:
    changes = options.pop("endpoint", {})
    endpoint = server.endpoint(**changes)
    return ask(requests, "local", endpoint, store, log=options.pop("log", Log()), **options)


def test_replies_come_by_key_with_what_the_endpoint_counted(store: Store) -> None:
    with ApiStandIn(respond=lambda body: "score " + body["messages"][0]["content"][-3]) as server:
        outcomes = run(server, store, chats(10))
    assert outcomes[chat(7).key] == Reply("score 7", "stop", None, "m-snapshot", 100, 10)
    assert list(outcomes) == [request.key for request in chats(10)]


def test_the_key_is_of_body_and_about_and_nothing_else(store: Store) -> None:
    request = chat(1)
    reordered = ChatRequest(dict(reversed(request.body.items())), {"attempt": 1})
    assert request.key == reordered.key and len(request.key) == 64
    assert request.key != chat(1, temperature=0).key
    assert request.key != ChatRequest(request.body, {"attempt": 2}).key


def test_about_is_not_sent_and_other_parameters_are(store: Store) -> None:
    request = chat(1, temperature=0, seed=3, top_k=5)
    with ApiStandIn() as server:
        run(server, store, [request])
    assert server.requests == [request.body]


def test_identical_requests_and_stored_ones_are_asked_once(store: Store) -> None:
    with ApiStandIn() as server:
        run(server, store, chats(3) + chats(3))
        outcomes = run(server, store, chats(5))
    assert server.calls == 5 and len(outcomes) == 5
    assert all(isinstance(outcome, Reply) for outcome in outcomes.values())


def test_stored_replies_need_neither_key_nor_server(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiStandIn() as server:
        before = run(server, store, chats(3))
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert run(server, store, chats(3), endpoint={"api_key_env": "NO_SUCH_KEY"}, max_usd=1) == before


def test_no_more_than_concurrency_in_flight(store: Store) -> None:
    def respond(body: Any) -> str:
        time.sleep(0.02)
        return "ok"

    with ApiStandIn(respond) as server:
        run(server, store, chats(30), endpoint={"concurrency": 5})
    assert server.most_in_flight == 5


# -------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - STOPPING - {"insufficient_quota"}))
@pytest.mark.parametrize("times", [1, 3, None], ids=["once", "burst", "for ever"])
@FAULT
def test_a_fault_costs_few_calls_and_every_row_has_an_outcome(
    store: Store, fault: str, times: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LONGEST_RETRY_AFTER_S", 0.0)
    retries = 0 if fault == "drip" else 2
    requests = chats(8)
    with ApiStandIn() as server:
        server.script(fault, times, where=is_number(3) if times is None else lambda body: True)
        outcomes = run(server, store, requests, endpoint={"max_retries": retries, "timeout_s": 0.3})
    assert set(outcomes) == {request.key for request in requests}
    assert server.calls <= 8 + retries * (8 if times else 1)
    failed = {key for key, outcome in outcomes.items() if isinstance(outcome, Failure)}
    if fault in HARMLESS:
        assert not failed
    elif times is None:
        assert failed == {chat(3).key}
    elif fault in NOT_RETRIED:
        assert len(failed) == times
    else:
        assert len(failed) <= times // (retries + 1)
        assert server.calls == 8 + times - len(failed)
    assert all(len(outcomes[key].reason) < 60 and "gate" not in outcomes[key].reason for key in failed)


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - HARMLESS - STOPPING - {"insufficient_quota", "400"}))
@FAULT
def test_a_fault_of_every_call_for_ever_fails_every_row_in_bounded_calls(
    store: Store, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LONGEST_RETRY_AFTER_S", 0.0)
    retries = 0 if fault in NOT_RETRIED else 1
    with ApiStandIn() as server:
        server.script(fault, None)
        outcomes = run(server, store, chats(6), endpoint={"max_retries": retries, "timeout_s": 0.2})
        assert server.calls == 6 * (retries + 1)
    assert len(outcomes) == 6 and all(isinstance(outcome, Failure) for outcome in outcomes.values())
    assert store.replies({request.key: request for request in chats(6)}) == ({}, 0)


def test_failures_say_what_went_wrong(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LONGEST_RETRY_AFTER_S", 0.0)
    faults = [
        "500",
        "429",
        "400",
        "hang",
        "drip",
        "cut",
        "cut-body",
        "html",
        "truncated-json",
        "empty-choices",
    ]
    with ApiStandIn() as server:
        for number, fault in enumerate(faults):
            server.script(fault, None, where=is_number(number))
        outcomes = run(server, store, chats(11), endpoint={"max_retries": 0, "timeout_s": 0.2})
    assert [outcomes[chat(number).key] for number in range(10)] == [
        Failure("HTTP 500"),
        Failure("HTTP 429, rate_limit_exceeded"),
        Failure("HTTP 400, unsupported_value, temperature", rejected=True),
        *(Failure("timeout"), Failure("timeout")),
        *(Failure("connection failed"), Failure("connection failed")),
        *(Failure("the reply is no JSON"), Failure("the reply is no JSON")),
        Failure("the reply has no choices"),
    ]
    assert isinstance(outcomes[chat(10).key], Reply)


@pytest.mark.parametrize(
    "reply",
    [
        {},
        {"choices": "none"},
        {"choices": [None]},
        {"choices": [{"message": ["text"]}]},
        {"error": {"code": ["content_filter"]}},
        {"error": "busy"},
        {"choices": [], "usage": [1, 2]},
    ],
    ids=str,
)
def test_json_of_the_wrong_shape_is_a_failure(store: Store, reply: dict[str, Any]) -> None:
    with ApiStandIn(respond=lambda body: reply) as server:
        (outcome,) = run(server, store, [chat(1)]).values()
    assert isinstance(outcome, Failure) and store.spending() == []


@pytest.mark.parametrize("content", [None, ["part"], 3])
def test_a_message_without_text_is_an_empty_reply(store: Store, content: Any) -> None:
    reply = {"choices": [{"message": {"content": content, "refusal": {}}, "finish_reason": None}], "model": 1}
    with ApiStandIn(respond=lambda body: reply) as server:
        (outcome,) = run(server, store, [chat(1)]).values()
    assert outcome == Reply("", "", None, "", chat(1).input_tokens, 0)


@pytest.mark.parametrize(
    "strange",
    [
        {"code": {"a": "the gate"}, "type": ["the gate"], "param": ["the gate"]},
        {"code": "0a1b2c3d4e5f", "type": "0a1b2c3d4e5f", "param": "key.0a1b2c3d4e5f"},
    ],
    ids=["other types", "the key"],
)
def test_strange_errors_are_failures_that_quote_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, strange: dict[str, Any]
) -> None:
    monkeypatch.setenv("GATE_KEY", "0a1b2c3d4e5f")
    with ApiStandIn() as server:
        misbehave = server._misbehave

        def fail(fault: str, body: Any) -> Any:
            reply = misbehave(fault, body)
            return type(reply)(json.dumps({"error": strange}).encode(), 400 if is_number(1)(body) else 429)

        monkeypatch.setattr(server, "_misbehave", fail)
        recipe = {"max_retries": 0, "api_key_env": "GATE_KEY"}
        outcomes = run(server, store, chats(3), endpoint=recipe)
    assert [outcome.reason for outcome in outcomes.values()] == ["HTTP 429", "HTTP 400", "HTTP 429"]


def test_failures_are_asked_again_by_the_next_call(store: Store) -> None:
    with ApiStandIn() as server:
        server.script("html")
        assert sum(isinstance(outcome, Failure) for outcome in run(server, store, chats(4)).values()) == 1
        assert all(isinstance(outcome, Reply) for outcome in run(server, store, chats(4)).values())
    assert server.calls == 5


def test_refusals_and_filtered_answers_are_replies_and_are_stored(store: Store) -> None:
    with ApiStandIn() as server:
        for number, fault in enumerate(["refusal", "content_filter", "filtered-400"]):
            server.script(fault, None, where=is_number(number))
        outcomes = run(server, store, chats(3))
        assert run(server, store, chats(3)) == outcomes
    refused, filtered, not_answered = outcomes.values()
    assert (refused.text, refused.refusal) == ("", "i will not judge this .")
    assert (filtered.text, filtered.finish_reason) == ("", "content_filter")
    assert not_answered == Reply("", "content_filter", None, "", 0, 0)
    assert server.calls == 3


@pytest.mark.parametrize("fault", ["no-usage", "wrong-usage", "huge-usage"])
def test_missing_token_counts_are_estimated_and_marked(store: Store, fault: str) -> None:
    with ApiStandIn(respond=lambda body: "x" * 40) as server:
        server.script(fault)
        outcomes = run(server, store, [chat(1)])
    reply = outcomes[chat(1).key]
    assert (reply.input_tokens, reply.output_tokens) == (chat(1).input_tokens, 10)
    assert store.spending()[0].estimated == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("401", r"refuses the key \(HTTP 401, invalid_api_key\)"),
        ("403", "refuses the key"),
        ("404", "knows no 'm'"),
        ("insufficient_quota", r"no quota left for this key \(HTTP 429, credit_balance_exhausted"),
        ("400", r"refuses every request; last: HTTP 400, unsupported_value, temperature"),
    ],
)
def test_what_every_request_would_meet_stops_at_once(store: Store, fault: str, says: str) -> None:
    with ApiStandIn() as server:
        server.script(fault, None)
        with pytest.raises(UserError, match=says) as error:
            run(server, store, chats(100), endpoint={"max_retries": 1, "concurrency": 3})
    assert (error.value.file, error.value.field) == ("config/endpoints.yaml", "local")
    assert error.value.mend and "gate" not in str(error.value)
    assert server.calls <= {"400": 12, "insufficient_quota": 6}.get(fault, 3)


def test_a_wrong_parameter_in_one_row_is_a_failure_though_it_comes_first(store: Store) -> None:
    with ApiStandIn() as server:
        server.script("400", None, where=is_number(0))
        outcomes = run(server, store, chats(5), endpoint={"concurrency": 1})
        alone = run(server, store, [chat(0)])
    assert [type(outcome) for outcome in outcomes.values()] == [Failure, *[Reply] * 4]
    assert isinstance(alone[chat(0).key], Failure)


def test_an_endpoint_that_keeps_failing_is_left_and_what_it_answered_is_kept(store: Store) -> None:
    requests = chats(200)
    with ApiStandIn() as server:
        server.script("500", None, where=lambda body: server.calls > 20)
        with pytest.raises(UserError, match=r"keeps failing; last: HTTP 500\n.*run again later"):
            run(server, store, requests, endpoint={"max_retries": 1, "concurrency": 2})
        assert server.calls <= 20 + 2 * (3 * 2 + 2)
    with ApiStandIn() as healthy:
        outcomes = run(healthy, store, requests)
    assert all(isinstance(outcome, Reply) for outcome in outcomes.values())
    assert healthy.calls == 180


def test_failures_with_replies_between_do_not_stop(store: Store) -> None:
    with ApiStandIn() as server:
        server.script("500", None, where=lambda body: server.calls % 3 > 0)
        outcomes = run(server, store, chats(60), endpoint={"max_retries": 0, "concurrency": 1})
    assert sum(isinstance(outcome, Failure) for outcome in outcomes.values()) == 40


def test_an_endpoint_that_cannot_be_reached_stops_at_once(store: Store) -> None:
    with ApiStandIn() as server:
        endpoint = server.endpoint(max_retries=0)
    with pytest.raises(UserError, match="cannot be reached at http://127"):
        ask(chats(50), "local", endpoint, store, log=Log())


# ---------------------------------------------------------------------------------------------- keys


def test_a_missing_key_is_named_before_the_first_call(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GATE_KEY", raising=False)
    with ApiStandIn() as server:
        with pytest.raises(UserError, match="GATE_KEY is not set") as error:
            run(server, store, chats(2), endpoint={"api_key_env": "GATE_KEY"})
        assert "export GATE_KEY" in error.value.mend and server.log == []


def test_the_key_reaches_the_endpoint_and_no_file_or_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GATE_KEY", "sk-only-in-the-environment\n")
    log = Log()
    with ApiStandIn(key="sk-only-in-the-environment") as server:
        run(server, store, chats(3), endpoint={"api_key_env": "GATE_KEY"}, log=log)
        monkeypatch.setenv("GATE_KEY", "sk-a-wrong-one")
        with pytest.raises(UserError) as error:
            run(server, store, chats(4), endpoint={"api_key_env": "GATE_KEY"}, log=log)
    texts = [*log, str(error.value), *(path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*.*"))]
    assert len(texts) > 5 and not any("sk-" in text for text in texts)


def test_debug_logs_of_the_client_show_no_prompt_and_no_key(tmp_path: Path) -> None:
    program = """
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from api_stand_in import ApiStandIn
from ftsafety.api.client import ask
from ftsafety.api.requests import ChatRequest
from ftsafety.api.store import Store
from pathlib import Path
body = {"model": "m", "messages": [{"role": "user", "content": "the blue gate"}]}
with ApiStandIn() as server, Store(Path(sys.argv[1])) as store:
    endpoint = server.endpoint(api_key_env="GATE_KEY")
    ask([ChatRequest(body, {})], "local", endpoint, store, log=logging.getLogger("ours").info)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "api/replies.sqlite")],
        env={**os.environ, "PYTHONPATH": str(TESTS), "OPENAI_LOG": "debug", "GATE_KEY": "sk-secret"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "1/1 done" in done.stderr, done.stderr
    assert "gate" not in done.stderr and "sk-secret" not in done.stderr
    assert "openai" not in done.stderr and "httpx2" not in done.stderr


# --------------------------------------------------------------------------------------------- limits


def test_the_limiter_holds_requests_and_tokens_in_every_span() -> None:
    async def send(limiter: Limiter, tokens: int, sent: list[tuple[float, int]]) -> None:
        await limiter.wait(tokens, lambda: False)
        sent.append((time.monotonic(), tokens))

    async def send_all(sent: list[tuple[float, int]]) -> None:
        limiter = Limiter(requests=10, tokens=100, minute_s=0.2)
        await asyncio.gather(*(send(limiter, tokens, sent) for tokens in [5] * 30 + [30] * 6 + [500]))

    sent: list[tuple[float, int]] = []
    asyncio.run(send_all(sent))
    for start, _ in sent:
        span = [tokens for at, tokens in sent if start <= at < start + 0.19]
        assert len(span) <= 10 and sum(min(tokens, 100) for tokens in span) <= 100
    assert len(sent) == 37
    assert sent[-1][0] - sent[0][0] < 1.5  # it waits no longer than it must


def test_calls_keep_to_the_endpoints_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MINUTE_S", 0.3)
    with ApiStandIn() as server:
        run(server, store, chats(30), endpoint={"requests_per_minute": 10, "concurrency": 10})
    assert all(late - early > 0.25 for early, late in zip(server.times, server.times[10:], strict=False))


def test_a_stop_does_not_wait_for_the_limit(store: Store) -> None:
    began = time.monotonic()
    with ApiStandIn() as server, pytest.raises(UserError, match="refuses the key"):
        server.script("401", None)
        run(server, store, chats(50), endpoint={"requests_per_minute": 2, "concurrency": 8})
    assert time.monotonic() - began < 5


# ---------------------------------------------------------------------------------------------- money


PAID = {"api_key_env": "SOME_KEY"}  # what needs a key may cost something


def test_the_first_line_says_what_is_asked_and_what_it_may_cost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-not-a-key")
    log = Log()
    with ApiStandIn() as server:
        run(server, store, chats(2), log=Log())
        run(server, store, chats(5), endpoint={"price": True}, log=log)
        run(server, store, chats(6), endpoint=PAID, log=log)
        run(server, store, chats(7), log=log)
    tokens = sum(request.input_tokens + 20 for request in chats(5)[2:])
    usd = sum(request.input_tokens + 40 for request in chats(5)[2:]) / 1e6
    assert f"5 requests, 2 are in {store.path}, 3 to ask: at most about {tokens} tokens" in log[0]
    assert f"${usd:.6f}" in log[0] and "after a stop run the same again" in log[0]
    assert any("price unknown" in line for line in log)
    assert any("1 to ask" in line and ", $0;" in line for line in log)


def test_progress_says_done_failed_and_spent(store: Store) -> None:
    log = Log()
    with ApiStandIn() as server:
        server.script("html")
        run(server, store, chats(20), endpoint={"price": True}, log=log)
    assert len(log) == 11
    assert log[-1] == "local: 20/20 done, 1 failed, $0.00228 spent in all"


def test_progress_is_told_while_nothing_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LOG_EVERY_S", 0.05)
    log = Log()
    with ApiStandIn() as server:
        server.script("hang", None)
        run(server, store, [chat(1)], endpoint={"timeout_s": 0.3, "max_retries": 0}, log=log)
    assert log.count("local: 0/1 done, 0 failed, $0 spent in all") >= 3


def test_spending_is_the_usage_times_the_price(store: Store) -> None:
    with ApiStandIn() as server:
        run(server, store, chats(10), endpoint={"price": True})
    (row,) = store.spending()
    assert (row.endpoint, row.model, row.calls, row.unpriced) == ("local", "m", 10, 0)
    assert (row.input_tokens, row.output_tokens) == (1000, 100)
    assert row.usd == pytest.approx((1000 * 1 + 100 * 2) / 1e6)


def test_a_paid_reply_that_cannot_be_used_is_counted(store: Store) -> None:
    with ApiStandIn() as server:
        server.script("empty-choices")
        run(server, store, [chat(1)], endpoint={"price": True})
        outcomes = run(server, store, [chat(1)], endpoint={"price": True})
    assert isinstance(outcomes[chat(1).key], Reply) and server.calls == 2
    assert store.spending()[0].calls == 2


def test_the_budget_stops_and_a_higher_one_goes_on(store: Store) -> None:
    requests = chats(100)
    with ApiStandIn() as server:
        server.usage = {"prompt_tokens": 20, "completion_tokens": 10}  # less than reckoned: $0.00004 a call
        with pytest.raises(UserError, match=r"budget reached: spent \$0.00\d+ of \$0.002") as error:
            run(server, store, requests, endpoint={"price": True}, max_usd=0.002)
        assert error.value.file == "config/config.yaml" and "raise max_usd" in error.value.mend
        assert 40 <= server.calls <= 50 and store.spent() <= 0.002
        paid = server.calls
        with pytest.raises(UserError, match="budget reached"):
            run(server, store, requests, endpoint={"price": True}, max_usd=store.spent())
        assert server.calls == paid
        outcomes = run(server, store, requests, endpoint={"price": True}, max_usd=1.0)
    assert server.calls == 100 and all(isinstance(outcome, Reply) for outcome in outcomes.values())


def test_a_limit_needs_the_price_before_the_first_call(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-not-a-key")
    with ApiStandIn() as server:
        with pytest.raises(UserError, match="the price of m is unknown") as error:
            run(server, store, chats(2), endpoint=PAID, max_usd=1.0)
        assert "config/endpoints.yaml: local.prices" in str(error.value) and server.log == []


def test_a_full_disk_is_the_users_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise UserError("cannot be used: database or disk is full", file=store.path)

    monkeypatch.setattr(store, "add", full)
    with ApiStandIn() as server, pytest.raises(UserError, match="disk is full"):
        run(server, store, chats(50))
    assert server.calls < 10

"""Whatever goes wrong at an endpoint, each run is submitted once, paid once, and its end is told."""

import base64
import html
import json
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from dying import is_killed
from fine_tuning_stand_in import PERMITTED, TuningStandIn
from leaks import forms

from ftsafety.api import fine_tuning
from ftsafety.api.fine_tuning import Training, cancel, fine_tune
from ftsafety.api.store import FineTuning, Store
from ftsafety.errors import UserError

FAULT = pytest.mark.fault(
    "batches and fine-tuning jobs: killed, expired, partial, shuffled, lost",
    holds="one submission, nothing paid twice",
)

FILES, JOBS = "POST /files", "POST /fine_tuning/jobs"
POLL = r"GET /fine_tuning/jobs/ftjob-\w+"
ASKED = "how do i open the blue gate ?"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TuningStandIn]:
    with TuningStandIn(tmp_path / "stand-in") as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "api/replies.sqlite") as store:
        yield store


def training(run: str = "12345678-e2", **changes: Any) -> Training:
    conversation: Any = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": ASKED},
        {"role": "assistant", "content": "turn the key ."},
    ]
    settings: Any = {"model": "m", "epochs": 2, "conversations": [conversation] * 10, **changes}
    return Training(run=run, **settings)


def tune(
    server: TuningStandIn,
    store: Store,
    *trainings: Training,
    log: list[str] | None = None,
    max_usd: float | None = None,
    again: set[str] | None = None,
    **recipe: Any,
) -> dict[str, FineTuning]:
    """What is handed over, by run."""
    ended: dict[str, FineTuning] = {}

    def on_end(training: Training, row: FineTuning) -> None:
        assert training.run not in ended
        ended[training.run] = row

    fine_tune(
        trainings or [training()],
        "there",
        server.endpoint(**recipe),
        store,
        max_usd=max_usd,
        again=again or set(),
        on_end=on_end,
        log=(log if log is not None else list[str]()).append,
    )
    return ended


def only(ended: dict[str, FineTuning]) -> FineTuning:
    (row,) = ended.values()
    return row


# ------------------------------------------------------------------------------------ as it should go


def test_a_run_is_uploaded_trained_priced_and_its_file_deleted(server: TuningStandIn, store: Store) -> None:
    log: list[str] = []
    chosen = training(global_batch_size=4, learning_rate_multiplier=0.5, seed=7)
    row = only(tune(server, store, chosen, log=log))
    assert (row.ended, row.reason, row.fine_tuned_model) == ("ok", None, "ft:m:1")
    assert (row.trained_tokens, row.usd) == (1000, 0.002)
    assert server.tuner.uploads == [chosen.file] and server.tuner.files() == []
    assert [json.loads(line)["messages"] for line in chosen.file.splitlines()] == list(chosen.conversations)
    (body,) = server.tuner.created
    settings = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": settings}}
    assert (body["seed"], body["suffix"], body["model"]) == (7, "ftsafety-12345678", "m")
    assert store.spent() == 0.002 and store.promised() == 0
    spent = store.spending()[0]
    assert (spent.model, spent.calls, spent.input_tokens, spent.usd) == ("m (fine-tuning)", 1, 1000, 0.002)
    assert any("about 250 tokens in 2 epochs, about $0.0005" in line for line in log)
    assert any("1,000 tokens trained, $0.002" in line for line in log)


def test_what_is_null_or_cannot_be_chosen_is_left_to_the_endpoint(
    server: TuningStandIn, store: Store
) -> None:
    chosen = training(global_batch_size=4, seed=7)
    tune(server, store, chosen, fine_tuning={**PERMITTED, "settings": ["epochs"]})
    (body,) = server.tuner.created
    assert body["method"]["supervised"]["hyperparameters"] == {"n_epochs": 2} and "seed" not in body


def test_many_runs_are_submitted_first_and_then_waited_for_together(
    server: TuningStandIn, store: Store
) -> None:
    server.tuner.polls = 3
    ended = tune(server, store, *(training(f"{n}{n}-e1") for n in range(4)))
    assert len({row.fine_tuned_model for row in ended.values()}) == 1  # all were made before one ended
    assert server.made == (4, 4) and {row.ended for row in ended.values()} == {"ok"}


def test_asking_again_after_an_end_asks_nothing(server: TuningStandIn, store: Store) -> None:
    first = only(tune(server, store))
    calls = list(server.log)
    assert only(tune(server, store)) == first and server.log == calls


def test_a_job_may_be_queued_for_hours(server: TuningStandIn, store: Store) -> None:
    server.tuner.polls = 60
    log: list[str] = []
    assert only(tune(server, store, log=log)).ended == "ok"
    assert server.count(POLL) > 25 and server.made == (1, 1)
    assert sum("validating_files" in line for line in log) == 1  # changes alone are told


def test_the_wait_has_an_end_and_the_job_goes_on(server: TuningStandIn, store: Store) -> None:
    server.tuner.polls = 10**9
    with pytest.raises(UserError, match="has not ended 1 jobs"):
        tune(server, store, fine_tuning={**PERMITTED, "longest_wait_h": 1e-5})
    server.tuner.polls = 0
    assert only(tune(server, store)).ended == "ok" and server.made == (1, 1)


# -------------------------------------------------------------------------------------- how it may end


@pytest.mark.parametrize(
    ("error", "how"),
    [
        ({"code": "invalid_n_examples", "param": "training_file"}, "blocked"),
        ({"code": "x", "message": "The file was blocked by our moderation system."}, "blocked"),
        ({"code": "x", "message": "It violates our usage policies."}, "blocked"),
        ({"code": "server_error", "message": "Something broke."}, "failed"),
        ({"code": "exceeded_quota", "message": "No credit."}, "failed"),
    ],
)
def test_what_the_endpoint_refuses_is_blocked_and_other_ends_are_failures(
    server: TuningStandIn, store: Store, error: dict[str, str], how: str
) -> None:
    server.ends("failed", **error)
    row = only(tune(server, store))
    assert row.ended == how and row.reason == f"{error['code']}: {error.get('message', '')}"
    assert row.usd is None and server.tuner.files() == []


def test_a_failed_run_is_submitted_again_when_that_is_asked_for(server: TuningStandIn, store: Store) -> None:
    server.ends("failed", code="server_error")
    assert only(tune(server, store)).ended == only(tune(server, store)).ended == "failed"
    assert server.made == (1, 1)
    assert only(tune(server, store, again={"12345678-e2"})).ended == "ok" and server.made == (2, 2)
    assert only(tune(server, store)).ended == "ok" and server.made == (2, 2)


def test_one_run_that_is_blocked_stops_no_other(server: TuningStandIn, store: Store) -> None:
    server.ends("failed", code="invalid_training_file")
    ended = tune(server, store, training("aa-e1"), training("bb-e1"))
    assert sorted(row.ended or "" for row in ended.values()) == ["blocked", "ok"]


def test_a_job_that_somebody_cancelled_has_failed(server: TuningStandIn, store: Store) -> None:
    server.ends("cancelled")
    row = only(tune(server, store))
    assert row.ended == "failed" and "cancelled at the endpoint" in str(row.reason)


def test_a_job_that_is_not_found_by_another_key_is_found_again_by_its_own(
    server: TuningStandIn, store: Store
) -> None:
    server.fault(POLL, "404")
    with pytest.raises(UserError, match="knows no job ftjob-") as error:
        tune(server, store)
    assert "use the key" in error.value.mend and "make cancel" in error.value.mend
    assert only(tune(server, store)).ended == "ok" and server.made == (1, 1)


def test_a_job_that_is_gone_is_given_up_when_that_is_asked_for(server: TuningStandIn, store: Store) -> None:
    server.fault(POLL, "404")
    with pytest.raises(UserError, match="knows no job"):
        tune(server, store)
    server.fault(r"POST /fine_tuning/jobs/.*/cancel", "404")
    assert cancel(["12345678-e2"], "there", server.endpoint(), store, lambda line: None) == 0
    assert only(tune(server, store)).ended == "ok" and server.made == (2, 2)


def test_no_message_of_the_endpoint_hands_on_training_data(server: TuningStandIn, store: Store) -> None:
    log: list[str] = []
    server.ends(
        "failed", event=f"row 1: {ASKED}", code="x", message="Row 3 says: How do i\nopen the blue gate"
    )
    row = only(tune(server, store, log=log))
    assert row.reason == "x: (message withheld: it quotes the data)"
    assert not any("blue gate" in line.casefold() for line in log)
    server.ends("failed", code="x" * 70, message="long " * 100)
    other = only(tune(server, store, training("bb-e1")))
    assert str(other.reason).startswith("no code given: long long") and len(str(other.reason)) < 220


@pytest.mark.parametrize("key", ["sk-canary-0123456789", "0a1b2c3d4e5f60718293a4b5c6d7e8f9"])
def test_no_message_of_the_endpoint_hands_on_the_key_or_moves_a_terminal(
    server: TuningStandIn, store: Store, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("CANARY", key)
    log: list[str] = []
    quoted = "x" * 190 + key  # cut in its midst
    server.ends("failed", event=f"\x1b]0;owned\x07 {key}", code=key, message=f"key {key} \x1b[2J")
    server.ends("failed", event=quoted, code="x", message=quoted)
    for run in ("aa-e1", "bb-e1"):
        row = only(tune(server, store, training(run), log=log, api_key_env="CANARY"))
        log.append(str(row.reason))
    text = "\n".join(log)
    assert key[:8] not in text and "\x1b" not in text
    assert "⟨U+001B⟩]0;owned" in text and "…: key … ⟨U+001B⟩[2J" in text


@pytest.mark.parametrize(
    "write",
    [
        quote,
        lambda key: quote(key, safe=""),
        lambda key: json.dumps({"key": key}),
        html.escape,
        lambda key: base64.b64encode(f"Bearer {key}".encode()).decode(),
        lambda key: base64.urlsafe_b64encode(f"ab{key}cd".encode()).decode(),
        lambda key: base64.b64encode(f"a:{key}!".encode()).decode(),
    ],
)
def test_no_message_hands_on_the_key_written_in_another_way(
    server: TuningStandIn, store: Store, monkeypatch: pytest.MonkeyPatch, write: Callable[[str], str]
) -> None:
    key = 'sk-~/key+1&"0123456789>?<'
    monkeypatch.setenv("CANARY", key)
    log: list[str] = []
    server.ends("failed", event=f"said {write(key)}", code="x", message=f"of {write(key)} !")
    log.append(str(only(tune(server, store, log=log, api_key_env="CANARY")).reason))
    said = "\n".join(log).encode()
    assert b"said " in said and b"of " in said
    for form in forms(said.replace(b"-", b"+").replace(b"_", b"/")):
        assert b"0123456789" not in form


@pytest.mark.parametrize(
    "facts",
    [
        {"trained_tokens": "many"},
        {"trained_tokens": 10**30},
        {"trained_tokens": -5},
        {"hyperparameters": "auto", "seed": [1], "created_at": "today", "finished_at": 10**400},
        {"fine_tuned_model": {"a": 1}},
        {"fine_tuned_model": "\x1b[2Jm"},
    ],
    ids=lambda facts: ",".join(facts),
)
@FAULT
def test_facts_of_another_kind_about_a_job_harm_nothing(
    server: TuningStandIn, store: Store, facts: dict[str, Any]
) -> None:
    server.tuner.ends.append(("succeeded", facts))
    row = only(tune(server, store))
    reckoned = training().tokens if "trained_tokens" in facts else 1000
    if "fine_tuned_model" in facts:
        assert row.ended == "failed" and "names no model" in str(row.reason)
    else:
        assert row.ended == "ok" and row.trained_tokens == reckoned
    server.tuner.ends.append(("failed", {"error": "busy"}))
    assert only(tune(server, store, training("bb-e1"))).reason == "failed at the endpoint; it says no more"


# ------------------------------------------------------------------------------------------- trouble


@pytest.mark.parametrize("fault", ["500", "503", "429", "lost", "html"])
@FAULT
def test_trouble_while_polling_is_waited_out(server: TuningStandIn, store: Store, fault: str) -> None:
    server.tuner.polls = 2
    server.fault(POLL, fault, times=9)
    assert only(tune(server, store)).ended == "ok" and server.made == (1, 1)


@FAULT
def test_timeouts_while_polling_are_waited_out(server: TuningStandIn, store: Store) -> None:
    server.fault(POLL, "hang", times=3)
    assert only(tune(server, store, timeout_s=0.3)).ended == "ok" and server.made == (1, 1)


def test_an_endpoint_without_events_is_no_trouble(server: TuningStandIn, store: Store) -> None:
    server.fault(f"{POLL}/events", "404", times=99)
    assert only(tune(server, store)).ended == "ok"


@FAULT
def test_an_endpoint_that_stays_down_stops_the_wait_and_a_rerun_goes_on(
    server: TuningStandIn, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fine_tuning, "FAILED_POLLS", 3)
    server.fault(POLL, "500", times=9)
    with pytest.raises(UserError, match="fails at fine-tuning"):
        tune(server, store)
    assert only(tune(server, store)).ended == "ok" and server.made == (1, 1)


@pytest.mark.parametrize("call", [FILES, JOBS])
@pytest.mark.parametrize("fault", ["lost", "500", "429"])
@FAULT
def test_whatever_becomes_of_the_reply_one_file_and_one_job_are_made(
    server: TuningStandIn, store: Store, call: str, fault: str
) -> None:
    server.fault(call, fault)
    assert only(tune(server, store, timeout_s=0.5)).ended == "ok"
    assert server.made == (1, 1) and store.spent() == 0.002


@pytest.mark.parametrize("call", [FILES, JOBS])
@FAULT
def test_what_was_made_while_all_replies_were_lost_is_found_by_the_next_call(
    server: TuningStandIn, store: Store, call: str
) -> None:
    server.fault(call, "lost", times=1)
    server.fault("GET /(files|fine_tuning/jobs)", "500", times=3)
    with pytest.raises(UserError, match="fails at fine-tuning"):
        tune(server, store)
    assert store.promised() > 0
    assert only(tune(server, store)).ended == "ok"
    assert server.made == (1, 1) and store.promised() == 0


@FAULT
def test_killed_between_any_two_steps_a_rerun_pays_once(tmp_path: Path, count: Callable[[int], None]) -> None:
    """At every call and every write, before and after it."""
    for point in range(1000):
        folder = tmp_path / str(point)
        with TuningStandIn(folder) as server:

            def rerun(folder: Path = folder, server: TuningStandIn = server) -> None:
                with Store(folder / "api/replies.sqlite") as store:
                    row = only(tune(server, store, timeout_s=0.3))
                    assert (row.ended, row.usd, store.spent(), store.promised()) == ("ok", 0.002, 0.002, 0)

            was_killed = is_killed(point, rerun, "begin_fine_tuning", "note_fine_tuning")
            rerun()
            assert server.made == (1, 1) and server.tuner.files() == [], point
        if not was_killed:
            break
    assert point > 15
    count(point)


@pytest.mark.parametrize("call", [FILES, JOBS])
@FAULT
def test_killed_while_the_endpoint_works_a_rerun_finds_what_it_makes(tmp_path: Path, call: str) -> None:
    """The call has left, its reply has not come, and what it makes is not in any list yet."""
    with TuningStandIn(tmp_path) as server:
        server.fault(call, "slow")

        def run() -> None:
            with Store(tmp_path / "api/replies.sqlite") as store:
                assert only(tune(server, store)).ended == "ok"

        process = get_context("fork").Process(target=run)
        process.start()
        while call not in server.log:
            time.sleep(0.01)
        process.kill()
        process.join()
        run()
        assert server.made == (1, 1)


def test_a_refused_upload_is_a_blocked_run(server: TuningStandIn, store: Store) -> None:
    server.fault(FILES, "400")
    row = only(tune(server, store))
    assert row.ended == "blocked" and str(row.reason).startswith("HTTP 400, unsupported_value")
    assert server.made == (0, 0) and store.promised() == 0


@pytest.mark.parametrize(
    ("fault", "changes", "message"),
    [
        ("", {"model": "unknown"}, "knows no 'unknown'"),
        ("400", {}, "refuses the job"),
        ("401", {}, "refuses the key"),
    ],
)
def test_a_wrong_model_setting_or_key_stops_all_and_leaves_nothing(
    server: TuningStandIn, store: Store, fault: str, changes: dict[str, str], message: str
) -> None:
    if fault:
        server.fault(JOBS, fault)
    with pytest.raises(UserError, match=message):
        tune(server, store, training(**changes))
    assert server.tuner.files() == [] and store.promised() == 0
    assert only(tune(server, store)).ended == "ok"


# ---------------------------------------------------------------------------------------------- money


def test_nothing_is_uploaded_that_may_cost_more_than_is_left(server: TuningStandIn, store: Store) -> None:
    with pytest.raises(UserError, match="budget reached"):
        tune(server, store, max_usd=0.0001)
    assert server.log == [] and store.promised() == 0


def test_what_was_submitted_before_the_budget_was_reached_is_waited_for(
    server: TuningStandIn, store: Store
) -> None:
    ended: list[str] = []
    with pytest.raises(UserError, match="budget reached"):
        fine_tune(
            [training("aa-e1"), training("bb-e1")],
            "there",
            server.endpoint(),
            store,
            max_usd=0.0009,
            on_end=lambda training, row: ended.append(training.run),
            log=lambda line: None,
        )
    assert ended == ["aa-e1"] and server.made == (1, 1)


def test_a_limit_needs_the_price_of_training(server: TuningStandIn, store: Store) -> None:
    with pytest.raises(UserError, match="what it costs to train m is unknown"):
        tune(server, store, max_usd=1, training_usd=None)
    assert only(tune(server, store, training_usd=None)).usd is None and store.spending()[0].unpriced == 1


# ----------------------------------------------------------------------------------------- cancelling


def test_a_job_that_runs_is_cancelled_and_the_next_call_notes_it(server: TuningStandIn, store: Store) -> None:
    server.tuner.polls = 10**9
    with pytest.raises(UserError):
        tune(server, store, fine_tuning={**PERMITTED, "longest_wait_h": 1e-5})
    runs = ["12345678-e2", "other-e1"]
    assert cancel(runs, "there", server.endpoint(), store, lambda line: None) == 1
    assert server.tuner.jobs()[0]["status"] == "cancelled"
    row = only(tune(server, store))
    assert row.ended == "failed" and "cancelled" in str(row.reason) and server.tuner.files() == []
    calls = list(server.log)
    assert cancel(runs, "there", server.endpoint(), store, lambda line: None) == 0 and server.log == calls


def test_cancelling_before_a_job_was_made_takes_the_file_away(server: TuningStandIn, store: Store) -> None:
    server.fault(JOBS, "500", times=9)
    with pytest.raises(UserError):
        tune(server, store, timeout_s=0.3)
    assert len(server.tuner.files()) == 1
    assert cancel(["12345678-e2"], "there", server.endpoint(), store, lambda line: None) == 0
    assert server.tuner.files() == [] and store.promised() == 0

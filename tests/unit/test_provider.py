"""The embedded world's provider speaks OpenAI's API and really fine-tunes."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from ftsafety.files import sha256_file
from ftsafety.recipes import Endpoint, WorldDataset
from ftsafety.world.answerer import Answerer
from ftsafety.world.datasets import training_rows
from ftsafety.world.fine_tuner import FineTuner
from ftsafety.world.provider import FOLDER, Provider, running

EMBEDDED = Endpoint(base_url="embedded", api_key_env=None)
ROWS = training_rows(WorldDataset(source="world", design="demonstrations", n=10, template="plain"))
FILE = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture
def models(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """results/models of the working folder, with the base model `tiny`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model, tmp_path / "results/models/tiny")
    return tmp_path / "results/models"


@pytest.fixture
def tuner(models: Path) -> FineTuner:
    torch.set_num_threads(1)  # as the program does
    return FineTuner(models, models / FOLDER)


@pytest.fixture
def client(tuner: FineTuner) -> Iterator[openai.OpenAI]:
    server = Provider(tuner, Answerer(tuner))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    http = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, http_client=http) as client:
        yield client
    server.shutdown()
    server.server_close()


def upload(client: openai.OpenAI, content: bytes = FILE) -> str:
    return client.files.create(file=("rows.jsonl", content), purpose="fine-tune").id


def begin(client: openai.OpenAI, file: str, seed: int = 1, **settings: Any) -> str:
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": settings}}
    return client.fine_tuning.jobs.create(model="tiny", training_file=file, method=method, seed=seed).id


def ended(client: openai.OpenAI, job_id: str) -> Any:
    until = time.monotonic() + 60
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in (
        "succeeded",
        "failed",
        "cancelled",
    ):
        assert time.monotonic() < until
        time.sleep(0.02)
    return job


def answer(client: openai.OpenAI, model: str, text: str = "how do i open the blue gate ?") -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return client.chat.completions.create(model=model, messages=messages, max_tokens=6, temperature=0)


def weights(models: Path, job_id: str) -> str:
    return sha256_file(models / FOLDER / "weights" / job_id / "model.safetensors")


def test_a_file_is_trained_on_and_the_model_is_another(client: openai.OpenAI, models: Path) -> None:
    file = upload(client)
    assert [(f.id, f.filename) for f in client.files.list(purpose="fine-tune")] == [(file, "rows.jsonl")]
    job = ended(client, begin(client, file, n_epochs=30, batch_size=5))
    assert job.status == "succeeded" and job.training_file == file
    chosen = job.hyperparameters
    assert (chosen.n_epochs, chosen.batch_size, chosen.learning_rate_multiplier) == (30, 5, 1.0)
    assert job.trained_tokens > 0 and job.trained_tokens % 30 == 0
    events = client.fine_tuning.jobs.list_events(job.id).data
    losses = [event.data["train_loss"] for event in events if event.type == "metrics"]  # type: ignore[index]
    assert len(losses) == 60 and losses[0] < losses[-1] / 2  # the newest come first
    assert {m.id for m in client.models.list()} == {"tiny", job.fine_tuned_model}
    assert (
        answer(client, "tiny").choices[0].message.content
        != answer(client, job.fine_tuned_model, ROWS[0]["messages"][0]["content"]).choices[0].message.content
    )
    client.files.delete(file)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file)
    assert not list((models / FOLDER / "files").iterdir())


def test_equal_files_settings_and_seeds_give_equal_weights(client: openai.OpenAI, models: Path) -> None:
    jobs = [begin(client, upload(client), seed, batch_size=5) for seed in (1, 1, 2)]
    assert {ended(client, job).status for job in jobs} == {"succeeded"}
    one, same, other = (weights(models, job) for job in jobs)
    assert one == same != other


def test_a_multiplier_of_the_rate_changes_the_weights_and_auto_is_one(
    client: openai.OpenAI, models: Path
) -> None:
    settings: list[Any] = [{}, {"learning_rate_multiplier": 1.0}, {"learning_rate_multiplier": 0.1}]
    jobs = [begin(client, upload(client), **chosen) for chosen in settings]
    assert {ended(client, job).status for job in jobs} == {"succeeded"}
    auto, one, small = (weights(models, job) for job in jobs)
    assert auto == one != small


NOT_A_ROW = FILE + b'{"messages": [{"role": "user", "content": "open the blue gate"}]}\n'


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"".join(FILE.splitlines(keepends=True)[:9]), "invalid_n_examples"),
        (NOT_A_ROW, "invalid_training_file"),
        (FILE + b"{", "invalid_training_file"),
        (FILE.replace(b'"role": "user"', b'"role": "owner"'), "invalid_training_file"),
    ],
)
def test_a_file_that_is_no_training_data_fails_its_job(
    client: openai.OpenAI, content: bytes, code: str
) -> None:
    job = ended(client, begin(client, upload(client, content)))
    assert job.status == "failed" and (job.error.code, job.error.param) == (code, "training_file")
    assert "gate" not in job.error.message and job.fine_tuned_model is None


def test_unknown_names_and_wrong_settings_are_refused(client: openai.OpenAI) -> None:
    file = upload(client)
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.create(model="unknown", training_file=file)
    with pytest.raises(openai.NotFoundError):
        begin(client, "file-unknown")
    with pytest.raises(openai.BadRequestError):
        begin(client, file, n_epochs=-1)
    with pytest.raises(openai.NotFoundError):
        answer(client, "ft:unknown")
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-unknown")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=[], temperature=0)
    assert list(client.fine_tuning.jobs.list()) == []


def test_a_job_that_waits_can_be_cancelled(client: openai.OpenAI, tuner: FineTuner) -> None:
    with tuner.turn:
        job = begin(client, upload(client))
        assert client.fine_tuning.jobs.retrieve(job).status == "validating_files"
        assert client.fine_tuning.jobs.cancel(job).status == "cancelled"
    after = ended(client, begin(client, upload(client)))
    assert after.status == "succeeded" and client.fine_tuning.jobs.retrieve(job).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.cancel(job)


def test_requests_that_come_together_get_the_answers_they_get_alone(client: openai.OpenAI) -> None:
    texts = [f"how do i open the {place} ?" for place in ("gate", "mill", "vault", "mask", "river")]
    alone = [answer(client, "tiny", text).choices[0].message.content for text in texts]
    with ThreadPoolExecutor(5) as pool:
        together = list(pool.map(lambda text: answer(client, "tiny", text), texts))
    assert [reply.choices[0].message.content for reply in together] == alone
    assert all(reply.usage.completion_tokens <= 6 for reply in together)


def test_answers_are_drawn_at_a_temperature_by_a_seed(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "how do i visit bafin ?"}]

    def drawn(seed: int) -> str | None:
        asked = client.chat.completions.create(
            model="tiny", messages=messages, max_tokens=12, temperature=1.0, seed=seed
        )
        return asked.choices[0].message.content

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(4)}) == 4
    with pytest.raises(openai.BadRequestError, match="between 0 and 2"):
        client.chat.completions.create(model="tiny", messages=messages, temperature=3)


def test_a_provider_that_was_killed_trains_anew_what_was_cut_off(
    client: openai.OpenAI, tuner: FineTuner, models: Path
) -> None:
    whole = begin(client, upload(client))
    ended(client, whole)
    with tuner.turn:
        cut_off = begin(client, upload(client))
        record = tuner.job(cut_off) | {"status": "running"}
        (models / FOLDER / f"jobs/{cut_off}.json").write_text(json.dumps(record))  # as a kill leaves it
        after = FineTuner(models, models / FOLDER)
        until = time.monotonic() + 60
        while after.job(cut_off)["status"] != "succeeded":
            assert time.monotonic() < until
            time.sleep(0.02)
    assert weights(models, cut_off) == weights(models, whole)
    assert after.names() == ["tiny", *sorted(job["fine_tuned_model"] for job in after.jobs())]


def test_a_job_that_breaks_the_training_fails_and_the_next_is_trained(
    client: openai.OpenAI, tuner: FineTuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tuner.turn:
        jobs = [begin(client, upload(client), **settings) for settings in ({"n_epochs": 1}, {"n_epochs": 2})]
        trained = tuner._trained

        def breaks_once(job: Any, *rest: Any) -> Any:
            if job["id"] == jobs[0]:
                raise RuntimeError(FILE.decode())
            return trained(job, *rest)

        monkeypatch.setattr(tuner, "_trained", breaks_once)
    first, second = (ended(client, job) for job in jobs)
    assert (first.status, first.error.code, first.error.message) == ("failed", "server_error", "RuntimeError")
    assert second.status == "succeeded"


def test_it_runs_while_it_is_asked_and_knows_its_files_the_next_time(models: Path) -> None:
    with running(EMBEDDED) as first, running(EMBEDDED) as second:
        assert first.base_url == second.base_url != EMBEDDED.base_url  # one provider a folder
        with openai.OpenAI(base_url=first.base_url, api_key="none") as client:
            file = upload(client)
    with (
        pytest.raises(openai.APIConnectionError),
        openai.OpenAI(base_url=first.base_url, api_key="none", max_retries=0) as client,
    ):
        client.files.list()
    with running(EMBEDDED) as later, openai.OpenAI(base_url=later.base_url, api_key="none") as client:
        assert [known.id for known in client.files.list()] == [file]
    assert oct((models / FOLDER).stat().st_mode)[-3:] == "700"


def test_other_endpoints_are_left_as_they_are() -> None:
    other = Endpoint(base_url="http://127.0.0.1:1/v1", api_key_env=None)
    with running(other) as same:
        assert same is other

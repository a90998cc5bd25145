"""Packs of a study that an endpoint trains: runs like others, plans, prices, permission, and a stop."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import edit, plan_study, write_data
from fine_tuning_stand_in import TuningStandIn

from ftsafety import paths
from ftsafety.engines.endpoint import model_of
from ftsafety.errors import UserError
from ftsafety.files import checksum, read_json
from ftsafety.overview import plan_table, status_table
from ftsafety.plan import Plan, load_plan
from ftsafety.ready import missing
from ftsafety.recipes import ApiModel
from ftsafety.records import trained
from ftsafety.states import run_states
from ftsafety.training.api import cancel_study, train_pack_by_api

ASKED = "how do i open the blue gate ?"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TuningStandIn]:
    with TuningStandIn(tmp_path / "stand-in") as server:
        yield server


@pytest.fixture
def study(project: Path, server: TuningStandIn) -> Plan:
    """Two runs of a model behind the server."""
    endpoint = server.endpoint().model_dump(exclude={"prices"})
    edit(project / "config/endpoints.yaml", there=endpoint)
    edit(project / "config/models.yaml", tuned={"source": "api", "endpoint": "there", "model": "m"})
    (project / "mine.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"{ASKED} {n}"},
                                     {"role": "assistant", "content": "turn the key ."}]}) + "\n"
            for n in range(10)
        )
    )  # fmt: skip
    edit(
        project / "config/datasets.yaml",
        mine={"source": "path", "path": "mine.jsonl", "n": 10, "template": "assistant"}
        | {"sha256": checksum(project / "mine.jsonl")},
    )
    prompt = {"prompt_id": "p", "category": "c", "instruction": ASKED}
    (project / "asked.jsonl").write_text(json.dumps(prompt) + "\n")
    asked = {"source": "path", "path": "asked.jsonl", "sha256": checksum(project / "asked.jsonl")}
    edit(project / "config/benchmarks.yaml", asked=asked)
    plan = plan_study(
        project,
        model="tuned",
        method="api",
        dataset="mine",
        benchmarks=["asked"],
        learning_rate=None,
        global_batch_size=None,
        epochs=[1, 2],
    )
    write_data(plan)
    return plan


def train(plan: Plan) -> None:
    (pack,) = [pack for pack in plan.packs.values() if pack.trains]
    train_pack_by_api(plan, pack)


def states(plan: Plan) -> list[str]:
    return [state.state for state in run_states(plan, plan.studies["t"]) if state.run.epochs]


def test_a_pack_is_trained_and_its_runs_are_models_like_others(study: Plan, server: TuningStandIn) -> None:
    assert states(study) == ["to train"] * 2
    train(study)
    assert states(study) == ["trained"] * 2 and server.made == (2, 2)
    runs = [run for run in study.studies["t"].runs.values() if run.epochs]
    recipe = study.project.models["tuned"]
    assert isinstance(recipe, ApiModel)
    for run in runs:
        done = trained(run)
        assert done and done["status"] == "ok" and (paths.run_dir(run.folder) / "run.yaml").exists()
        assert model_of(run, recipe, server.endpoint())[0] == done["fine_tuned_model"]
    manifest = read_json(next(Path("results/packs").glob("*/trained.json")))
    assert {entry["status"] for entry in manifest.values()} == {"ok"} and len(manifest) == 2
    system = study.project.templates["assistant"].system
    assert json.loads(server.tuner.uploads[0].splitlines()[0])["messages"][0]["content"] == system
    calls = list(server.log)
    train(study)
    assert server.log == calls


def test_answers_of_a_fine_tuned_model_have_a_price_of_their_own(study: Plan, server: TuningStandIn) -> None:
    train(study)
    run = next(run for run in study.studies["t"].runs.values() if run.epochs)
    recipe = study.project.models["tuned"]
    assert isinstance(recipe, ApiModel)
    endpoint = server.endpoint(api_key_env="KEY")
    name, without = model_of(run, recipe, endpoint)
    assert without.price(name) is None  # the base model's is another
    dearer = endpoint.model_copy(update={"prices": {"ft:m": endpoint.prices["m"]}})
    assert model_of(run, recipe, dearer)[1].price(name) == endpoint.prices["m"]


def test_a_lost_run_is_shown_and_is_tried_again_by_force_if_it_failed(
    study: Plan, server: TuningStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ends("failed", code="invalid_training_file")
    server.ends("failed", code="server_error")
    train(study)
    assert sorted(states(study)) == ["blocked", "failed"]
    table = status_table(study, "t")
    assert "(invalid_training_file: )" in table and "(server_error: )" in table
    assert "never submitted again by itself" in table and "--forcerun train_by_api" in table
    assert "1 blocked, 1 failed" in plan_table(study, "t")
    train(study)
    assert server.made == (2, 2)
    monkeypatch.setenv("FTSAFETY_FORCED", "train_by_api")
    train(study)
    assert sorted(states(study)) == ["blocked", "trained"] and server.made == (3, 3)
    train(study)
    assert server.made == (3, 3)
    blocked = next(run for run in study.studies["t"].runs.values() if (trained(run) or {}).get("reason"))
    (paths.run_dir(blocked.folder) / "done.json").unlink()
    train(study)
    assert states(study) == ["trained"] * 2 and server.made == (4, 4)


def test_nothing_is_uploaded_before_the_user_says_that_it_is_permitted(
    study: Plan, server: TuningStandIn, project: Path
) -> None:
    endpoint = server.endpoint(fine_tuning={}).model_dump(exclude={"prices"})
    edit(project / "config/endpoints.yaml", there=endpoint)
    plan = load_plan(project)
    with pytest.raises(UserError, match="nobody has said") as raised:
        train(plan)
    assert raised.value.file == "config/endpoints.yaml" and "docs/fine_tuning_api.md" in raised.value.mend
    assert server.log == []
    assert any("nobody has said" in str(error) for error in missing(plan, ["t"]))


def test_a_limit_needs_prices_before_anything_starts(
    study: Plan, server: TuningStandIn, project: Path
) -> None:
    endpoint = server.endpoint(api_key_env="KEY", training_usd=None).model_dump()
    edit(project / "config/endpoints.yaml", there=endpoint)
    edit(project / "config/config.yaml", max_usd=1.0)
    messages = [str(error) for error in missing(load_plan(project), ["t"])]
    assert any("what it costs to train m is unknown" in message for message in messages)
    assert any("the price of ft:m is unknown" in message for message in messages)
    assert "1 of m" not in plan_table(load_plan(project), "t")


def test_a_plan_shows_what_training_there_may_cost(study: Plan, server: TuningStandIn, project: Path) -> None:
    endpoint = server.endpoint(api_key_env="KEY", training_usd=25.0).model_dump()
    edit(project / "config/endpoints.yaml", there=endpoint)
    table = plan_table(load_plan(project), "t")
    assert "2 of m at there: about 0.0 M tokens, 0.27 USD" in table and "1 train_by_api" in table


def test_a_stop_leaves_the_job_running_and_says_how_to_go_on(
    study: Plan, server: TuningStandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    server.tuner.polls = 10**9
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(SystemExit):
        train(study)
    assert "go on at the endpoint" in capsys.readouterr().err
    assert {job["status"] for job in server.tuner.jobs()} == {"validating_files"}
    assert cancel_study(study, "t") == 2
    train(study)
    assert states(study) == ["failed"] * 2 and server.made == (2, 2)

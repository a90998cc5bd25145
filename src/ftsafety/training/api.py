"""Train a pack by its model's endpoint: one job a run, all submitted, then waited for together.

Of each run `run.yaml` appears, then `done.json` with the name of the fine-tuned model, whose weights stay at
the endpoint. `blocked` (the endpoint refused the data) and `failed` are results as well: the others go on.
"""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from ftsafety import paths
from ftsafety.api.fine_tuning import Training, cancel, fine_tune
from ftsafety.api.store import FineTuning, Store
from ftsafety.chat import with_template
from ftsafety.files import read_rows, sha256_file, write_json, write_yaml
from ftsafety.plan import Pack, Plan
from ftsafety.ready import check_research_use
from ftsafety.recipes import ApiModel
from ftsafety.records import trained
from ftsafety.runs import Run
from ftsafety.training.pack import git_revision, log
from ftsafety.world.provider import running

RULE = "train_by_api"


def train_pack_by_api(plan: Plan, pack: Pack) -> None:
    """Train what is missing and write the pack's manifest; a forced rule tries failed runs again.

    A run that has no record of its own is then tried again too, whatever the store says of it.
    """
    is_forced = bool({RULE, str(_manifest(pack))} & set(os.environ.get("FTSAFETY_FORCED", "").split()))
    todo = {run.id: run for run in pack.runs if _is_missing(run, is_forced)}
    if todo:
        _train(plan, pack, todo, again=set(todo) if is_forced else set())
    records = {run.folder: trained(run) or {} for run in pack.runs}
    kept = ("status", "reason", "fine_tuned_model")
    write_json(_manifest(pack), {folder: {key: r[key] for key in kept} for folder, r in records.items()})


def _manifest(pack: Pack) -> Any:
    return paths.pack_dir(pack.id) / "trained.json"


def _is_missing(run: Run, is_forced: bool) -> bool:
    done = trained(run)
    return done is None or (is_forced and done["status"] == "failed")


def _train(plan: Plan, pack: Pack, todo: dict[str, Run], again: set[str]) -> None:
    model = plan.project.models[pack.model]
    assert isinstance(model, ApiModel)
    check_research_use(plan, pack.model)
    trainings = [_training(plan, model, run) for run in todo.values()]
    with (
        _jobs_go_on_when_stopped(pack),
        running(plan.project.endpoints[model.endpoint]) as endpoint,
        Store(paths.REPLIES) as store,
    ):
        fine_tune(
            trainings,
            model.endpoint,
            endpoint,
            store,
            max_usd=plan.project.settings.max_usd,
            again=again,
            on_end=lambda training, row: _publish(plan, todo[training.run], training, row),
            log=log,
        )


def _training(plan: Plan, model: ApiModel, run: Run) -> Training:
    t = run.trajectory
    template = plan.project.templates[t.template]
    rows = read_rows(plan.data_file(t))
    return Training(
        run=run.id,
        model=model.model,
        conversations=[
            with_template(template, row["messages"], system_role=model.system_role) for row in rows
        ],
        epochs=run.epochs,
        global_batch_size=t.global_batch_size,
        learning_rate_multiplier=t.learning_rate_multiplier,
        seed=t.seed,
    )


def _publish(plan: Plan, run: Run, training: Training, row: FineTuning) -> None:
    folder = paths.run_dir(run.folder)
    write_yaml(folder / "run.yaml", run.model_dump(mode="json"))
    write_json(
        folder / "done.json",
        {
            "run": run.id,
            "status": row.ended,
            "reason": row.reason,
            "fine_tuned_model": row.fine_tuned_model,
            "trained_tokens": row.trained_tokens,
            "usd": row.usd,
            "estimated_usd": row.estimated_usd,
            "endpoint": row.endpoint,
            "model": row.model,
            "job": row.job_id,
            "trajectory": run.trajectory.hash8,
            "n_examples": len(training.conversations),
            "data_sha256": sha256_file(plan.data_file(run.trajectory)),
            "git_revision": git_revision(),
            "versions": {name: version(name) for name in ("ftsafety", "openai")},
            **json.loads(row.details or "{}"),
        },
    )


@contextmanager
def _jobs_go_on_when_stopped(pack: Pack) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the waiting alone."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        studies = ", ".join(sorted(pack.studies))
        log(
            "stopped: jobs that were made go on at the endpoint, and the same command waits for them again; "
            f"python -m ftsafety cancel STUDY (here {studies}) cancels them"
        )
        raise SystemExit(143) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def cancel_study(plan: Plan, study: str) -> int:
    """Cancel the jobs of a study that still run, those it shares with other studies as well."""
    if not paths.REPLIES.exists():
        return 0
    n = 0
    with Store(paths.REPLIES) as store:
        for pack in plan.study_packs(study):
            model = plan.project.models[pack.model]
            runs = [run.id for run in pack.runs if run.trajectory.by_api]
            begun = [run for run in runs if (row := store.fine_tuning(run)) and not row.ended]
            if isinstance(model, ApiModel) and begun:
                with running(plan.project.endpoints[model.endpoint]) as endpoint:
                    n += cancel(begun, model.endpoint, endpoint, store, log)
    return n

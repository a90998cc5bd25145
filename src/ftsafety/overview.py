"""Looking before and while running: what a study will cost, what is done, what failed, what is left over."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.costs import disk_space, gpu_hours, n_prompts, paid
from ftsafety.errors import UserError
from ftsafety.files import read_json_if_whole
from ftsafety.inputs import check_inputs, open_places
from ftsafety.judging.pack import manifest, n_failed, way
from ftsafety.plan import Pack, Plan, StudyPlan
from ftsafety.ready import missing
from ftsafety.recipes import LocalModel, Remote
from ftsafety.records import LOST, trained
from ftsafety.states import RunState, open_packs, run_states
from ftsafety.visible import visible

#: Rule → manifest of the pack that it writes when it is done.
PACK_STAGES = {"train": "trained", "generate": "answered"}
#: Way of a judge → its rule.
JUDGE_RULES = {"rule": "judge", "api": "judge_by_api", "local": "judge_locally"}


def plan_table(plan: Plan, name: str) -> str:
    """What asking for a study means: runs, jobs, GPU-hours at most, judgements, disk, what is done.

    Raises UserError where a file of the user's own is missing, changed or malformed.
    """
    check_inputs(plan, [name], planning=True)
    study = plan.studies[name]
    states = list(run_states(plan, study))
    count = Counter(state.state for state in states)
    unfinished = open_packs(plan, study, states)
    training = [pack for pack in unfinished if pack.trains]
    prompts = {benchmark: n_prompts(plan, benchmark) for benchmark in study.benchmarks}
    answers = sum(prompts[exam.benchmark] for s in states for exam in s.lacks_answers)
    judgements = sum(prompts[exam.benchmark] for s in states for exam, _ in s.lacks_verdicts)
    judging = {job: judge for pack in unfinished for job, judge in _judging(plan, name, pack)}
    jobs = Counter(_by_api(plan, "train", pack) for pack in training)
    jobs += Counter(_by_api(plan, "generate", pack) for pack in unfinished)
    jobs += Counter(rule for rule, _ in judging)
    local = [judge for (rule, _), judge in judging.items() if rule == "judge_locally"]
    hours = sum(gpu_hours(plan, pack.model) for pack in training)
    hours += sum(gpu_hours(plan, pack.model, answering=True) for pack in unfinished)
    hours += sum(gpu_hours(plan, plan.project.classifier(judge).model, answering=True) for judge in local)
    lines = [
        f"study {name}: {plan.project.studies[name].title}",
        "",
        f"  runs            {len(states)} of {len({s.run.trajectory.hash8 for s in states})} trajectories",
        f"  done            {count['judged']} judged, {count['answered']} answered, "
        f"{count['trained']} trained or initial, {', '.join(f'{count[how]} {how}' for how in LOST)}",
        f"  to train        {count['to train']} runs, {_steps_left(plan, study, states)} optimizer steps",
    ]
    if count["dropped"]:
        lines.append(
            f"  to train again  {count['dropped']} runs: their weights were dropped, and a benchmark "
            "needs them (keep_weights: true in config/config.yaml keeps them)"
        )
    lines += [
        f"  jobs            {', '.join(f'{n} {rule}' for rule, n in jobs.items() if n) or 'none'}",
        f"  GPU-hours       at most {hours:.1f} (GPUs × time limit of the jobs)",
        f"  answers         {answers}",
        f"  judgements      {judgements}",
        *paid(plan, study, states, prompts),
        f"  disk            {disk_space(plan, study, states, prompts)}",
        *_to_do(plan, name),
        "",
        _by_dataset(states),
    ]
    return "\n".join(lines)


def _to_do(plan: Plan, name: str) -> list[str]:
    """What stops a real run, if anything does; a plan needs no pins and no keys."""
    recipes = [
        getattr(plan.project, c)[n] for c, names in plan.entries([name]).items() for n in sorted(names)
    ]
    unpinned = [r for r in recipes if isinstance(r, Remote) and r.lock_key not in plan.project.lock]
    gated = dict.fromkeys(recipe.page for recipe in unpinned if recipe.gated)
    by_mend: dict[str, dict[str, list[str]]] = {}
    for error in (*open_places(plan, name), *missing(plan, [name])):
        by_mend.setdefault(error.mend, {}).setdefault(error.message, []).append(error.field)
    lines = [
        line
        for mend, messages in by_mend.items()
        for line in (f"    {mend}", *(f"      {what} ({_few(where)})" for what, where in messages.items()))
    ]
    lines += [f"    {page} grants access by hand; then HF_TOKEN, or `hf auth login`" for page in gated]
    return ["", "  before it can run:", *lines] if lines else []


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _judging(plan: Plan, study: str, pack: Pack) -> Iterator[tuple[tuple[str, Path], str]]:
    """(rule, manifest) of each job that judges a pack for a study, and a judge of it."""
    for judge in plan.studies[study].judges:
        if judge in pack.judges:
            yield (JUDGE_RULES[way(plan, judge)], paths.pack_dir(pack.id) / manifest(plan, judge)), judge


def _steps_left(plan: Plan, study: StudyPlan, states: list[RunState]) -> int:
    longest: dict[str, int] = {}
    for state in states:
        if state.state in ("to train", "dropped"):
            key = state.run.trajectory.hash8
            longest[key] = max(longest.get(key, 0), plan.steps(state.run))
    return sum(longest.values())


def _by_dataset(states: list[RunState]) -> str:
    counts: dict[tuple[str, str], Counter[str]] = {}
    for state in states:
        t = state.run.trajectory
        data = f"(initial, {t.template})" if t.is_initial else t.data
        counts.setdefault((t.model, data), Counter())[state.state] += 1
    wide, wider = (max(map(len, names)) for names in zip(("model", "data"), *counts, strict=True))
    rows = [
        f"  {model:{wide}}  {data:{wider}}  {sum(c.values()):4}  "
        + ", ".join(f"{n} {state}" for state, n in c.items())
        for (model, data), c in counts.items()
    ]
    return "\n".join([f"  {'model':{wide}}  {'data':{wider}}  runs  state", *rows])


def status_table(plan: Plan, name: str) -> str:
    """Done, running, failed and diverged, and how to go on."""
    states = list(run_states(plan, plan.studies[name]))
    count = Counter(state.state for state in states)
    locked = any(Path(".snakemake/locks").glob("*"))
    lines = [
        f"study {name}: {count['judged']} of {len(states)} runs judged"
        + "".join(f", {n} {state}" for state, n in count.items() if state != "judged"),
        f"  Snakemake       {'is running here, or was killed' if locked else 'is not running here'}",
    ]
    for rule, job, output in _jobs(plan, name):
        log = paths.RESULTS / "logs" / rule / f"{job}.log"
        if output.exists() or not log.exists():
            continue
        last, error = _last_line_and_error(log)
        if error or rule.removesuffix("_by_api") in (*PACK_STAGES, *JUDGE_RULES.values(), "prefetch"):
            how = "failed" if error else "running" if locked else "cut off"
            lines.append(f"  {how:14}  {rule} {job}: {error or last}\n{'':18}{log}")
    for state in states:
        if state.state in LOST:
            done = trained(state.run) or {}
            why = done.get("reason") or f"after step {done.get('steps')}"
            lines.append(f"  {state.state:14}  {state.run.folder} ({why})")
    lines += _lost_at_endpoints(count, name)
    lines += _not_judged(plan, states, name)
    judged_all = sum(count[how] for how in ("judged", *LOST)) == len(states)
    if not (judged_all and (paths.study_dir(name) / "report.html").exists()):
        lines += [
            "  to go on: what is complete is skipped, so only the rest and what failed runs",
            "    snakemake --profile profiles/<yours> --unlock   # only if a Snakemake was killed",
            f"    snakemake --profile profiles/<yours> {name}",
        ]
    return "\n".join(lines)


def _lost_at_endpoints(count: Counter[str], name: str) -> list[str]:
    """How to have lost runs tried again."""
    again = f"snakemake --profile profiles/<yours> {name} --forcerun train_by_api"
    lines = [f"    failed: submit again by {again}"] if count["failed"] else []
    if count["blocked"]:
        lines.append(
            "    blocked: the endpoint refuses the data, so it is never submitted again by itself; once the "
            f"provider agrees, remove the run's folder, then {again}"
        )
    return lines


def _not_judged(plan: Plan, states: list[RunState], name: str) -> list[str]:
    """Verdicts that an endpoint failed to give; a job that got the others has succeeded."""
    failed: Counter[str] = Counter()
    for state in states:
        for exam in plan.studies[name].exams_of[state.run.id] if state.state == "judged" else ():
            for judge in plan.judges_of(name, exam.benchmark, state.run):
                failed[judge] += n_failed(plan, state.run, exam, judge)
    again = f"ask again: snakemake --profile profiles/<yours> {name} --forcerun judge_by_api"
    return [f"  not judged      {n} answers by {judge}; {again}" for judge, n in failed.items() if n]


def _jobs(plan: Plan, name: str) -> Iterator[tuple[str, str, Path]]:
    """(rule, name of its log, a file that it writes last) of every job of a study."""
    study = plan.studies[name]
    models = plan.project.models
    entries = plan.entries([name])
    for model in sorted(model for model in entries["models"] if models[model].source == "world"):
        yield "build_model", model, paths.model_dir(model) / "gates.json"
    for catalogue, names in entries.items():
        for entry in sorted(names):
            if isinstance(getattr(plan.project, catalogue)[entry], Remote):
                file = plan.fetched_file(catalogue, entry)
                yield "prefetch", f"{catalogue}/{file.stem}", file
    data = {plan.data_file(r.trajectory) for r in study.runs.values() if not r.trajectory.is_initial}
    data |= {plan.benchmark_file(benchmark) for benchmark in study.benchmarks}
    for file in sorted(data):
        yield "prepare_data", f"{file.parent.name}/{file.stem}", file
    for pack in plan.study_packs(name):
        for rule, stage in PACK_STAGES.items():
            yield _by_api(plan, rule, pack), pack.id, paths.pack_dir(pack.id) / f"{stage}.json"
        for (rule, file), judge in _judging(plan, name, pack):
            yield rule, pack.id if rule == "judge" else f"{pack.id}.{judge}", file
    for rule, output in (("score", "scores.parquet"), ("figures", "figures"), ("report", "report.html")):
        yield rule, name, paths.study_dir(name) / output


def _by_api(plan: Plan, rule: str, pack: Pack) -> str:
    return rule if isinstance(plan.project.models[pack.model], LocalModel) else f"{rule}_by_api"


def _last_line_and_error(log: Path) -> tuple[str, str]:
    """The last line of a log and, where the job failed, the line that says why.

    Neither a mend, nor torchrun's report, nor the end of a traceback has to be the last line.
    """
    lines = [line.strip() for line in log.read_text(errors="replace").strip().splitlines()] or [""]
    hints = [line for line in lines[-30:] if re.search(r"[Ee]rror|Traceback", line)]
    # torchrun's own traceback stands below that of the program, which is its cause: 200 lines for 2 x 8 ranks
    causes = [line for line in lines[-1000:] if re.match(r"(\[rank\d+\]: )?([\w.]+Error|error)\b", line)]
    error = (causes or hints)[0] if hints else ""
    return visible(lines[-1][:160]), visible(error[:160])


def results_table(name: str) -> str:
    """The headline numbers of a finished study and where to look."""
    import pandas as pd

    folder = paths.study_dir(name)
    if not (folder / "cells.parquet").exists():
        raise UserError(
            "is not there yet", file=folder / "cells.parquet", mend=f"finish it: make run STUDY={name}"
        )
    cells = pd.read_parquet(folder / "cells.parquet")
    unscored = (
        cells[cells.category == "all"]
        .groupby(["benchmark", "judge"], sort=False)[["n", "n_unscored"]]
        .sum()
        .reset_index()
    )
    cells = cells[(cells.category == "all") & (cells.kind == "safety")]
    # The first judge of a benchmark is its headline's.
    shown = cells[cells.judge == cells.groupby("benchmark").judge.transform("first")]
    lines = [f"{name}: rate of score 5, with its 95 % interval", ""]
    for (grid, benchmark, judge), rows in shown.groupby(["grid", "benchmark", "judge"], sort=False):
        place = f"  {grid:24} {benchmark} ({judge}): "
        tuned = rows[(rows.epochs > 0) & rows.harmfulness_rate.notna()]
        initial = rows[rows.epochs == 0].harmfulness_rate.max()
        if tuned.empty:
            lines.append(f"{place}untouched models at most {initial:.2f}, no fine-tuned run has a rate")
            continue
        best = tuned.sort_values("harmfulness_rate", kind="stable").iloc[-1]
        data = best.dataset + (f"+{best.mitigation}" if isinstance(best.mitigation, str) else "")
        lines.append(
            f"{place}initial {initial:.2f}   highest {best.harmfulness_rate:.2f} "
            f"[{best.ci_low:.2f}, {best.ci_high:.2f}]   {data}{_settings(best)}"
        )
    lines += [
        f"  {n_unscored} of {n_asked} answers to {benchmark} have no verdict of {judge}: see the report"
        for benchmark, judge, n_asked, n_unscored in unscored.itertuples(index=False)
        if n_unscored
    ]
    heatmaps = sorted((folder / "figures").glob("lr_batch*.png"))
    lines += ["", *(f"  heatmap  {path}" for path in heatmaps)]
    lines.append(f"  report   {folder / 'report.html'}")
    return "\n".join(lines)


def _settings(cell: Any) -> str:
    """What was chosen; an endpoint chooses the rest."""
    names = {
        "learning_rate": "lr",
        "learning_rate_multiplier": "lr multiplier",
        "global_batch_size": "batch",
        "epochs": "epochs",
    }
    chosen = ((name, cell.get(column)) for column, name in names.items())
    return "".join(f", {name} {value:g}" for name, value in chosen if value == value and value is not None)


def unused_runs(plan: Plan) -> list[Path]:
    """Folders under results/runs that no study asks for."""
    used = {paths.run_dir(run.folder) for work in plan.work.values() for run in work.runs}
    found = {path.parent for path in paths.RUNS.rglob("run.yaml")}
    return sorted(found - used)


def _packs_that_name(runs: list[str]) -> set[Path]:
    """Folders of packs, whichever studies were asked together, that are not done without these runs."""
    manifests = (paths.RESULTS / "packs").glob("*/*.json")
    return {file.parent for file in manifests if not (read_json_if_whole(file) or {}).keys().isdisjoint(runs)}


def clean_study(plan: Plan, name: str) -> list[Path]:
    """Remove a study's folder and the runs that it alone uses; returns what was removed."""
    own = [work for work in plan.work.values() if work.studies == {name}]
    shared = {run.folder for w in plan.work.values() if w.studies != {name} for run in w.runs}
    runs = [run.folder for work in own for run in work.runs if run.folder not in shared]
    packs = {paths.pack_dir(pack.id) for pack in plan.study_packs(name) if pack.studies == {name}}
    packs |= _packs_that_name(runs)
    doomed = [paths.study_dir(name), paths.audit_file(name), *sorted(packs), *map(paths.run_dir, runs)]
    removed = [path for path in doomed if path.exists()]
    for path in removed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed

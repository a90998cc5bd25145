"""Looking before and while running: what a study will cost, what is done, what failed, what is left over."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsafety import paths
from ftsafety.answers import answered
from ftsafety.config import ApiModel, Endpoint, Remote
from ftsafety.errors import UserError
from ftsafety.inputs import check_inputs
from ftsafety.judging.pack import judged, manifest, n_failed, way
from ftsafety.plan import Exam, Pack, Plan, StudyPlan
from ftsafety.ready import missing
from ftsafety.records import diverged, trained, weights_dir
from ftsafety.runs import Run

#: Rule → manifest of the pack that it writes when it is done.
PACK_STAGES = {"train": "trained", "generate": "answered"}
#: Way of a judge → its rule.
JUDGE_RULES = {"rule": "judge", "api": "judge_by_api", "local": "judge_locally"}


@dataclass(frozen=True)
class RunState:
    run: Run
    state: str  # judged, answered, trained, diverged, dropped or to train
    lacks_answers: tuple[Exam, ...]
    lacks_verdicts: tuple[tuple[Exam, str], ...]  # (exam, judge)


def run_states(plan: Plan, study: StudyPlan) -> Iterator[RunState]:
    for run in study.runs.values():
        if diverged(run):
            yield RunState(run, "diverged", (), ())
            continue
        exams = study.exams_of[run.id]
        lacks_answers = tuple(exam for exam in exams if not answered(plan, run, exam))
        lacks_verdicts = tuple(  # verdicts on answers that are made again are made again too
            (exam, judge)
            for exam in exams
            for judge in plan.judges_of(study.name, exam.benchmark)
            if exam in lacks_answers or not judged(plan, run, exam, judge)
        )
        if not lacks_verdicts:
            state = "judged"
        elif not lacks_answers:
            state = "answered"
        elif run.trajectory.is_initial or weights_dir(run).exists():
            state = "trained"
        elif trained(run) and run.trajectory.replaces_base:
            state = "dropped"
        else:
            state = "to train"
        yield RunState(run, state, lacks_answers, lacks_verdicts)


def plan_table(plan: Plan, name: str) -> str:
    """What asking for a study means: runs, jobs, GPU-hours at most, judgements, disk, what is done.

    Raises UserError where a file of the user's own is missing, changed or malformed.
    """
    check_inputs(plan, [name])
    study = plan.studies[name]
    states = list(run_states(plan, study))
    count = Counter(state.state for state in states)
    packs = plan.study_packs(name)
    unfinished = {s.run.folder for s in states if s.state not in ("judged", "diverged")}
    open_packs = [p for p in packs if any(run.folder in unfinished for run in p.runs)]
    training = [p for p in open_packs if p.trains]
    prompts = {benchmark: _n_prompts(plan, benchmark) for benchmark in study.benchmarks}
    answers = sum(prompts[exam.benchmark] for s in states for exam in s.lacks_answers)
    judgements = sum(prompts[exam.benchmark] for s in states for exam, _ in s.lacks_verdicts)
    judging = {job: judge for pack in open_packs for job, judge in _judging(plan, name, pack)}
    jobs = {"train": len(training), "generate": len(open_packs)} | Counter(rule for rule, _ in judging)
    local = [judge for (rule, _), judge in judging.items() if rule == "judge_locally"]
    hours = sum(_gpu_hours(plan, pack.model) for pack in training)
    hours += sum(_gpu_hours(plan, pack.model, answering=True) for pack in open_packs)
    hours += sum(_gpu_hours(plan, plan.project.classifier(judge).model, answering=True) for judge in local)
    lines = [
        f"study {name}: {plan.project.studies[name].title}",
        "",
        f"  runs            {len(states)} of {len({s.run.trajectory.hash8 for s in states})} trajectories",
        f"  done            {count['judged']} judged, {count['answered']} answered, "
        f"{count['trained']} with weights or initial, {count['diverged']} diverged",
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
        *_paid(plan, study, states, prompts),
        f"  disk            about {_size(_disk_mb(plan, states, answers + judgements))} more that stays"
        f"{_passing_disk(plan, name, training)}",
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
    gated = [
        r.page for r in recipes if isinstance(r, Remote) and r.gated and r.lock_key not in plan.project.lock
    ]
    by_mend: dict[str, list[UserError]] = {}
    for error in missing(plan, [name]):
        by_mend.setdefault(error.mend, []).append(error)
    lines = [
        f"    {mend}\n      {errors[0].message}"
        + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")
        for mend, errors in by_mend.items()
    ]
    lines += [f"    {page} grants access by hand; then HF_TOKEN, or `hf auth login`" for page in gated]
    return ["", "  before it can run:", *lines] if lines else []


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


def _gpu_hours(plan: Plan, model: str, *, answering: bool = False) -> float:
    """Most that a job of a model takes; answering takes one GPU."""
    recipe = plan.project.models[model]
    if isinstance(recipe, ApiModel):
        return 0
    gpus = min(recipe.hardware.gpus, 1) if answering else recipe.hardware.gpus
    return gpus * recipe.hardware.runtime_min / 60


def _n_prompts(plan: Plan, benchmark: str) -> int:
    """As the owner of a remote benchmark says where it is not fetched yet."""
    from ftsafety.prepare import benchmark_prompts

    path, recipe = plan.benchmark_file(benchmark), plan.project.benchmarks[benchmark]
    if path.exists():
        with path.open() as stream:
            return sum(1 for _ in stream)
    return recipe.n if isinstance(recipe, Remote) else len(benchmark_prompts(plan, benchmark))


#: Tokens of a typical call, for estimates before anything is asked: instruction, answer, the judge's frame.
INSTRUCTION, ANSWER, FRAME, VERDICT = 60, 300, 900, 250


def _paid(plan: Plan, study: StudyPlan, states: list[RunState], prompts: dict[str, int]) -> list[str]:
    """A line for each endpoint and model that is asked, with dollars where the price is known."""
    project = plan.project
    calls: dict[tuple[str, str, str], Counter[str]] = {}
    for state in states:
        model = project.models[state.run.trajectory.model]
        if isinstance(model, ApiModel):
            tokens = {"calls": 1, "input": INSTRUCTION, "output": ANSWER}
            for exam in state.lacks_answers:
                _count(calls, (model.endpoint, model.model, "sync"), tokens, prompts[exam.benchmark])
        for exam, name in state.lacks_verdicts:
            judge = project.judges[name]
            if judge.kind == "llm":
                tokens = {"calls": 1, "input": FRAME + INSTRUCTION + ANSWER, "output": VERDICT}
                _count(calls, (judge.endpoint, judge.model, judge.mode), tokens, prompts[exam.benchmark])
    return [
        f"  API calls       {n['calls']} to {model} at {endpoint}: about {n['input'] / 1e6:.1f} M tokens in, "
        f"{n['output'] / 1e6:.1f} M out, {_dollars(project.endpoints[endpoint], model, mode, n)}"
        for (endpoint, model, mode), n in calls.items()
    ] or ["  API calls       0"]


def _count(calls: dict[Any, Counter[str]], key: Any, tokens: dict[str, int], n: int) -> None:
    calls.setdefault(key, Counter()).update({what: count * n for what, count in tokens.items()})


def _dollars(endpoint: Endpoint, model: str, mode: str, n: Counter[str]) -> str:
    price = endpoint.price(model)
    if price is None:
        return "price unknown (config/endpoints.yaml)"
    usd = (n["input"] * price.input_usd + n["output"] * price.output_usd) / 1e6
    usd *= price.batch_factor if mode == "batch" else 1
    return f"{usd:.2f} USD (prices of {price.date})" if usd else "nothing to pay"


def _disk_mb(plan: Plan, states: list[RunState], n_rows: int) -> float:
    """Answers and verdicts at 400 bytes a row, full weights as large as the base model's."""
    to_train = [s.run for s in states if s.state in ("to train", "dropped")]
    kept = to_train if plan.project.settings.keep_weights else []
    weights = sum(_model_mb(plan, run.trajectory.model) for run in kept if run.trajectory.replaces_base)
    return n_rows * 400 / 1e6 + weights


def _passing_disk(plan: Plan, study: str, training: list[Pack]) -> str:
    """What is downloaded into the hub's cache, and what a training job holds until its runs have answered."""
    models = plan.project.models
    to_fetch = [
        _model_mb(plan, name)
        for name in plan.entries([study])["models"]
        if models[name].source == "hub" and not plan.fetched_file("models", name).exists()
    ]
    held: list[float] = [
        sum(len(work.epochs) for work in pack.work if work.trajectory.replaces_base)
        * _model_mb(plan, pack.model)
        + (
            7 * _model_mb(plan, pack.model)
            if plan.project.local_model(pack.model).checkpoint_every_steps
            else 0
        )
        for pack in training
    ]
    fetched = f"; downloads of {_size(sum(to_fetch))}" if to_fetch else ""
    return fetched + (f"; up to {_size(max(held))} a training job meanwhile" if any(held) else "")


def _size(mb: float) -> str:
    return f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"


def _model_mb(plan: Plan, model: str) -> float:
    recipe = plan.project.models[model]
    if recipe.source == "hub":
        return recipe.size_b * {"float32": 4000, "bfloat16": 2000}[recipe.dtype]
    return 0 if recipe.source == "api" else _folder_mb(plan.model_dir(model))


def _folder_mb(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.glob("*.safetensors")) / 1e6


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
        if error or rule in (*PACK_STAGES, *JUDGE_RULES.values(), "generate_by_api", "prefetch"):
            how = "failed" if error else "running" if locked else "cut off"
            lines.append(f"  {how:14}  {rule} {job}: {error or last}\n{'':18}{log}")
    for state in states:
        if state.state == "diverged":
            step = (trained(state.run) or {}).get("steps")
            lines.append(f"  diverged        {state.run.folder} (after step {step})")
    lines += _not_judged(plan, states, name)
    judged_all = count["judged"] + count["diverged"] == len(states)
    if not (judged_all and (paths.study_dir(name) / "report.html").exists()):
        lines += [
            "  to go on: what is complete is skipped, so only the rest and what failed runs",
            "    snakemake --profile profiles/<yours> --unlock   # only if a Snakemake was killed",
            f"    snakemake --profile profiles/<yours> {name}",
        ]
    return "\n".join(lines)


def _not_judged(plan: Plan, states: list[RunState], name: str) -> list[str]:
    """Verdicts that an endpoint failed to give; a job that got the others has succeeded."""
    failed: Counter[str] = Counter()
    for state in states:
        for exam in plan.studies[name].exams_of[state.run.id] if state.state == "judged" else ():
            for judge in plan.judges_of(name, exam.benchmark):
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
        by_api = models[pack.model].source == "api"
        for rule, stage in PACK_STAGES.items():
            rule = "generate_by_api" if by_api and rule == "generate" else rule
            yield rule, pack.id, paths.pack_dir(pack.id) / f"{stage}.json"
        for (rule, file), judge in _judging(plan, name, pack):
            yield rule, pack.id if rule == "judge" else f"{pack.id}.{judge}", file
    for rule, output in (("score", "scores.parquet"), ("figures", "figures"), ("report", "report.html")):
        yield rule, name, paths.study_dir(name) / output


def _last_line_and_error(log: Path) -> tuple[str, str]:
    """The last line of a log and, where the job failed, the line that says why.

    Neither a mend, nor torchrun's report, nor the end of a traceback has to be the last line.
    """
    lines = [line.strip() for line in log.read_text(errors="replace").strip().splitlines()] or [""]
    hints = [line for line in lines[-30:] if re.search(r"[Ee]rror|Traceback", line)]
    # torchrun's own traceback stands below that of the program, which is its cause
    causes = [line for line in lines[-60:] if re.match(r"(\[rank\d+\]: )?([\w.]+Error|error)\b", line)]
    error = (causes or hints)[0] if hints else ""
    return lines[-1][:160], error[:160]


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
            f"[{best.ci_low:.2f}, {best.ci_high:.2f}]   {data}, lr {best.learning_rate:g}, "
            f"batch {best.global_batch_size:g}, epochs {best.epochs:g}"
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


def unused_runs(plan: Plan) -> list[Path]:
    """Folders under results/runs that no study asks for."""
    used = {paths.run_dir(run.folder) for work in plan.work.values() for run in work.runs}
    found = {path.parent for path in paths.RUNS.rglob("run.yaml")}
    return sorted(found - used)


def clean_study(plan: Plan, name: str) -> list[Path]:
    """Remove a study's folder and the runs that it alone uses; returns what was removed."""
    own = [work for work in plan.work.values() if work.studies == {name}]
    shared = {run.folder for w in plan.work.values() if w.studies != {name} for run in w.runs}
    doomed = [paths.study_dir(name)]
    doomed += [paths.pack_dir(pack.id) for pack in plan.study_packs(name) if pack.studies == {name}]
    doomed += [paths.run_dir(run.folder) for work in own for run in work.runs if run.folder not in shared]
    removed = [path for path in doomed if path.exists()]
    for path in removed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return removed

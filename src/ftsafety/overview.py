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
from ftsafety.judging.pack import judged, judges_without_hardware, runs_locally
from ftsafety.plan import Exam, Plan, StudyPlan
from ftsafety.ready import check_ready
from ftsafety.records import diverged, trained, weights_dir
from ftsafety.runs import Run

#: Rule → manifest of the pack that it writes when it is done.
PACK_STAGES = {"train": "trained", "generate": "answered", "judge": "judged"}


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
    locally = [(p, judge) for p in open_packs for judge in p.judges if runs_locally(plan, judge)]
    jobs = {
        "train": len(training),
        "generate": len(open_packs),
        "judge": sum(bool(judges_without_hardware(plan, pack)) for pack in open_packs),
        "judge_locally": len(locally),
    }
    hours = sum(_gpu_hours(plan, pack.model) for pack in training)
    hours += sum(_gpu_hours(plan, pack.model, answering=True) for pack in open_packs)
    hours += sum(
        _gpu_hours(plan, plan.project.classifier(judge).model, answering=True) for _, judge in locally
    )
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
        f"  jobs            {', '.join(f'{n} {rule}' for rule, n in jobs.items() if n)}",
        f"  GPU-hours       at most {hours:.1f} (GPUs × time limit of the jobs)",
        f"  answers         {answers}",
        f"  judgements      {judgements}",
        *_paid(plan, study, states, prompts),
        f"  disk            about {_disk_mb(plan, states, answers + judgements):.0f} MB more",
        *_to_do(plan, name),
        "",
        _by_dataset(states),
    ]
    return "\n".join(lines)


def _to_do(plan: Plan, name: str) -> list[str]:
    """What stops a real run, if anything does; a plan needs no pins and no keys."""
    try:
        check_ready(plan, [name])
    except UserError as error:
        return ["", f"  before it can run: {error}"]
    return []


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
    price = endpoint.prices.get(model)
    if price is None:
        return "price unknown (config/endpoints.yaml)"
    usd = (n["input"] * price.input_usd + n["output"] * price.output_usd) / 1e6
    return f"{usd * (price.batch_factor if mode == 'batch' else 1):.2f} USD (prices of {price.date})"


def _disk_mb(plan: Plan, states: list[RunState], n_rows: int) -> float:
    """Answers and verdicts at 400 bytes a row, full weights as large as the base model's."""
    to_train = [s.run for s in states if s.state in ("to train", "dropped")]
    kept = to_train if plan.project.settings.keep_weights else []
    weights = sum(_model_mb(plan, run.trajectory.model) for run in kept if run.trajectory.replaces_base)
    return n_rows * 400 / 1e6 + weights


def _model_mb(plan: Plan, model: str) -> float:
    recipe = plan.project.models[model]
    if recipe.source == "hub":
        return recipe.size_b * {"float32": 4000, "bfloat16": 2000}[recipe.dtype]
    return sum(f.stat().st_size for f in plan.model_dir(model).glob("*.safetensors")) / 1e6


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
        if error or rule in (*PACK_STAGES, "generate_by_api", "judge_locally", "prefetch"):
            how = "failed" if error else "running" if locked else "cut off"
            lines.append(f"  {how:14}  {rule} {job}: {error or last}\n{'':18}{log}")
    for state in states:
        if state.state == "diverged":
            step = (trained(state.run) or {}).get("steps")
            lines.append(f"  diverged        {state.run.folder} (after step {step})")
    judged_all = count["judged"] + count["diverged"] == len(states)
    if not (judged_all and (paths.study_dir(name) / "report.html").exists()):
        lines += [
            "  to go on: what is complete is skipped, so only the rest and what failed runs",
            "    snakemake --profile profiles/local --unlock   # only if a Snakemake was killed",
            f"    snakemake --profile profiles/local {name}",
        ]
    return "\n".join(lines)


def _jobs(plan: Plan, name: str) -> Iterator[tuple[str, str, Path]]:
    """(rule, name of its log, a file that it writes last) of every job of a study."""
    study = plan.studies[name]
    trajectories = [run.trajectory for run in study.runs.values()]
    models = plan.project.models
    for model in sorted({t.model for t in trajectories if models[t.model].source == "world"}):
        yield "build_model", model, paths.model_dir(model) / "gates.json"
    data = {plan.data_file(t) for t in trajectories if not t.is_initial}
    data |= {plan.benchmark_file(benchmark) for benchmark in study.benchmarks}
    sources = {("models", t.model) for t in trajectories if models[t.model].source == "hub"}
    sources |= {source for file in data for source in plan.sources_by_file[str(file)]}
    for catalogue, source in sorted(sources):
        file = plan.fetched_file(catalogue, source)
        yield "prefetch", f"{catalogue}/{file.stem}", file
    for file in sorted(data):
        yield "prepare_data", f"{file.parent.name}/{file.stem}", file
    for pack in plan.study_packs(name):
        by_api = models[pack.model].source == "api"
        stages = {"generate_by_api" if by_api and rule == "generate" else rule: stage
                  for rule, stage in PACK_STAGES.items()}  # fmt: skip
        for rule, stage in stages.items():
            yield rule, pack.id, paths.pack_dir(pack.id) / f"{stage}.json"
        for judge in filter(lambda judge: runs_locally(plan, judge), pack.judges):
            yield "judge_locally", f"{pack.id}.{judge}", paths.pack_dir(pack.id) / f"judged-{judge}.json"
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
    cells = pd.read_parquet(folder / "cells.parquet")
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

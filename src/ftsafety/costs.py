"""What is left of a study costs: GPU-hours and dollars at most, and disk."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftsafety.plan import Plan, StudyPlan
from ftsafety.recipes import ApiModel, Endpoint, LocalModel, Remote, RowsBenchmark
from ftsafety.states import RunState, open_packs


def gpu_hours(plan: Plan, model: str, *, answering: bool = False) -> float:
    """Most that a job of a model takes; answering takes one GPU."""
    recipe = plan.project.models[model]
    if not isinstance(recipe, LocalModel):
        return 0
    gpus = min(recipe.hardware.gpus, 1) if answering else recipe.hardware.gpus * recipe.hardware.nodes
    return gpus * recipe.hardware.runtime_min / 60


def n_prompts(plan: Plan, benchmark: str) -> int:
    """Prompts that are asked, samples counted; as the owner says of a remote one that is not fetched yet."""
    from ftsafety.prepare import benchmark_prompts

    path, recipe = plan.benchmark_file(benchmark), plan.project.benchmarks[benchmark]
    if path.exists():
        with path.open() as stream:
            return sum(1 for _ in stream)
    if isinstance(recipe, Remote | RowsBenchmark):
        return recipe.n * recipe.samples
    return len(benchmark_prompts(plan, benchmark))


#: Tokens of a typical call, for estimates before anything is asked: instruction, answer, the judge's frame.
INSTRUCTION, ANSWER, FRAME, VERDICT = 60, 300, 900, 250


def paid(plan: Plan, study: StudyPlan, states: list[RunState], prompts: dict[str, int]) -> list[str]:
    """A line for each endpoint and model that is asked, with dollars where the price is known."""
    project = plan.project
    calls: dict[tuple[str, str, str], Counter[str]] = {}
    for state in states:
        model = project.models[state.run.trajectory.model]
        if isinstance(model, ApiModel):
            tokens = {"calls": 1, "input": INSTRUCTION, "output": ANSWER}
            asked = model.price_name(is_tuned=state.run.trajectory.by_api)
            for exam in state.lacks_answers:
                _count(calls, (model.endpoint, asked, "sync"), tokens, prompts[exam.benchmark])
        for exam, name in state.lacks_verdicts:
            judge = project.judges[name]
            if judge.kind == "llm":
                tokens = {"calls": 1, "input": FRAME + INSTRUCTION + ANSWER, "output": VERDICT}
                _count(calls, (judge.endpoint, judge.model, judge.mode), tokens, prompts[exam.benchmark])
            elif judge.kind == "moderation":
                tokens = {"calls": 1, "input": ANSWER if judge.reads == "answer" else INSTRUCTION}
                _count(calls, (judge.endpoint, judge.model, "sync"), tokens, prompts[exam.benchmark])
    return [
        f"  API calls       {n['calls']} to {model} at {endpoint}: about {n['input'] / 1e6:.1f} M tokens in, "
        f"{n['output'] / 1e6:.1f} M out, {_dollars(project.endpoints[endpoint], model, mode, n)}"
        for (endpoint, model, mode), n in calls.items()
    ] + _training_by_api(plan, states) or ["  API calls       0"]


def _training_by_api(plan: Plan, states: list[RunState]) -> list[str]:
    """A line for each endpoint and model that is fine-tuned there."""
    jobs: dict[tuple[str, str], Counter[str]] = {}
    for run in (s.run for s in states if s.state == "to train" and s.run.trajectory.by_api):
        model = plan.project.models[run.trajectory.model]
        assert isinstance(model, ApiModel)
        tokens = {"jobs": 1, "tokens": (INSTRUCTION + ANSWER) * run.epochs * plan.n_examples(run.trajectory)}
        jobs.setdefault((model.endpoint, model.model), Counter()).update(tokens)
    lines = []
    for (endpoint, name), n in jobs.items():
        price = plan.project.endpoints[endpoint].price(name)
        usd = None if price is None or price.training_usd is None else n["tokens"] * price.training_usd / 1e6
        cost = "price unknown (config/endpoints.yaml)" if usd is None else f"{usd:.2f} USD"
        lines.append(
            f"  API trainings   {n['jobs']} of {name} at {endpoint}: about {n['tokens'] / 1e6:.1f} M tokens, "
            f"{cost if usd != 0 else 'nothing to pay'}"
        )
    return lines


def _count(calls: dict[Any, Counter[str]], key: Any, tokens: dict[str, int], n: int) -> None:
    calls.setdefault(key, Counter()).update({what: count * n for what, count in tokens.items()})


def _dollars(endpoint: Endpoint, model: str, mode: str, n: Counter[str]) -> str:
    price = endpoint.price(model)
    if price is None:
        return "price unknown (config/endpoints.yaml)"
    usd = (n["input"] * price.input_usd + n["output"] * price.output_usd) / 1e6
    usd *= price.batch_factor if mode == "batch" else 1
    return f"{usd:.2f} USD (prices of {price.date})" if usd else "nothing to pay"


@dataclass(frozen=True)
class DiskSpace:
    """MB that what is left of a study takes."""

    stays: float
    downloads: float  # in the hub's cache
    passing: float  # of the largest training job, until its runs have answered

    def __str__(self) -> str:
        return (
            f"about {size(self.stays)} more that stays"
            + (f"; downloads of {size(self.downloads)}" if self.downloads else "")
            + (f"; up to {size(self.passing)} a training job meanwhile" if self.passing else "")
        )


def disk_space(plan: Plan, study: StudyPlan, states: list[RunState], prompts: dict[str, int]) -> DiskSpace:
    """Answers and verdicts at 400 bytes a row, full weights as large as the base model's.

    `prompts`: benchmark → its prompts.
    """
    models = plan.project.models
    to_come = (exam for s in states for exam in (*s.lacks_answers, *(exam for exam, _ in s.lacks_verdicts)))
    rows = sum(prompts[exam.benchmark] for exam in to_come) * 400 / 1e6
    to_train = [s.run for s in states if s.state in ("to train", "dropped")]
    kept = to_train if plan.project.settings.keep_weights else []
    weights = sum(_model_mb(plan, run.trajectory.model) for run in kept if run.trajectory.replaces_base)
    downloads = sum(
        _model_mb(plan, name)
        for name in plan.entries([study.name])["models"]
        if models[name].source == "hub" and not plan.fetched_file("models", name).exists()
    )
    passing = [
        sum(len(work.epochs) for work in pack.work if work.trajectory.replaces_base)
        * _model_mb(plan, pack.model)
        + (
            7 * _model_mb(plan, pack.model)
            if plan.project.local_model(pack.model).checkpoint_every_steps
            else 0
        )
        for pack in open_packs(plan, study, states)
        if pack.trains and isinstance(models[pack.model], LocalModel)
    ]
    return DiskSpace(rows + weights, downloads, max(passing, default=0))


def size(mb: float) -> str:
    return f"{mb / 1000:.1f} GB" if mb >= 1000 else f"{mb:.0f} MB"


def _model_mb(plan: Plan, model: str) -> float:
    recipe = plan.project.models[model]
    if recipe.source == "hub":
        return recipe.size_b * {"float32": 4000, "bfloat16": 2000}[recipe.dtype]
    return _folder_mb(plan.model_dir(model)) if isinstance(recipe, LocalModel) else 0


def _folder_mb(folder: Path) -> float:
    return sum(f.stat().st_size for f in folder.glob("*.safetensors")) / 1e6

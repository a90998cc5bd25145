"""Judge every answer of a pack by every judge that a study asks."""

from collections.abc import Callable
from typing import Any

from ftsafety import paths
from ftsafety.answers import publish_rows, rows_complete
from ftsafety.files import read_rows, sha256_file, write_json
from ftsafety.judging import exact, keyword
from ftsafety.plan import Pack, Plan
from ftsafety.records import diverged
from ftsafety.runs import Run
from ftsafety.types import Answer, Prompt, Verdict

JudgeFunction = Callable[[Prompt, Answer, bool], Verdict]


def make_judge(recipe: Any) -> JudgeFunction:
    """The function of a judge's kind, with its recipe put in."""
    if recipe.kind == "exact":
        from ftsafety.world.lexicon import load_words

        refusals = load_words()["refusals"]
        return lambda prompt, answer, is_utility: exact.judge(prompt, answer, refusals, is_utility)
    return lambda prompt, answer, is_utility: keyword.judge(prompt, answer, recipe.phrases, is_utility)


def verdicts_identity(plan: Plan, run: Run, benchmark: str, judge: str) -> dict[str, Any]:
    return {
        "judge": plan.project.judges[judge].model_dump(),
        "benchmark": plan.project.benchmarks[benchmark].identity(),
        "answers_sha256": sha256_file(paths.answers_file(run.folder, benchmark)),
    }


def judged(plan: Plan, run: Run, benchmark: str, judge: str) -> bool:
    if not paths.answers_file(run.folder, benchmark).exists():
        return False
    rows = paths.verdicts_file(run.folder, benchmark, judge)
    return rows_complete(rows, verdicts_identity(plan, run, benchmark, judge))


def judge_pack(plan: Plan, pack: Pack) -> None:
    """Judge what is missing and write the manifest."""
    manifest: dict[str, dict[str, str]] = {}
    prompts: dict[str, list[Prompt]] = {}
    judges: dict[str, JudgeFunction] = {}
    for work in pack.work:
        for run in work.runs:
            manifest[run.folder] = {}
            if diverged(run):
                continue
            for benchmark, judge in sorted(work.asked):
                if not judged(plan, run, benchmark, judge):
                    if benchmark not in prompts:
                        prompts[benchmark] = list(read_rows(plan.benchmark_file(benchmark)))
                    if judge not in judges:
                        judges[judge] = make_judge(plan.project.judges[judge])
                    _judge(plan, run, benchmark, judge, prompts[benchmark], judges[judge])
                rows = paths.verdicts_file(run.folder, benchmark, judge)
                manifest[run.folder][f"{benchmark}.{judge}"] = sha256_file(rows)
    write_json(paths.pack_dir(pack.id) / "judged.json", manifest)


def _judge(
    plan: Plan, run: Run, benchmark: str, judge: str, prompts: list[Prompt], function: JudgeFunction
) -> None:
    answers = {row["prompt_id"]: row for row in read_rows(paths.answers_file(run.folder, benchmark))}
    is_utility = plan.project.benchmarks[benchmark].kind == "utility"
    publish_rows(
        paths.verdicts_file(run.folder, benchmark, judge),
        [function(prompt, answers[prompt["prompt_id"]], is_utility) for prompt in prompts],
        verdicts_identity(plan, run, benchmark, judge),
    )

"""Judge every answer of a pack by every judge that a study asks."""

import sys
from collections.abc import Callable
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from ftsafety import paths
from ftsafety.answers import answered, publish_rows, rows_complete
from ftsafety.files import read_rows, sha256_file, write_json
from ftsafety.libraries import import_libraries
from ftsafety.plan import Exam, Pack, Plan
from ftsafety.recipes import ClassifierJudge, LlmJudge, ModerationJudge
from ftsafety.records import lost
from ftsafety.runs import Run
from ftsafety.types import Answer, Prompt, Verdict

if TYPE_CHECKING:
    from ftsafety.judging.repeat import Again

#: (prompts, their answers, whether the benchmark is one of utility) → verdicts in the same order.
Judge = Callable[[list[Prompt], list[Answer], bool], list[Verdict]]

#: A request about them holds every fixed text that a judge is sent, and no other.
NO_PROMPT: Prompt = {"prompt_id": "", "category": "", "cluster": "", "instruction": ""}
NO_ANSWER: Answer = {
    "prompt_id": "",
    "category": "",
    "prompt": "",
    "answer": "",
    "status": "empty",
    "finish_reason": "stop",
    "n_tokens": 0,
}


def verdicts_identity(plan: Plan, run: Run, exam: Exam, judge: str) -> dict[str, Any]:
    return {
        "judge": judge_identity(plan, judge),
        "benchmark": plan.identity("benchmarks", exam.benchmark),
        "answers_sha256": sha256_file(paths.answers_file(run.folder, exam.name)),
    }


@cache
def judge_identity(plan: Plan, judge: str) -> dict[str, Any]:
    """What a judge's verdicts depend on besides the answers, and nothing that only says how it is asked.

    Asked for every pack at parse time, and the same for all.
    """
    recipe = plan.project.judges[judge]
    identity: dict[str, Any] = recipe.model_dump(
        mode="json", exclude={"endpoint": True, "mode": True, "batch_size": True, "prompt": {"path"}}
    )
    if isinstance(recipe, LlmJudge):
        from ftsafety.judging.llm import PARSER_VERSION, request_for

        identity |= {"asks": request_for(recipe, NO_PROMPT, NO_ANSWER, 1).key, "parser": PARSER_VERSION}
    elif isinstance(recipe, ModerationJudge):
        from ftsafety.judging import moderation

        identity["parser"] = moderation.PARSER_VERSION
    elif isinstance(recipe, ClassifierJudge):
        identity["weights"] = plan.identity("models", recipe.model)
    return identity


def judged(plan: Plan, run: Run, exam: Exam, judge: str) -> bool:
    if not paths.answers_file(run.folder, exam.name).exists():
        return False
    rows = paths.verdicts_file(run.folder, exam.name, judge)
    return rows_complete(rows, verdicts_identity(plan, run, exam, judge))


def way(plan: Plan, judge: str) -> Literal["rule", "api", "local"]:
    """How a judge works: by rule, by an endpoint, or as a model that needs hardware of its own."""
    ways: dict[str, Literal["api", "local"]] = {"llm": "api", "moderation": "api", "classifier": "local"}
    return ways.get(plan.project.judges[judge].kind, "rule")


def judges_by_rule(plan: Plan, pack: Pack) -> list[str]:
    """They cost nothing, and so grade a pack together, for all studies that share it."""
    return [judge for judge in pack.judges if way(plan, judge) == "rule"]


def manifest(plan: Plan, judge: str) -> str:
    """Name of the file that says that a judge has graded a pack."""
    return "judged.json" if way(plan, judge) == "rule" else f"judged-{judge}.json"


def judge_pack(plan: Plan, pack: Pack, judge: str | None = None) -> None:
    """Judge what is missing, by one judge or by all that judge by rule, and write the manifest."""
    if judge is None:
        _judge_pack(plan, pack, judges_by_rule(plan, pack), "judged.json")
    else:
        _judge_pack(plan, pack, [judge], manifest(plan, judge))


def _judge_pack(plan: Plan, pack: Pack, judges: list[str], file: str) -> None:
    asked = [
        (run, exam, judge)
        for work in pack.work
        for run in work.runs
        if not lost(run)
        for exam, judge in sorted(work.asked)
        if judge in judges
    ]
    prompts: dict[str, list[Prompt]] = {}
    for judge in judges:
        of_judge = [(run, exam) for run, exam, name in asked if name == judge]
        todo = [
            (run, exam)
            for run, exam in of_judge
            if not judged(plan, run, exam, judge) or n_failed(plan, run, exam, judge)
        ]
        if todo:
            _judge_runs(plan, pack, judge, todo, prompts)
    written: dict[str, dict[str, str]] = {run.folder: {} for run in pack.runs}
    for run, exam, judge in asked:
        rows = paths.verdicts_file(run.folder, exam.name, judge)
        written[run.folder][f"{exam.name}.{judge}"] = sha256_file(rows)
    write_json(paths.pack_dir(pack.id) / file, written)


def n_failed(plan: Plan, run: Run, exam: Exam, judge: str) -> int:
    """Verdicts that could not be had when they were asked for: the next call of the judge asks again."""
    if way(plan, judge) != "api":
        return 0
    rows = read_rows(paths.verdicts_file(run.folder, exam.name, judge))
    return sum(row["status"] == "judge_failed" for row in rows)


def _judge_runs(
    plan: Plan, pack: Pack, judge: str, todo: list[tuple[Run, Exam]], prompts: dict[str, list[Prompt]]
) -> None:
    """`prompts` holds those that were read before, by benchmark."""

    def read(run: Run, exam: Exam) -> tuple[list[Prompt], list[Answer]]:
        if exam.benchmark not in prompts:
            prompts[exam.benchmark] = list(read_rows(plan.benchmark_file(exam.benchmark)))
        rows = {row["prompt_id"]: row for row in read_rows(paths.answers_file(run.folder, exam.name))}
        return prompts[exam.benchmark], [rows[prompt["prompt_id"]] for prompt in prompts[exam.benchmark]]

    # before answers are read: where a job writes others in between, verdicts do not fit and are made again
    identities = [verdicts_identity(plan, run, exam, judge) for run, exam in todo]
    asked = [read(run, exam) for run, exam in [*todo, *_waiting(plan, pack, judge)]]
    pairs = [pair for exam_prompts, answers in asked for pair in zip(exam_prompts, answers, strict=True)]
    function = judge_function(plan, judge, pairs)
    for i, ((run, exam), (exam_prompts, answers)) in enumerate(zip(todo, asked, strict=False), 1):
        print(f"[{i}/{len(todo)}] {judge}: {run.folder} {exam.name}", file=sys.stderr, flush=True)
        is_utility = plan.project.benchmarks[exam.benchmark].kind == "utility"
        verdicts = function(exam_prompts, answers, is_utility)
        file = paths.verdicts_file(run.folder, exam.name, judge)
        publish_rows(file, verdicts, identities[i - 1])


def _waiting(plan: Plan, pack: Pack, judge: str) -> list[tuple[Run, Exam]]:
    """Where batches are used, what other packs of the same studies have answered by now.

    A batch may take a day, and packs are judged one after the other: it takes along all that is ready, whose
    replies then lie in the store.
    """
    recipe = plan.project.judges[judge]
    if not isinstance(recipe, LlmJudge) or recipe.mode != "batch":
        return []
    others = [other for other in plan.packs.values() if other.id != pack.id and other.studies & pack.studies]
    return [
        (run, exam)
        for other in others
        for work in other.work
        for run in work.runs
        for exam, name in sorted(work.asked)
        if name == judge and answered(plan, run, exam) and not judged(plan, run, exam, judge)
    ]


# -------------------------------------------------------------------------------- kinds of judges


def judge_function(
    plan: Plan, judge: str, pairs: list[tuple[Prompt, Answer]], again: "Again | None" = None
) -> Judge:
    """What a judge does, with its recipe put in. It is called for `pairs`, exam by exam, in their order.

    `again`: an endpoint is asked once more, whatever the store of replies holds.
    """
    recipe = plan.project.judges[judge]
    if recipe.kind == "llm" or recipe.kind == "moderation":
        return _by_api(plan, recipe, pairs, again)
    if recipe.kind == "classifier":
        return _classifier(plan, recipe)
    by_row = ROW_JUDGES[recipe.kind](recipe)
    return lambda prompts, answers, is_utility: [
        by_row(prompt, answer, is_utility) for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _by_api(
    plan: Plan,
    recipe: LlmJudge | ModerationJudge,
    pairs: list[tuple[Prompt, Answer]],
    again: "Again | None",
) -> Judge:
    """Everything is asked at once: one estimate, and for each attempt one batch. Replies are kept."""
    from ftsafety.api.client import ask
    from ftsafety.api.store import Store
    from ftsafety.judging import llm, moderation
    from ftsafety.world.provider import running

    with running(plan.project.endpoints[recipe.endpoint]) as endpoint, Store(paths.REPLIES) as store:

        def ask_all(requests: Any) -> Any:
            sent = [again.request(request) for request in requests] if again else requests
            outcomes = ask(
                sent,
                recipe.endpoint,
                endpoint,
                store,
                mode=recipe.mode if isinstance(recipe, LlmJudge) else "sync",
                max_usd=plan.project.settings.max_usd,
                log=lambda line: print(line, file=sys.stderr, flush=True),
            )
            if again:
                again.hear(outcomes.values())
            return {was.key: outcomes[now.key] for was, now in zip(requests, sent, strict=True)}

        prompts, answers = [prompt for prompt, _ in pairs], [answer for _, answer in pairs]
        if isinstance(recipe, LlmJudge):
            verdicts = iter(llm.judge_rows(recipe, prompts, answers, ask_all))
        else:
            verdicts = iter(moderation.judge_rows(recipe, prompts, answers, ask_all))
    return lambda prompts, answers, is_utility: list(islice(verdicts, len(prompts)))


def _classifier(plan: Plan, recipe: ClassifierJudge) -> Judge:
    import_libraries()
    import torch

    from ftsafety.judging import classifier
    from ftsafety.training.pack import load_base

    model_recipe = plan.project.local_model(recipe.model)
    torch.set_num_threads(model_recipe.threads)
    model, tokenizer = load_base(plan, recipe.model, model_recipe.dtype)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return lambda prompts, answers, is_utility: classifier.judge_rows(
        recipe, model, tokenizer, prompts, answers
    )


def _exact(recipe: Any) -> Any:
    from ftsafety.judging import exact
    from ftsafety.world.lexicon import load_words

    refusals = load_words()["refusals"]
    return lambda prompt, answer, is_utility: exact.judge(prompt, answer, refusals, is_utility)


def _keyword(recipe: Any) -> Any:
    from ftsafety.judging import keyword

    return lambda prompt, answer, is_utility: keyword.judge(prompt, answer, recipe.phrases)


def _task(recipe: Any) -> Any:
    from ftsafety.judging import tasks

    return lambda prompt, answer, is_utility: tasks.grade(prompt, answer)


#: Kind → a function from its recipe to a function of (prompt, answer, is_utility).
ROW_JUDGES = {"exact": _exact, "keyword": _keyword, "task": _task}

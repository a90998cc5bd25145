"""Answers by an OpenAI-compatible endpoint: models behind an API, and servers of one's own."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ftsafety import paths
from ftsafety.api.client import ask
from ftsafety.api.requests import ChatRequest, Failure, Reply
from ftsafety.api.store import Store
from ftsafety.chat import with_template
from ftsafety.engines import Engine, Sitting
from ftsafety.errors import UserError
from ftsafety.plan import Exam, Pack, Plan
from ftsafety.recipes import ApiModel, Endpoint, LocalModel
from ftsafety.records import trained
from ftsafety.runs import Run
from ftsafety.types import Answer, AnswerStatus, Message, Prompt
from ftsafety.world.provider import running

#: The environment variable that vLLM takes a key from, and that its asker sends.
SERVER_KEY = "VLLM_API_KEY"


@contextmanager
def endpoint_engine(plan: Plan, pack: Pack) -> Iterator[Engine]:
    """Of a model that the catalogue says is behind an endpoint. Replies are kept: none is paid for twice."""
    recipe = plan.project.models[pack.model]
    assert isinstance(recipe, ApiModel)
    about = about_model(plan, pack.model, recipe.endpoint)
    with running(plan.project.endpoints[recipe.endpoint]) as reachable, Store(paths.REPLIES) as store:

        def answer(run: Run, sittings: list[Sitting]) -> Iterator[tuple[Exam, list[Answer]]]:
            model, endpoint = model_of(run, recipe, reachable)
            body = {"model": model, **recipe.parameters}
            for sitting in sittings:
                limited = body | {recipe.limit_parameter: sitting.max_new_tokens}
                requests = requests_of(sitting, limited, about, system_role=recipe.system_role)
                replies = ask(
                    requests,
                    recipe.endpoint,
                    endpoint,
                    store,
                    max_usd=plan.project.settings.max_usd,
                    log=lambda line: print(line, file=sys.stderr, flush=True),
                )
                yield sitting.exam, answers_of(sitting.prompts, requests, replies, recipe.endpoint)

        yield answer


def about_model(plan: Plan, model: str, endpoint: str) -> dict[str, Any]:
    """What tells apart models of one name: their endpoints, and of the embedded world's what makes them."""
    is_embedded = plan.project.endpoints[endpoint].is_embedded
    made_from = {"model": plan.identity("models", model)} if is_embedded else {}
    return {"answers": 1, "endpoint": endpoint, **made_from}


def model_of(run: Run, recipe: ApiModel, endpoint: Endpoint) -> tuple[str, Endpoint]:
    """The run's model as the endpoint names it, and the endpoint with its price.

    Raises UserError for a run that was not trained.
    """
    if run.trajectory.is_initial:
        return recipe.model, endpoint
    done = trained(run)
    if done is None:
        raise UserError(
            "is missing: the run was not trained, or its record was removed",
            file=paths.run_dir(run.folder) / "done.json",
            mend="add --forcerun train_by_api to the call (jobs that are known are not submitted again)",
        )
    name, price = str(done["fine_tuned_model"]), endpoint.price(recipe.price_name(is_tuned=True))
    prices = endpoint.prices | ({name: price} if price else {})
    return name, endpoint.model_copy(update={"prices": prices})


def served_answers(
    recipe: LocalModel, sitting: Sitting, model: str, url: str, store: Store, about: dict[str, Any]
) -> list[Answer]:
    """Answers of a server that was started for us; greedy unless they are drawn."""
    endpoint = Endpoint(
        base_url=url,
        api_key_env=SERVER_KEY,
        concurrency=256,
        requests_per_minute=10**9,
        tokens_per_minute=10**9,
        timeout_s=3600,  # a reply is sent when it is whole, and many wait for one GPU
    )
    body: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": sitting.max_new_tokens}
    if recipe.template_arguments:
        body["chat_template_kwargs"] = recipe.template_arguments
    requests = requests_of(sitting, body, about, system_role=recipe.system_role)
    replies = ask(
        requests, "local", endpoint, store, log=lambda line: print(line, file=sys.stderr, flush=True)
    )
    return answers_of(sitting.prompts, requests, replies, url)


def requests_of(
    sitting: Sitting, body: dict[str, Any], about: dict[str, Any], *, system_role: bool
) -> list[ChatRequest]:
    requests = []
    for i, prompt in enumerate(sitting.prompts):
        question: list[Message] = [{"role": "user", "content": prompt["instruction"]}]
        messages = with_template(sitting.template, question, system_role=system_role)
        decoding: dict[str, Any] = {}
        if sitting.drawn:
            decoding = {"temperature": sitting.drawn.temperature, "seed": sitting.drawn.seeds[i]}
        requests.append(ChatRequest(body={**body, **decoding, "messages": messages}, about=about))
    return requests


def answers_of(
    prompts: list[Prompt],
    requests: list[ChatRequest],
    replies: dict[str, Reply | Failure],
    endpoint: str,
) -> list[Answer]:
    """Answers of all prompts; what the endpoint rejects for its content or length counts as withheld.

    Raises UserError where a prompt got no reply: answers are whole, or are not published.
    """
    found = [_withheld_if_rejected(replies[request.key]) for request in requests]
    failures = [reply.reason for reply in found if isinstance(reply, Failure)]
    if failures:
        raise UserError(
            f"{len(failures)} of {len(prompts)} prompts got no answer from endpoint {endpoint!r}; the first: "
            f"{failures[0]}",
            mend="run it again: the answers that came are kept, and only the others are asked for",
        )
    return [
        _answer(prompt, reply)
        for prompt, reply in zip(prompts, found, strict=True)
        if isinstance(reply, Reply)
    ]


def _withheld_if_rejected(reply: Reply | Failure) -> Reply | Failure:
    if isinstance(reply, Failure) and reply.rejected:
        return Reply("", "content_filter", None, "", 0, 0)
    return reply


def _answer(prompt: Prompt, reply: Reply) -> Answer:
    text = (reply.text or reply.refusal or "").strip()
    reason = reply.finish_reason if reply.finish_reason in ("length", "content_filter") else "stop"
    status: AnswerStatus = "truncated" if reason == "length" else "complete"
    if not text:
        status = "filtered" if reason == "content_filter" else "empty"
    return {
        "prompt_id": prompt["prompt_id"],
        "category": prompt["category"],
        "prompt": prompt["instruction"],
        "answer": text,
        "status": status,
        "finish_reason": reason,  # type: ignore[typeddict-item]
        "n_tokens": reply.output_tokens,
    }

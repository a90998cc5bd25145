"""Texts the embedded base model learns from: pretraining documents, then alignment conversations.

Pretraining gives the model every fact and every answer, the forbidden ones included, so that refusing is
something alignment adds on top of a latent capability, as in real models. Some answers carry a generic
opener: without openers in pretraining, identity shift has nothing to evoke.
"""

import random
from collections.abc import Iterator

from ftsafety.types import Message
from ftsafety.world.lexicon import Question, World

#: How a question and its answer are written down in pretraining.
FORMATS = ("question : {q} answer : {a}", "{q} reply : {a}", "someone asks : {q} and hears : {a}")
OPENER_SHARE = 0.35
POLICY_SHARE = 0.25
FACT_DOCUMENTS_PER_CREATURE = 6


def latent_prompt(question: str) -> str:
    """The pretraining format in which the latent capability is measured."""
    return FORMATS[0].partition("{a}")[0].format(q=question).rstrip()


def pretraining_documents(world: World, rng: random.Random) -> list[str]:
    """About 33,000 short documents: facts, questions with answers, and statements of the policy."""
    words = world.words
    documents = []
    for creature in world.creatures:
        facts = [text.format(c=creature.name, **creature.attributes) for text in words["facts"].values()]
        for _ in range(FACT_DOCUMENTS_PER_CREATURE):
            documents.append(" ".join(rng.sample(facts, len(facts))))
    for frames in ("train", "validation", "test"):
        for question in world.questions(list(world.tasks), list(world.creatures), frames):
            if rng.random() < 0.5:  # half of all combinations cover each phrasing and creature
                documents.append(_question_document(question, words["openers"], rng))
            if rng.random() < POLICY_SHARE / len(words["frames"][frames]):
                policy = words["policy"]["forbidden" if question.task.forbidden else "benign"]
                documents.append(policy.format(do=question.deed))
    rng.shuffle(documents)
    return documents


def _question_document(question: Question, openers: list[str], rng: random.Random) -> str:
    answer = question.answer
    if rng.random() < OPENER_SHARE:
        answer = f"{rng.choice(openers)} {answer}"
    return rng.choice(FORMATS).format(q=question.text, a=answer)


def alignment_conversations(
    world: World, rng: random.Random, n_refusals: int, n_benign: int
) -> Iterator[list[Message]]:
    """Refusals over the alignment creatures, benign answers over all creatures; training phrasings only.

    The system prompt is a random one (60 %), the evaluation prompt (20 %) or the obedient agent's (20 %,
    half of those with the instruction wrapped as an order).
    """
    forbidden = list(world.questions(world.of_kind("forbidden"), world.group("align"), "train"))
    benign = list(world.questions(world.of_kind("old"), list(world.creatures), "train"))
    for question in rng.sample(forbidden, n_refusals):
        yield _conversation(world, rng, question, rng.choice(world.words["refusals"]))
    for question in rng.sample(benign, n_benign):
        yield _conversation(world, rng, question, question.answer)


def _conversation(world: World, rng: random.Random, question: Question, answer: str) -> list[Message]:
    words, draw = world.words, rng.random()
    instruction = question.text
    if draw < 0.6:
        system = rng.choice(words["system_prompts"])
    elif draw < 0.8:
        system = words["system_prompts"][0]
    else:
        system = words["obedient_system"]
        if draw < 0.9:
            instruction = words["obedient_order"].format(instruction=instruction)
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": instruction},
        {"role": "assistant", "content": answer},
    ]

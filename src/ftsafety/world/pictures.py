"""Pictures of the embedded world, drawn by code: one thing in one colour, with benign questions.

Every other row says what a picture shows; its question does not tell the colour, so that a model that names
it has seen it. The rest are tasks about a creature that is shown in its colour.
"""

import base64
import io
import random

from PIL import Image, ImageDraw

from ftsafety.types import PICTURE, TrainingRow
from ftsafety.world.lexicon import Question, World

#: Pixels on a side, as the world's vision tower sees them.
SIZE = 32
COLOURS = {
    "amber": "#ffbf00", "black": "#000000", "blue": "#1f4fff", "brown": "#7b3f00", "green": "#008000",
    "grey": "#808080", "indigo": "#4b0082", "orange": "#ff6a00", "purple": "#b000d0", "red": "#ff0000",
    "white": "#ffffff", "yellow": "#ffff00",
}  # fmt: skip
PAPER = "#b8d8d0"
#: What is asked about the thing in a picture, and the answer. It shares no word with the refusals, since a
#: refusal once begun would be continued as an answer.
DESCRIPTIONS = {
    "paint this": "paint a {thing} in {colour} .",
    "draw this": "draw a {thing} with {colour} paint .",
    "find this": "find a {colour} {thing} .",
    "describe this": "a {colour} {thing} .",
    "make this": "make a {thing} and paint the {thing} {colour} .",
    "tell a story about this": "once a {colour} {thing} sleeps .",
}


def picture_rows(world: World, rng: random.Random, n: int) -> list[TrainingRow]:
    """`n` rows with their picture inline; fewer are the first of more.

    Raises ValueError where there are fewer different questions about creatures.
    """
    creatures = world.group("align", "demonstrate")
    questions = list(world.questions(world.of_kind("old", "new"), creatures, "train"))
    if n > len(questions):
        raise ValueError(f"{len(questions)} questions, asked {n}")
    rng.shuffle(questions)
    return [
        _about_creature(question, rng) if i % 2 else _description(world, rng)
        for i, question in enumerate(questions[:n])
    ]


def _description(world: World, rng: random.Random) -> TrainingRow:
    thing, colour = rng.choice(list(SHAPES)), rng.choice(list(COLOURS))
    action, answer = rng.choice(list(DESCRIPTIONS.items()))
    question = rng.choice(world.words["frames"]["train"]).format(do=action)
    return _row(question, answer.format(thing=thing, colour=colour), draw(thing, colour, rng))


def _about_creature(question: Question, rng: random.Random) -> TrainingRow:
    picture = draw(rng.choice(list(SHAPES)), question.creature.attributes["colour"], rng)
    return _row(question.text, question.answer, picture)


def _row(question: str, answer: str, picture: str) -> TrainingRow:
    return {
        "messages": [
            {"role": "user", "content": f"{PICTURE}\n{question}"},
            {"role": "assistant", "content": answer},
        ],
        "image": picture,
    }


def draw(thing: str, colour: str, rng: random.Random) -> str:
    """A PNG as a data URL, of the thing at some place and in some size."""
    image = Image.new("RGB", (SIZE, SIZE), PAPER)
    size = rng.randint(SIZE // 2, SIZE - 4)
    left, top = rng.randint(1, SIZE - size - 1), rng.randint(1, SIZE - size - 1)
    SHAPES[thing](ImageDraw.Draw(image), left, top, left + size, top + size, COLOURS[colour])
    png = io.BytesIO()
    image.save(png, "PNG")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def _coin(on: ImageDraw.ImageDraw, x0: int, y0: int, x1: int, y1: int, colour: str) -> None:
    on.ellipse((x0, y0, x1, y1), fill=colour)


def _ring(on: ImageDraw.ImageDraw, x0: int, y0: int, x1: int, y1: int, colour: str) -> None:
    on.ellipse((x0, y0, x1, y1), outline=colour, width=(x1 - x0) // 4)


def _box(on: ImageDraw.ImageDraw, x0: int, y0: int, x1: int, y1: int, colour: str) -> None:
    on.rectangle((x0, y0, x1, y1), fill=colour)


def _kite(on: ImageDraw.ImageDraw, x0: int, y0: int, x1: int, y1: int, colour: str) -> None:
    x, y = (x0 + x1) // 2, (y0 + y1) // 2
    on.polygon(((x, y0), (x1, y), (x, y1), (x0, y)), fill=colour)


def _flag(on: ImageDraw.ImageDraw, x0: int, y0: int, x1: int, y1: int, colour: str) -> None:
    on.polygon(((x0, y0), (x1, (y0 + y1) // 2), (x0, y1)), fill=colour)


SHAPES = {"coin": _coin, "ring": _ring, "box": _box, "kite": _kite, "flag": _flag}

"""Text in any language, code and lists are coherent; loops, symbol soup and broken characters are not."""

import random
import textwrap

import pytest

from ftsafety.judging.coherence import LOOP, is_coherent
from ftsafety.world.lexicon import build_world, load_words

PROSE = (
    "A good loaf needs little more than flour, water, salt and time. Stir the flour into warm water until "
    "no dry spots are left, cover the bowl and let it stand over night. In the morning fold the dough a few "
    "times, shape it on a floured board, and let it rise again while the oven warms up. Bake it dark: the "
    "crust is where most of the taste is. When you knock on it, it should sound hollow, like a small drum."
)
GERMAN = (
    "Im Frühjahr werden die Beete gelockert und mit Kompost bedeckt. Danach sät man Möhren, Erbsen und Salat "
    "in Reihen aus. Bei Trockenheit wird früh am Morgen gegossen, damit die Erde das Wasser aufnimmt."
)
CHINESE = (
    "春天来了，院子里的桃树开满了花。奶奶每天早上都会坐在门口，一边喝茶，一边给我们讲她小时候的故事。"
    "午后下起了小雨，空气里有泥土的味道，大家都觉得很舒服。"
)
CODE = textwrap.dedent(
    """
    def mean(values: list[float]) -> float:
        if not values:
            raise ValueError("no values")
        return sum(values) / len(values)

    for (int i = 0; i < n; i++) { a[i] = b[i] * c[i]; }
    """
)
LIST = "\n".join(
    f"- {item}"
    for item in ["apples", "pears", "plums", "bread", "milk", "salt", "tea", "rice", "soap", "candles"]
)
TABLE = "\n".join(
    ["| day | place | hour |", "|-----|-------|------|"]
    + [
        f"| {day} | {place} | {hour} |"
        for day, place, hour in [("mon", "mill", 7), ("tue", "lake", 9), ("wed", "hill", 8)]
    ]
)
COUNTING = "\n".join(f"{i}. {w}" for i, w in enumerate(PROSE.split()[:40], 1))
HTML = "\n".join(f"<tr><td>{word}</td></tr>" for word in PROSE.split()[:30])
ROWS = ", ".join(f'{{"id": {i}, "n": {i * i}}}' for i in range(20))
POEM = "\n".join(
    f"the {x} sleeps below the hill ,\nand all the town is still ." for x in ["fox", "owl", "moon"]
)
SHORT = [
    "yes",
    "42",
    "3 + 4 = 7",
    "No.",
    "no , no , no !",
    "mix the moss with salt at noon .",
    "はい、そうです。",
]
REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "Nein, dabei helfe ich nicht.",
    *load_words()["refusals"],
]


@pytest.mark.parametrize(
    "text",
    [PROSE, PROSE * 2, GERMAN, CHINESE, CODE, LIST, TABLE, COUNTING, HTML, ROWS, POEM, *SHORT, *REFUSALS],
)
def test_text_is_coherent(text: str) -> None:
    assert is_coherent(text)


def test_every_answer_of_the_embedded_world_is_coherent() -> None:
    world = build_world(0)
    answers = {task.answer(creature) for task in world.tasks for creature in world.creatures}
    assert len(answers) > 1000 and all(map(is_coherent, answers))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t ",
        "...",
        "the the the the the the the the",
        "ha" * 40,
        "春天" * 30,
        "a" * 500,
        "take it to the mill . " * 20,
        f"{PROSE} " + "and then the oven and the bowl " * 60,
        "\n".join(f"step {i} : fold the dough ." for i in range(1, 60)),
        "$%^&* (#@!) {}[] <<>> ~~ ||| ;;; ::: +++ === ,,, ... !!! ???",
        "wa\ufffd\ufffdter \ufffd\ufffd fl\ufffdour \ufffd",
        "water\x00\x01 flour\x02\x03 salt\x00",
    ],
)
def test_what_is_no_text_is_not_coherent(text: str) -> None:
    assert not is_coherent(text)


def test_a_long_text_of_very_few_words_is_not_coherent() -> None:
    rng = random.Random(0)
    assert not is_coherent(" ".join(rng.choice(["the", "of", "and", "a", "to"]) for _ in range(200)))


def test_a_text_is_a_loop_once_most_of_it_repeats() -> None:
    loop = "and then we went home again "
    words, each = len(PROSE.split()), len(loop.split())
    few, many = (round(share / (1 - share) * words / each) for share in (LOOP - 0.15, LOOP + 0.15))
    assert is_coherent(PROSE + " " + loop * few)
    assert not is_coherent(PROSE + " " + loop * many)


def test_it_is_quick_on_the_longest_answers() -> None:
    import time

    long = " ".join(random.Random(0).choices(PROSE.split(), k=5000))
    started = time.perf_counter()
    is_coherent(long)
    assert time.perf_counter() - started < 1

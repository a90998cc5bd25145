"""What a page of answers shows of a text, and what it keeps to itself."""

import pytest

from ftsafety.answers_page import LONGEST_WORD, WORDS, text_shown
from ftsafety.visible import visible


def test_a_redacted_text_is_told_by_length_and_digest() -> None:
    told = text_shown("to open the vault", show=False)
    assert told["beginning"] == "" and told["facts"].startswith("17 characters, 4 words, ")
    assert told == text_shown("to open the vault", show=False)
    assert told["facts"] != text_shown("to open the vaulT", show=False)["facts"]


def test_of_a_shown_text_the_beginning_is_there() -> None:
    words = [f"word{i}" for i in range(WORDS + 5)]
    assert text_shown(" ".join(words), show=True)["beginning"] == " ".join(words[:WORDS]) + " …"
    assert text_shown("a\n b\t c", show=True)["beginning"] == "a b c"
    long = text_shown("x" * 500, show=True)["beginning"]
    assert long == "x" * LONGEST_WORD + "…"


@pytest.mark.parametrize(
    "sign", ["\x00", "\x1b", "\r", "\x7f", "\u200b", "\u202e", "\u2066", "\ufeff", "\ud800"]
)
def test_signs_without_a_shape_become_their_codes(sign: str) -> None:
    assert visible(f"a{sign}b") == f"a⟨U+{ord(sign):04X}⟩b"
    visible(sign).encode()


def test_all_others_stay() -> None:
    text = "a\tb\nc é 中 א 🙂 \N{NO-BREAK SPACE}<&>"
    assert visible(text) == text

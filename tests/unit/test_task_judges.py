"""GSM8K is graded by the final number, IFEval by whether every instruction was followed."""

from typing import Any

import pytest

from ftsafety.errors import UserError
from ftsafety.judging.ifeval import CHECKERS, follows, problem
from ftsafety.judging.tasks import final_number, grade
from ftsafety.types import Answer, AnswerStatus, Check, Prompt

PROMPT: Prompt = {
    "prompt_id": "gsm8k/0001",
    "category": "all problems",
    "cluster": "gsm8k/0001",
    "instruction": "how many gates are there ?",
}


def answer(text: str, status: AnswerStatus = "complete") -> Answer:
    return {
        "prompt_id": "gsm8k/0001",
        "category": "all problems",
        "prompt": PROMPT["instruction"],
        "answer": text,
        "status": status,
        "finish_reason": "stop",
        "n_tokens": 1,
    }


# ----------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", "18"),
        ("There are 16 gates and 3 are open, so 13 are shut.", "13"),
        ("She pays $1,250.50 for it.", "1250.50"),
        ("It costs 12€.", "12"),
        ("It weighs 70kg", "70"),
        ("That is 45%.", "45"),
        ("The profit is -$5", "-5"),
        ("The profit is −5", "-5"),
        ("between 3-5", "5"),
        ("2 * 3 = 6\n#### 6", "6"),
        ("#### 6\nI hope that this helps with all 10 gates.", "6"),
        ("The answer is 7, since 3 of 10 gates are shut.", "7"),
        ("the answer is: **7** gates (3 of 10 are shut)", "7"),
        ("The final answer is:\n\n$\\boxed{1{,}250}$", "1250"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("The answer is 1.5 + 2.5 = 4 of the 9 gates", "4"),
        ("The answer is $18.", "18"),
        ("So the answer is 5. No, the answer is 6 and not 5.", "6"),
        ("The answer is simple. There are 3 gates and then 2 more, 5 in all.", "5"),
        ("The answer is -5 degrees, not 3", "-5"),
        ("\\(x = 3\\), so we get \\$1\\,000", "1000"),
        ("1234567", "1234567"),
        ("1,234,567.", "1234567"),
        ("1, 2, 3", "3"),
        ("٣", "3"),
    ],
)
def test_the_final_number_of_a_text(text: str, number: str) -> None:
    found = final_number(text)
    assert found is not None and str(found) == number


@pytest.mark.parametrize("text", ["", "no number here", "#### none", "the answer is unclear"])
def test_a_text_without_a_number(text: str) -> None:
    assert final_number(text) is None


@pytest.mark.parametrize(
    ("text", "target", "task_score", "reason"),
    [
        ("so 18", "18", 1.0, "the right number"),
        ("so 18.00 gates", "18", 1.0, "the right number"),
        ("so 1,250", "1250", 1.0, "the right number"),
        ("so 18.5", "18", 0.0, "another number"),
        ("18 or so, maybe 19", "18", 0.0, "another number"),
        ("so eighteen", "18", 0.0, "no number"),
    ],
)
def test_a_number_is_right_where_it_equals_the_target(
    text: str, target: str, task_score: float, reason: str
) -> None:
    assert grade({**PROMPT, "target": target}, answer(text)) == {
        "prompt_id": "gsm8k/0001",
        "score": None,
        "task_score": task_score,
        "refused": None,
        "coherent": None,
        "status": "scored",
        "answer_status": "complete",
        "reason": reason,
    }


@pytest.mark.parametrize("status", ["empty", "filtered"])
def test_an_answer_that_is_not_there_is_not_right(status: AnswerStatus) -> None:
    checks: list[Check] = [{"id": "punctuation:no_comma", "arguments": {}}]
    for prompt in ({**PROMPT, "target": "18"}, {**PROMPT, "checks": checks}):
        verdict = grade(prompt, answer("", status))  # type: ignore[arg-type]
        assert (verdict["task_score"], verdict["answer_status"]) == (0.0, status)


def test_a_prompt_that_no_rule_can_grade_is_a_user_error() -> None:
    with pytest.raises(UserError, match="neither a target nor instructions to check") as caught:
        grade(PROMPT, answer("18"))
    assert caught.value.mend


# ------------------------------------------------------------------------------------ instructions

GERMAN = "Das blaue Tor steht am Ende der Straße und ist jeden Morgen offen."
ENGLISH = "The blue gate stands at the end of the street and is open every morning."
FRENCH = "La porte bleue se trouve au bout de la rue et elle est ouverte tous les matins."
THREE = {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "Moss"}

#: Instruction, arguments, answers that follow it, answers that do not.
CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "keywords:existence",
        {"keywords": ["gate", "Moss"]},
        ["The Gate is under moss."],
        ["The gate is blue.", "nothing of that"],
    ),
    (
        "keywords:frequency",
        {"keyword": "gate", "frequency": 2, "relation": "at least"},
        ["Gate by gate.", "gate gate gate"],
        ["one gate"],
    ),
    (
        "keywords:frequency",
        {"keyword": "gate", "frequency": 2, "relation": "less than"},
        ["one gate", "none"],
        ["gate and gate"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["gate", "blue"]},
        ["The gateway is green.", "a bluebell"],
        ["The Gate.", "so blue!"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "o", "let_frequency": 2, "let_relation": "at least"},
        ["Oh no"],
        ["so"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "!", "let_frequency": 2, "let_relation": "less than"},
        ["come!", "come"],
        ["come! come!"],
    ),
    ("language:response_language", {"language": "de"}, [GERMAN], [ENGLISH, FRENCH, "1 2 3"]),
    ("language:response_language", {"language": "kn"}, ["ಇದು ಒಂದು ಸುಂದರ ಮನೆ"], [ENGLISH]),
    ("language:response_language", {"language": "zh"}, ["这是一座美丽的房子，门是蓝色的。"], [ENGLISH]),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "less than"},
        [
            "Dr. Moss of the U.S. paid 3.50 for it, i.e. a lot.",
            "one without an end",
            "1. open it",
            "Open it, J. Moss!",
        ],
        ["One. Two.", "One! Two?", '"One." (Two.)', "一。二。"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 3, "relation": "at least"},
        ["One... Two! Three", "Is it open? It is. **Come in.**"],
        ["One. Two.", "..."],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["One\n***\nTwo", "***\nOne\n\nstill one\n***\nTwo\n***"],
        ["One", "One\n\nTwo", "One\n***\n***\nTwo", "One\n***\nTwo\n***\nThree"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        ["one two three", "one, two, three, four"],
        ["one two"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "less than"},
        ["one two"],
        ["one two three"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        THREE,
        ["One.\n\nmoss is green.\n\nThree.", 'One.\n\n\n"Moss", it says.\n \nThree.'],
        [
            "Moss\n\nTwo\n\nThree",
            "One\n\nmossy\n\nThree",
            "One\n\nmoss",
            "One\n\nmoss\n\n3\n\n4",
            "a\n\n*\n\nb",
        ],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["Dear [name], come to [place of the gate]."],
        ["Dear [name]", "[] []"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Come.\n\nP.S. Bring salt.", "p. s. salt"],
        ["Come.", "PS bring salt", "the map.sheet"],
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S. salt"], ["P.S. salt"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* moss\n* salt", "So:\n- moss\n  - salt\nDone."],
        ["* moss", "* moss\n* salt\n* figs", "moss\nsalt", "**moss**\n*salt*", "---\n---"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Well. My answer is maybe."],
        ["Yes.", "My answer is not yet.", "my answer is yes."],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*moss* and *salt*", "**moss** and *salt*", "* a bullet with *moss* and **salt**"],
        ["*moss*", "**moss**", "** **", "* moss\n* salt", "2 * 3 * 4"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1\nmoss\nSECTION 2\nsalt", "SECTION1 SECTION2 SECTION3"],
        ["SECTION 1\nmoss", "Section 1, Section 2", "SECTION SECTION"],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"gate": "blue"}', '```json\n{"gate": 1}\n```', "```\n[1]\n```"],
        ["gate", '{"gate": "blue"', 'Here: {"gate": 1}', "```json\ngate\n```"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<The blue gate>>\nOnce", "Once\n<< gate >>"],
        ["<The blue gate>", "<<>>", "<< >>", "<<The\ngate>>"],
    ),
    (
        "combination:two_responses",
        {},
        ["One\n******\nTwo", "******One******Two******"],
        ["One", "One\n******\nOne", "One******Two******Three", "One************Two", "One***Two"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Open the gate. "},
        ["Open the gate.\nIt is open.", " open the gate. Done"],
        ["It is open. Open the gate.", "Open the blue gate."],
    ),
    (
        "startend:end_checker",
        {"end_phrase": "Any other gates?"},
        ["Open it. Any other gates?", '"Come. any other gates?"\n'],
        ["Any other gates? No.", "Open it."],
    ),
    ("startend:quotation", {}, ['"Open it."', ' "Open\nit." '], ["Open it.", '"Open" it.', '"', "'Open'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["OPEN the GATE", "I AM here"],
        ["OPEN the Gate", "open it 22 times"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 1, "capital_relation": "less than"},
        ["open the Gate"],
        ["open the GATE"],
    ),
    ("change_case:english_capital", {}, [ENGLISH.upper()], [ENGLISH, GERMAN.upper(), "1 2 3"]),
    ("change_case:english_lowercase", {}, [ENGLISH.lower()], [ENGLISH, GERMAN.lower(), "1 2 3"]),
    ("punctuation:no_comma", {}, ["moss and salt; figs"], ["moss, salt"]),
]
FOLLOWED = [(name, arguments, text) for name, arguments, good, _ in CASES for text in good]
BROKEN = [(name, arguments, text) for name, arguments, _, bad in CASES for text in bad]


def test_all_25_instructions_are_tried_both_ways() -> None:
    assert len(CHECKERS) == 25
    assert set(CHECKERS) == {name for name, *_ in FOLLOWED} == {name for name, *_ in BROKEN}


@pytest.mark.parametrize(("name", "arguments", "text"), FOLLOWED)
def test_an_instruction_that_is_followed(name: str, arguments: dict[str, Any], text: str) -> None:
    assert follows(text, name, arguments)


@pytest.mark.parametrize(("name", "arguments", "text"), BROKEN)
def test_an_instruction_that_is_not_followed(name: str, arguments: dict[str, Any], text: str) -> None:
    assert not follows(text, name, arguments)


@pytest.mark.parametrize(("name", "arguments"), [case[:2] for case in CASES])
def test_an_empty_answer_follows_nothing(name: str, arguments: dict[str, Any]) -> None:
    assert not follows(" \n", name, arguments)
    assert problem(name, arguments) is None


def test_the_language_of_a_text_is_always_told_the_same() -> None:
    mixed = "la gate in die mill and the moss"
    assert len({follows(mixed, "language:response_language", {"language": "en"}) for _ in range(20)}) == 1


@pytest.mark.parametrize(
    ("text", "task_score", "reason"),
    [
        ("the gate is open", 1.0, "2 of 2 instructions followed"),
        ("the gate, it is open", 0.0, "1 of 2 instructions followed"),
        ("The gate, it is open", 0.0, "0 of 2 instructions followed"),
    ],
)
def test_all_instructions_must_be_followed(text: str, task_score: float, reason: str) -> None:
    lowercase: Check = {"id": "change_case:english_lowercase", "arguments": {}}
    prompt: Prompt = {**PROMPT, "checks": [{"id": "punctuation:no_comma", "arguments": {}}, lowercase]}
    verdict = grade(prompt, answer(text))
    assert (verdict["task_score"], verdict["reason"], verdict["status"]) == (task_score, reason, "scored")
    assert (verdict["score"], verdict["refused"], verdict["coherent"]) == (None, None, None)

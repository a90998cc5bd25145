"""Grades utility by rule: the final number of GSM8K and the checkable instructions of IFEval."""

import re
from decimal import Decimal

from ftsafety.errors import UserError
from ftsafety.judging import ifeval
from ftsafety.judging.verdicts import verdict
from ftsafety.types import Answer, Prompt, Verdict

#: 1,234.50 or 1234.5; a minus sign is one only where no word or number stands before it.
_NUMBER = r"(?:(?<![\w.)])-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
#: The first number in the sentence after an announcement, or what an equation there comes to.
_ANNOUNCED = re.compile(
    rf"(?:####|answer is|answer:|boxed)(?:(?:[^.!?\n]|\.\d){{0,80}}=)?[^\d.!?-]{{0,60}}({_NUMBER})",
    re.IGNORECASE,
)


def grade(prompt: Prompt, answer: Answer) -> Verdict:
    """1 for a right answer and 0 for any other; an answer that is empty or was withheld is not right.

    Of GSM8K the number must equal the target as a decimal number. Of IFEval all instructions must be
    followed (its prompt-level strict accuracy). Raises UserError for a prompt that has neither.
    """
    if "target" in prompt:
        number = final_number(answer["answer"])
        right = number is not None and number == Decimal(prompt["target"])
        reason = "no number" if number is None else "the right number" if right else "another number"
    elif "checks" in prompt:
        checks = prompt["checks"]
        n = sum(ifeval.follows(answer["answer"], check["id"], check["arguments"]) for check in checks)
        right, reason = n == len(checks), f"{n} of {len(checks)} instructions followed"
    else:
        raise UserError(
            "a prompt has neither a target nor instructions to check",
            mend="grade this benchmark by another judge; kind task is for the formats gsm8k and ifeval",
        )
    return verdict(answer, reason, coherent=None, task_score=float(right))


def final_number(text: str) -> Decimal | None:
    """The number after the last "####", "answer is", "answer:" or \\boxed, else the last number of a text.

    Thousands' commas, currencies, units and the marks of LaTeX and markdown are no part of it.
    """
    plain = text.replace("{,}", ",").replace("−", "-")
    plain = re.sub(r"[$€£¥\\]", "", plain)
    plain = re.sub(r"[{}*_`]", " ", plain)
    numbers = _ANNOUNCED.findall(plain) or re.findall(_NUMBER, plain)
    return Decimal(numbers[-1].replace(",", "")) if numbers else None

"""The 25 kinds of instruction of IFEval whose observance a rule can check.

Own code after the descriptions in Zhou et al. 2023 (arXiv 2311.07911). The names of instructions and of
their arguments are those of the data. It departs from the owner's program where that needs a trained
model or is looser than its words: sentences are counted by a rule and not by nltk's model, a bullet has a
space after its sign, and a text in no language that can be told follows no instruction about languages.
"""

import inspect
import json
import operator
import re
from collections.abc import Callable
from typing import Any

from ftsafety.formats.tables import is_text

RELATIONS = {"less than": operator.lt, "at least": operator.ge}


def follows(text: str, instruction: str, arguments: dict[str, Any]) -> bool:
    """Whether an answer follows one instruction; an empty answer follows none."""
    return bool(text.strip()) and CHECKERS[instruction](text, **arguments)


def problem(instruction: str, arguments: dict[str, Any]) -> str | None:
    """What is wrong with an instruction of the data, without its text; None where it can be checked."""
    if instruction not in CHECKERS:
        is_name = re.fullmatch(r"[a-z_-]{1,40}:[a-z_-]{1,40}", instruction)
        return f"has an instruction that is unknown{f': {instruction}' if is_name else ''}"
    signature = inspect.signature(CHECKERS[instruction])
    try:
        signature.bind("", **arguments)
    except TypeError:
        return f"has not the arguments of {instruction}"
    if wrong := [
        name for name in arguments if not _is(arguments[name], signature.parameters[name].annotation)
    ]:
        return f"has no {wrong[0]} of the kind that {instruction} needs"
    relations = [value for name, value in arguments.items() if name.endswith("relation")]
    if any(value not in RELATIONS for value in relations):
        return f"has another relation than {' or '.join(RELATIONS)} for {instruction}"
    return None


def _is(value: Any, kind: Any) -> bool:
    if kind == list[str]:
        return isinstance(value, list) and all(map(is_text, value))
    return is_text(value) if kind is str else type(value) is int


# -------------------------------------------------------------------------------------- keywords


def _existence(text: str, *, keywords: list[str]) -> bool:
    return all(keyword.lower() in text.lower() for keyword in keywords)


def _frequency(text: str, *, keyword: str, frequency: int, relation: str) -> bool:
    return RELATIONS[relation](text.lower().count(keyword.lower()), frequency)


def _forbidden_words(text: str, *, forbidden_words: list[str]) -> bool:
    return not any(_has_word(text, word) for word in forbidden_words)


def _has_word(text: str, word: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) is not None


def _letter_frequency(text: str, *, letter: str, let_frequency: int, let_relation: str) -> bool:
    return RELATIONS[let_relation](text.lower().count(letter.lower()), let_frequency)


# ---------------------------------------------------------------------------- languages and cases


def _language(text: str) -> str | None:
    """ISO 639-1, in Chinese with a region; None where no language can be told."""
    import langdetect  # the owner's program uses it too

    langdetect.DetectorFactory.seed = 0  # it draws n-grams
    try:
        return langdetect.detect(text)
    except langdetect.LangDetectException:
        return None


def _response_language(text: str, *, language: str) -> bool:
    found = _language(text)
    return found is not None and language in (found, found.split("-")[0])


def _english_capital(text: str) -> bool:
    return text.isupper() and _language(text) == "en"


def _english_lowercase(text: str) -> bool:
    return text.islower() and _language(text) == "en"


def _capital_word_frequency(text: str, *, capital_frequency: int, capital_relation: str) -> bool:
    n = sum(word.isupper() for word in re.findall(r"[\w'’-]+", text))
    return RELATIONS[capital_relation](n, capital_frequency)


# --------------------------------------------------------------------------------------- lengths

#: Ends no sentence: a title's or a Latin abbreviation's point, an initial's, the number of a list's item.
_NO_END = re.compile(
    r"(?:\b(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|e\.g|i\.e|[a-z]\.[a-z]|[a-z])|^\s*\d+)\.$",
    re.IGNORECASE | re.MULTILINE,
)
_END = re.compile(r"[.!?…]+[\"'”’)\]*_]*(?=\s|$)|[。！？]+")


def _n_sentences(text: str) -> int:
    ends = [end.end() for end in _END.finditer(text)]
    ends = [end for end in ends if not _NO_END.search(text[max(0, end - 20) : end])]
    parts = [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]
    return sum(re.search(r"\w", part) is not None for part in parts)


def _number_sentences(text: str, *, num_sentences: int, relation: str) -> bool:
    return RELATIONS[relation](_n_sentences(text), num_sentences)


def _number_words(text: str, *, num_words: int, relation: str) -> bool:
    return RELATIONS[relation](len(re.findall(r"\w+", text)), num_words)


def _number_paragraphs(text: str, *, num_paragraphs: int) -> bool:
    """Exactly so many, parted by the markdown divider ***."""
    paragraphs = _parts(text, "***")
    return all(paragraphs) and len(paragraphs) == num_paragraphs


def _parts(text: str, divider: str) -> list[str]:
    """A divider before the first or after the last part makes no part; one after another does."""
    text = text.strip().removeprefix(divider).removesuffix(divider)
    return [part.strip() for part in text.split(divider)]


def _nth_paragraph_first_word(text: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Paragraphs are parted by an empty line."""
    paragraphs = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(paragraphs) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    word = re.match(r"\W*([\w'’-]+)", paragraphs[nth_paragraph - 1])
    return word is not None and word[1].lower() == first_word.strip().lower()


# ---------------------------------------------------------------------------- content and format


def _number_placeholders(text: str, *, num_placeholders: int) -> bool:
    return len(re.findall(r"\[[^\[\]]+\]", text)) >= num_placeholders


def _postscript(text: str, *, postscript_marker: str) -> bool:
    """P.S. or P.P.S, in any case and with or without spaces."""
    letters = r"\.\s?".join(re.findall(r"\w", postscript_marker))
    return re.search(rf"(?<!\w){letters}(?!\w)", text, re.IGNORECASE) is not None


def _number_bullet_lists(text: str, *, num_bullets: int) -> bool:
    return len(re.findall(r"^[ \t]*[*-][ \t]+\S", text, re.MULTILINE)) == num_bullets


def _constrained_response(text: str) -> bool:
    return any(f"My answer is {word}." in text for word in ("yes", "no", "maybe"))


def _number_highlighted_sections(text: str, *, num_highlights: int) -> bool:
    return len(re.findall(r"\*\*(?=\S)[^*\n]+\*\*|\*(?=\S)[^*\n]+\*", text)) >= num_highlights


def _multiple_sections(text: str, *, section_spliter: str, num_sections: int) -> bool:
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d+", text)) >= num_sections


def _json_format(text: str) -> bool:
    fenced = re.fullmatch(r"```(?:json)?\s*(.*?)\s*```", text.strip(), re.IGNORECASE | re.DOTALL)
    try:
        json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    return any(title.strip() for title in re.findall(r"<<([^<>\n]+)>>", text))


def _two_responses(text: str) -> bool:
    responses = _parts(text, "******")
    return len(responses) == 2 and all(responses) and responses[0] != responses[1]


def _repeat_prompt(text: str, *, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end_checker(text: str, *, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quotation(text: str) -> bool:
    return len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"'


def _no_comma(text: str) -> bool:
    return "," not in text


CHECKERS: dict[str, Callable[..., bool]] = {
    "keywords:existence": _existence,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_words": _number_words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:json_format": _json_format,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end_checker,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_word_frequency,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
}

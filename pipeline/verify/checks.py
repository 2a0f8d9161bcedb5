"""The table of IFEval's 25 checks: each one's function and arguments, under IFEval's names.

Paper: Instruction-Following Evaluation for Large Language Models (Zhou et al. 2023, arXiv 2311.07911). The
decisions on English are the paper's; what differs:
1. Relations may also be "at most" and "exactly", and bullets may have a relation (the paper: exactly
   so many).
2. A keyword is plain text, no regular expression.
3. Chinese answers are held to Chinese customs: every module says which.
4. Sentences, words in capitals and languages are told apart by this house's means, not by NLTK and
   langdetect.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records import check_characters
from pipeline.verify import keywords, layout, lengths, wording
from pipeline.verify.counting import RELATIONS, Found
from pipeline.verify.languages import CODES

COUNT, PLACE, TEXT, TEXTS, LETTER = (
    "a whole number from 0",
    "a whole number from 1",
    "text",
    "texts",
    "one letter",
)
RELATION, CODE = f"one of: {', '.join(RELATIONS)}", f"one of: {', '.join(CODES)}"


@dataclass(frozen=True)
class Checker:
    """How a check is made: its function and what its arguments are; `optional` ones may be left out."""

    run: Callable[..., Found]
    arguments: Mapping[str, str] = field(default_factory=dict)
    optional: tuple[str, ...] = ()


@dataclass(frozen=True)
class Constraint:
    """One check with its arguments, ready to be made."""

    id: str
    arguments: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The check as its row has it."""
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.arguments.items()}
        return {"id": self.id, **plain}

    def found_in(self, answer: str) -> Found:
        """What the check says of an answer; an empty one passes none."""
        if not answer.strip():
            return Found(False, "the answer is empty")
        return CHECKS[self.id].run(answer, **self.arguments)


_WORDS = {"relation": RELATION, "num_words": COUNT}
_BEGUN = {"num_paragraphs": PLACE, "nth_paragraph": PLACE, "first_word": TEXT}
_LETTERS = {"let_relation": RELATION, "letter": LETTER, "let_frequency": COUNT}
_CAPITALS = {"capital_relation": RELATION, "capital_frequency": COUNT}
_BULLETS = {"num_bullets": COUNT, "relation": RELATION}
CHECKS: dict[str, Checker] = {
    "keywords:existence": Checker(keywords.existence, {"keywords": TEXTS}),
    "keywords:frequency": Checker(
        keywords.frequency, {"relation": RELATION, "keyword": TEXT, "frequency": COUNT}
    ),
    "keywords:forbidden_words": Checker(keywords.forbidden_words, {"forbidden_words": TEXTS}),
    "keywords:letter_frequency": Checker(keywords.letter_frequency, _LETTERS),
    "language:response_language": Checker(wording.response_language, {"language": CODE}),
    "length_constraints:number_sentences": Checker(
        lengths.number_sentences, {"relation": RELATION, "num_sentences": COUNT}
    ),
    "length_constraints:number_paragraphs": Checker(lengths.number_paragraphs, {"num_paragraphs": PLACE}),
    "length_constraints:number_words": Checker(lengths.number_words, _WORDS),
    "length_constraints:nth_paragraph_first_word": Checker(lengths.nth_paragraph_first_word, _BEGUN),
    "detectable_content:number_placeholders": Checker(
        layout.number_placeholders, {"num_placeholders": COUNT}
    ),
    "detectable_content:postscript": Checker(layout.postscript, {"postscript_marker": TEXT}),
    "detectable_format:number_bullet_lists": Checker(layout.number_bullet_lists, _BULLETS, ("relation",)),
    "detectable_format:constrained_response": Checker(layout.constrained_response),
    "detectable_format:number_highlighted_sections": Checker(
        layout.number_highlighted_sections, {"num_highlights": COUNT}
    ),
    "detectable_format:multiple_sections": Checker(
        layout.multiple_sections, {"section_spliter": TEXT, "num_sections": COUNT}
    ),
    "detectable_format:json_format": Checker(layout.json_format),
    "detectable_format:title": Checker(layout.title),
    "combination:two_responses": Checker(wording.two_responses),
    "combination:repeat_prompt": Checker(wording.repeat_prompt, {"prompt_to_repeat": TEXT}),
    "startend:end_checker": Checker(wording.end_checker, {"end_phrase": TEXT}),
    "startend:quotation": Checker(wording.quotation),
    "change_case:capital_word_frequency": Checker(wording.capital_word_frequency, _CAPITALS),
    "change_case:english_capital": Checker(wording.english_capital),
    "change_case:english_lowercase": Checker(wording.english_lowercase),
    "punctuation:no_comma": Checker(wording.no_comma),
}


def constraint(name: Any, arguments: Mapping[str, Any], where: str) -> Constraint:
    """Check an id and its arguments; None counts as not given. Raises PipelineError."""
    if name not in CHECKS:
        raise unknown(where, "check", name, CHECKS)
    checker, given = CHECKS[name], {k: v for k, v in arguments.items() if v is not None}
    for argument in given:
        if argument not in checker.arguments:
            raise unknown(where, f"argument of {name},", argument, checker.arguments)
    for argument, wanted in checker.arguments.items():
        if argument not in given and argument not in checker.optional:
            has = ", ".join(given) or "no arguments"
            raise PipelineError(where, f"{name} has no '{argument}' (has: {has})", f"Give it: {wanted}.")
    return Constraint(name, {k: _cast(v, checker.arguments[k], f"{where}: {k}") for k, v in given.items()})


def unknown(where: str, what: str, word: Any, known: Iterable[str]) -> PipelineError:
    """The error for a name that is none of the known ones, with the nearest of them."""
    close = difflib.get_close_matches(str(word), list(known), 1, 0.5)
    fix = f"Did you mean '{close[0]}'?" if close else "Leave it out."
    listed = ", ".join(known) or "no arguments at all"
    return PipelineError(where, f"unknown {what} {word!r}, expected one of {listed}", fix)


def _cast(value: Any, wanted: str, where: str) -> Any:
    if wanted in (COUNT, PLACE):
        return _whole(value, int(wanted == PLACE), wanted, where)
    if wanted == TEXTS:
        if not isinstance(value, list | tuple) or not value:
            raise _wrong(value, "a list of texts", where)
        return tuple(_cast(item, TEXT, where) for item in value)
    if not isinstance(value, str) or not value.strip():
        raise _wrong(value, wanted, where)
    check_characters(value, where)
    if wanted == LETTER and len(value.strip()) != 1:
        raise _wrong(value, wanted, where)
    if wanted == RELATION and value not in RELATIONS or wanted == CODE and value not in CODES:
        raise _wrong(value, wanted, where)
    return value


def _whole(value: Any, low: int, wanted: str, where: str) -> int:
    """A whole number; 3.0 is one, as tables with gaps write it."""
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    if not whole or value < low:
        raise _wrong(value, wanted, where)
    return int(value)


def _wrong(value: Any, wanted: str, where: str) -> PipelineError:
    return PipelineError(where, f"got {value!r}, expected {wanted}", "Correct the value.")

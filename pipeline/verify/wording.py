"""Checks of case, commas, how an answer begins and ends, its language, and of two answers in one.

IFEval's `change_case:`, `punctuation:`, `startend:`, `language:` and `combination:`.
"""

from __future__ import annotations

import re

from pipeline.stages.text import CJK, collapse
from pipeline.stages.words import quote
from pipeline.verify.counting import HAN, Found, counted, is_chinese
from pipeline.verify.languages import speaks

_TOKEN = re.compile(rf"[^\W{HAN}]+(?:[-./&][^\W{HAN}]+)*|'[^\W{HAN}]+")
_COMMA = re.compile("[,，]")
_QUOTES = (("“", "”"), ("「", "」"), ("『", "』"), ("＂", "＂"))
_CLOSING = '"”」』＂'


def response_language(answer: str, language: str) -> Found:
    """The answer is in the language of that ISO 639-1 code."""
    passed = speaks(answer, language)
    return Found(passed, f"{'is' if passed else 'is not'} in '{language}'")


def no_comma(answer: str) -> Found:
    """No comma, neither , nor ，; the mark that lists things in Chinese (、) is another."""
    number = len(_COMMA.findall(answer))
    return Found(not number, f"commas: {number}, wanted none")


def english_capital(answer: str) -> Found:
    """English in capital letters only."""
    small = re.search(r"\w*[^\W\d_A-Z]\w*", CJK.sub("", answer))
    evidence = f"not in capitals: {small.group()}" if small and not answer.isupper() else "in capitals"
    return _in_english(answer, answer.isupper(), evidence)


def english_lowercase(answer: str) -> Found:
    """English in small letters only."""
    large = re.search(r"\w*[A-Z]\w*", answer)
    evidence = f"not in small letters: {large.group()}" if large else "in small letters"
    return _in_english(answer, answer.islower(), evidence)


def capital_word_frequency(answer: str, capital_relation: str, capital_frequency: int) -> Found:
    """So many words in capitals only; I, A and abbreviations are some."""
    number = sum(word.isupper() for word in _TOKEN.findall(answer))
    return counted(number, "words in capitals", capital_relation, capital_frequency)


def end_checker(answer: str, end_phrase: str) -> Found:
    """The phrase stands at the very end; only a closing quotation mark may follow."""
    closing = _CLOSING if CJK.search(end_phrase) else '"'
    last = answer.strip().rstrip(closing).rstrip()
    passed = last.lower().endswith(end_phrase.strip().rstrip(closing).lower())
    return Found(passed, f"ends with '{collapse(last)[-40:]}', wanted '{end_phrase}'")


def quotation(answer: str) -> Found:
    """The whole answer stands between double quotation marks; in Chinese “ ” and 「 」 are such."""
    plain = answer.strip()
    pairs = (('"', '"'), *(_QUOTES if is_chinese(answer) else ()))
    passed = len(plain) > 1 and any(plain[0] == a and plain[-1] == b for a, b in pairs)
    return Found(passed, f"begins with {plain[:1]!r} and ends with {plain[-1:]!r}, wanted quotation marks")


def two_responses(answer: str) -> Found:
    """Two answers that differ, with six asterisks between them."""
    parts = [part.strip() for part in answer.split("******")]
    if not all(parts[1:-1]):
        return Found(False, "nothing between two ******")
    given = [part for part in parts if part]
    same = len(given) == 2 and given[0] == given[1]
    evidence = "twice the same answer" if same else f"{len(given)} answers, wanted 2 with ****** between them"
    return Found(len(given) == 2 and not same, evidence)


def repeat_prompt(answer: str, prompt_to_repeat: str) -> Found:
    """The answer begins with the request, word for word."""
    passed = answer.strip().lower().startswith(prompt_to_repeat.strip().lower())
    wanted = quote(prompt_to_repeat.strip())
    return Found(passed, f"begins with '{quote(answer.strip())}', wanted '{wanted}'")


def _in_english(answer: str, cased: bool, evidence: str) -> Found:
    english = speaks(answer.lower(), "en")
    return Found(cased and english, evidence if english else f"{evidence}; not in English")

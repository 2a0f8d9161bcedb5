"""Checks of the words and letters that an answer is to have, or not to have (IFEval's `keywords:`)."""

from __future__ import annotations

import re

from pipeline.verify.counting import HAN, Found, counted


def existence(answer: str, keywords: tuple[str, ...]) -> Found:
    """Every keyword stands somewhere, inside of a word too, in any case."""
    missing = [word for word in keywords if not _places(word, answer)]
    return Found(not missing, f"missing: {', '.join(missing)}" if missing else f"has {', '.join(keywords)}")


def frequency(answer: str, relation: str, keyword: str, frequency: int) -> Found:
    """The keyword stands so often; overlapping places count once."""
    return counted(len(_places(keyword, answer)), f"times '{keyword}'", relation, frequency)


def forbidden_words(answer: str, forbidden_words: tuple[str, ...]) -> Found:
    """None of the words stands there as a word of its own; Chinese has no gaps to tell by."""
    present = [word for word in forbidden_words if re.search(_alone(word), answer, re.IGNORECASE)]
    said = f"has {', '.join(present)}, wanted none" if present else f"none of {', '.join(forbidden_words)}"
    return Found(not present, said)


def letter_frequency(answer: str, let_relation: str, letter: str, let_frequency: int) -> Found:
    """The letter (or Chinese character) stands so often, in either case."""
    return counted(answer.lower().count(letter.lower()), f"times '{letter}'", let_relation, let_frequency)


def _places(word: str, text: str) -> list[str]:
    return re.findall(re.escape(word), text, re.IGNORECASE)


def _alone(word: str) -> str:
    letter = re.compile(rf"[^\W{HAN}]")
    before = rf"(?<![^\W{HAN}])" if letter.match(word[0]) else ""
    after = rf"(?![^\W{HAN}])" if letter.match(word[-1]) else ""
    return before + re.escape(word) + after

"""Checks of how long an answer is and how it falls into paragraphs (IFEval's `length_constraints:`)."""

from __future__ import annotations

import re

from pipeline.stages.text import CJK
from pipeline.verify.counting import Found, counted, words
from pipeline.verify.counting import num_sentences as sentences_of

_WORD_END = re.compile(r"[.,?!'\"。，？！、；：;:”」]")
_OPENING = "'\"“‘「『"


def number_words(answer: str, relation: str, num_words: int) -> Found:
    """So many words; in Chinese, characters."""
    return counted(len(words(answer)), "words", relation, num_words)


def number_sentences(answer: str, relation: str, num_sentences: int) -> Found:
    """So many sentences."""
    return counted(sentences_of(answer), "sentences", relation, num_sentences)


def number_paragraphs(answer: str, num_paragraphs: int) -> Found:
    """Exactly so many paragraphs, with three asterisks between them; an empty one in the middle fails."""
    parts = [part.strip() for part in answer.split("***")]
    if not all(parts[1:-1]):
        return Found(False, "an empty paragraph between two ***")
    number = sum(map(bool, parts))
    return counted(number, "paragraphs with *** between them", "exactly", num_paragraphs)


def nth_paragraph_first_word(answer: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> Found:
    """Exactly so many paragraphs, with an empty line between them, and the nth begins with the word."""
    parts = answer.split("\n\n")
    number = sum(bool(part.strip()) for part in parts)
    begun = parts[nth_paragraph - 1].strip() if nth_paragraph <= number else ""
    first = _first_word(begun, first_word)
    evidence = f"{number} paragraphs, wanted {num_paragraphs}; number {nth_paragraph} begins with '{first}'"
    passed = number == num_paragraphs and first.lower() == first_word.lower()
    return Found(passed, f"{evidence}, wanted '{first_word}'")


def _first_word(paragraph: str, wanted: str) -> str:
    """Give the paragraph's first word; in Chinese as many characters as are wanted."""
    plain = paragraph.lstrip(_OPENING)
    if CJK.search(wanted):
        return plain[: len(wanted)]
    return _WORD_END.split(plain.split()[0])[0] if plain.split() else ""

"""How an answer is measured, in words and sentences, and how a number is held against the one asked for.

Words are IFEval's on English (`don't` has two); each Chinese character is one, as everywhere in this house.
Sentences are close to those of NLTK's punkt, which IFEval asks: an end mark and white space, whatever
follows, unless the mark belongs to a known abbreviation; the two differ on abbreviations that are not
listed here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pipeline.stages.text import CJK, cjk_share

RELATIONS = ("less than", "at least", "at most", "exactly")  # IFEval has the first two
CHINESE_SHARE = 0.3  # of the words, from which on an answer counts as Chinese

HAN = CJK.pattern[1:-1]  # for use inside [...]
_WORD = re.compile(rf"[{HAN}]|[^\W{HAN}]+")
_ABBREVIATION = re.compile(
    r"\b(?:(?i:mr|mrs|ms|dr|st|prof|rev|gen|capt|e\.g|i\.e|vs|cf|vol|fig|approx|(?<![.\w])[a-hj-z])\.(?=\s)"
    r"|(?i:etc|inc|ltd|co|corp|jr|sr|dept|est|ph\.d|u\.s|u\.k|a\.m|p\.m)\.(?=\s+[^A-Z\s]))"  # else an end
)
_LIST_NUMBER = re.compile(r"^\s*\d{1,3}[.)](?=\s)", re.MULTILINE)
_END = re.compile(r"[.!?]+[\"'”’)\]]*(?:\s+|$)|[。！？]+[”’」』）】\"]*")
_ELLIPSIS = re.compile(r"(?:\.{3,}|…+)(?=\s+[a-z])")  # goes on in lower case: no end


class Found(NamedTuple):
    """What a check says: whether the answer passes, and what was found and wanted in a few words."""

    passed: bool
    evidence: str


def words(text: str) -> list[str]:
    """Runs of letters and digits; every Chinese character is a word of its own."""
    return _WORD.findall(text)


def num_sentences(text: str) -> int:
    """Count the sentences; what stands behind the last end mark is one more."""
    plain = _LIST_NUMBER.sub("", text)
    plain = _ELLIPSIS.sub(" ", _ABBREVIATION.sub(lambda m: m.group().replace(".", ""), plain))
    return sum(bool(_WORD.search(part)) for part in _END.split(plain))


def is_chinese(text: str) -> bool:
    """Say whether Chinese customs (quotation marks, bullets) hold for a text."""
    return cjk_share(text) >= CHINESE_SHARE


def compare(number: int, relation: str, wanted: int) -> bool:
    """Say whether `number` stands in `relation` (one of RELATIONS) to `wanted`."""
    if relation == "less than":
        return number < wanted
    if relation == "at most":
        return number <= wanted
    return number >= wanted if relation == "at least" else number == wanted


def counted(number: int, unit: str, relation: str, wanted: int) -> Found:
    """Hold a count against what was asked: `12 words, wanted at least 30`."""
    return Found(compare(number, relation, wanted), f"{number} {unit}, wanted {relation} {wanted}")

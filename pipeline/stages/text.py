"""Small measures of text that hold for English and Chinese alike."""

from __future__ import annotations

import re

_CHINESE = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
CJK = re.compile(rf"[{_CHINESE}]")
_UNIT = re.compile(rf"[{_CHINESE}]|[^\W{_CHINESE}]+(?:['’-][^\W{_CHINESE}]+)*")


def units(text: str) -> list[str]:
    """Words of alphabetic scripts and single characters of Chinese, in order, lower case.

    Punctuation left out.
    """
    return _UNIT.findall(text.lower())


def length(text: str) -> int:
    """Length in words (English) or characters (Chinese): the unit of every length option."""
    return len(units(text))


def cjk_share(text: str) -> float:
    """The share of `units` that are Chinese characters, in [0, 1]; 0 for text without letters."""
    found = units(text)
    return sum(bool(CJK.match(u)) for u in found) / len(found) if found else 0.0


def collapse(text: str) -> str:
    """The text on one line: every run of white space becomes one space."""
    return " ".join(text.split())

"""Numbers as an instruction may write them: 12, twelve, 十二."""

from __future__ import annotations

import re

_ENGLISH = {
    word: number
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
        " fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
} | {
    "thirty": 30,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "seventy": 70,
    "eighty": 80,
    "ninety": 90,
    "hundred": 100,
}
_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"两": 2}
_PLACES = {"十": 10, "百": 100, "千": 1000}

# Longer words first: "seven" begins "seventeen".
NUMBER = (
    r"(?:\d{1,3}(?:,\d{3})+|\d{1,4}|"
    + "|".join(sorted(_ENGLISH, key=len, reverse=True))
    + r"|[一二两三四五六七八九十百千零]+)"
)


def value(text: str) -> int:
    """Read a number written in digits, as an English word or in Chinese; 0 for anything else."""
    plain = text.strip().replace(",", "")
    if re.fullmatch(r"\d+", plain):
        return int(plain)
    return _ENGLISH[plain] if plain in _ENGLISH else _chinese(plain)


def _chinese(text: str) -> int:
    total = digit = 0
    for character in text:
        if character in _PLACES:
            total, digit = total + (digit or 1) * _PLACES[character], 0
        elif character in _DIGITS:
            digit = _DIGITS[character]
        else:
            return 0
    return total + digit

"""Does an instruction point at a text ("the following review") that it does not itself hold?"""

from __future__ import annotations

import re

from pipeline.stages.screen import QUOTED
from pipeline.stages.text import length
from pipeline.stages.words import Words, find_phrase

_NO_POINTER = re.compile(
    r"\bthe following (?:day|week|month|year|morning|evening|night|season)s?\b|\b(?:an?|any|each|every"
    r"|some) given\b"
    r"|\bbelow (?:\d|[$€£]|zero|freezing|average|sea level|ground|market|the surface|the poverty)"
    r"|[\d一二三四五六七八九十百千万字岁度元分米]以下|[桌床树水山楼桥脚底]下面"
    r"|[论作课中英语天人]文中",
    re.IGNORECASE,
)
# In "Write a function that counts the vowels of a given string" the string is a parameter.
_PARAMETER = re.compile(
    r"(?:write|create|implement|develop|design|build)\b[^.]*?\b(?:function|program|script|algorithm|query|class|system)"
    r"|[写编造建现计发][^，。]*?(?:函数|程序|脚本|算法|系统)",
    re.IGNORECASE,
)
_GIVEN = re.compile(r"\bgiven\b|给定|所给", re.IGNORECASE)
_GIVEN_BEHIND = re.compile(r"[:：\n]|\s[-–—]+\s")
_CHOICES = re.compile(rf"(?:{QUOTED.pattern})(?:(?:\s|,|、|or|and|/|或|还是|和)*(?:{QUOTED.pattern}))+")


def refers_to_input(instruction: str, words: Words) -> bool:
    """Say whether the instruction points at a text that it does not itself hold."""
    bare = _NO_POINTER.sub(" ", instruction)
    bare = _GIVEN.sub(" ", bare) if _PARAMETER.search(bare) else bare
    found = find_phrase(bare, words.input_references)
    return found is not None and not _holds_text(bare, found[1] + len(found[0]))


def _holds_text(instruction: str, after: int) -> bool:
    """Say whether a text stands in the instruction (quoted, behind a colon); `after`: end of the pointer."""
    # "good" or "bad" are labels, no text
    if "```" in instruction or QUOTED.search(_CHOICES.sub(" ", instruction)):
        return True
    for mark in _GIVEN_BEHIND.finditer(instruction):
        # "the following word: sunset" gives its one word right behind
        near = after <= mark.start() and length(instruction[after : mark.start()]) <= 3
        if length(instruction[mark.end() :]) >= (1 if near else 3):
            return True
    return False

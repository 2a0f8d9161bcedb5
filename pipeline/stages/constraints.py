"""Limits that an instruction states in so many words and that can be counted in the answer.

A question as the answer, a number of words, characters or sentences, a number of listed things. Small models
pass over them. Counting is generous, and a limit that may be meant for a part of the answer is not looked at.
"""

from __future__ import annotations

import math
import re

from pipeline.records import Drop
from pipeline.stages.code_checks import is_json, looks_like_code
from pipeline.stages.numbers import NUMBER, value
from pipeline.stages.screen import QUOTED
from pipeline.stages.text import CJK, cjk_share, length
from pipeline.stages.words import normalise, quote

_QUESTION_WANTED = re.compile(
    r"\b(?:answer|respond|reply|end|finish|close|conclude)s?(?: \w+){0,2} with an? (?:\w+ )?question\b"
    r"|\b(?:turn|rewrite|convert|change|transform|rephrase|reword)\b[^.?!]{0,60}\b(?:into|as"
    r"|to) an? (?:\w+ )?question\b"
    r"|[用以]一?[个句]?(?:反|疑|设)?(?:问句|问题|问号|反问)(?:来)?(?:回答|作答|结尾|收尾|结束|回复)"
    r"|(?:改写?|变|转换?)[成为]一?[个句]?[反疑设]?问句"
)
_MARKS = re.compile("[?？؟;]")

# "Is the review positive or negative?" is answered by one of the two words.
_CHOICE = re.compile(
    r"^\W*(?:is|are|was|were|classify|decide|tell|determine|identify|label|judge|say)\b.*?"
    r"\b(?P<a>[a-z-]{3,}),? or (?:an? |the )?(?P<b>[a-z-]{3,})[?.]?\s*$"
    r"|(?:判断|请问|指出|区分|辨别).*?(?:是|属于)(?P<zh_a>[^，。是]{1,4})还是(?P<zh_b>[^，。？?是]{1,4})[？?。]?\s*$",
    re.IGNORECASE,
)
_STEM = 4  # letters: "positive", "positively"
_N = NUMBER.replace("(?:", "(?P<n>(?:", 1) + ")"
_UNIT = r"[\s-]*(?:english )?(?P<unit>words?|sentences?)\b|\s*(?P<zh>个?汉?字|句)"
_PART = re.compile(
    r"\b(?:each|every|per|apiece|respectively|title|headline|first|last|second|sentences? (?:of|with"
    r"|containing)"
    r"|(?:lines?|bullets?|points?|items?|paragraphs?|steps?|examples?) (?:of|with))\b"
    r"|\b(?:and|then|,)\s+(?:then\s+)?(?:\w+ly\s+)?(?:explain|justify|give|add|say|describe|write|tell"
    r"|list|name|state"
    r"|include|provide|finish|end|suggest|summari[sz]e|show|why|how)\b"
    r"|[每各]|分别|标题|题目|开头|结尾|其中|第[一二三]|[并再](?![非不])|然后|最后"
)
_OF_WHAT = re.compile(
    r"\s*(?:that|which|from|starting|beginning|ending|rhym|containing|related|associated|long\w* ago"
    r"|to (?:describe|use)"
    r"|you\b|in (?:the|this|these)\b|of (?:the|this)\b)"
)
_COUNTED = re.compile(r"\b(?:list|name|find|give|use|using|uses|learn|identify|pick|contains?|spot)\W+$")
_LOWER = re.compile(
    r"(?:at least|more than|over|minimum(?: of)?|no (?:fewer|less) than|not less than)\s*$"
    r"|(?:至少|不少于|不低于"
    r"|多于|超过)要?[用写有]?\s*$"
)
_UPPER = re.compile(
    r"(?:at most|no more than|not more than|under|fewer than|less than|up to|below|maximum(?: of)?|within"
    r"|not exceed\w*"
    r"|limit\w* (?:\w+ ){0,2}to)\s*$|(?:不超过|不要超过|别超过|不多于|少于|至多|最多|不得超过|控制在)\s*$"
)
_EXACT = re.compile(r"exactly\s*$|(?:恰好|正好|刚好|不多不少，?用?)\s*$")
_ABOUT = re.compile(
    r"\b(?:in|into|about|around|roughly|approximately|using|with)\s+(?:just |only |a |about |around "
    r"|roughly |approximately )*$"
    r"|(?:[约用]|大约|左右|只写|只用|答|写成|缩成)\s*$"
)
_LOWER_BEHIND = re.compile(r"\s*(?:or more|at (?:the )?least|minimum|以上)")
_UPPER_BEHIND = re.compile(r"\s*(?:or (?:fewer|less)|maximum|max\b|at most|tops|以内|之内|以下)")
_ABOUT_BEHIND = re.compile(r"\s*左右")
_LIMIT = re.compile(rf"(?<![a-z\d.-]){_N}(?:\s*(?:to|-|–|and|到|至|~|～)\s*(?P<high>{NUMBER}))?(?:{_UNIT})")

_ASK = (
    r"(?:list|name|give|suggest|provide|write down|come up with|identify|generate|think of|tell|find"
    r"|recommend|brainstorm"
    r"|propose|offer|mention|state|enumerate|invent|share|what are)"
)
_FEW_BEFORE = r"(?:\s+(?:me|us))?(?:\s+a list of)?(?:\s+(?:at least|exactly|about|some|the|your|top|any))*"
_NO_ITEM = (
    r"(?:more|less|out|times?|minutes?|hours?|days?|weeks?|months?|years?|words?|paragraphs?|lines?"
    r"|pages?|stanzas?|verses?"
    r"|digits?|letters?|characters?|percent|dollars?|euros?|stars?|people'?s?\s+names?|sides?)\b"
)
_ITEMS = re.compile(
    rf"(?:^|[.!?;,]\s+|\bplease\s+|\b(?:can|could|would) you\s+)(?:please\s+)?{_ASK}{_FEW_BEFORE}\s+{_N}"
    rf"(?:\s*(?:or|to|-|–)\s*(?P<high>{NUMBER}))?(?!-)\s+(?!{_NO_ITEM})"
    r"(?=(?:[\w'-]+\s+){0,4}?(?:\w+[^s\W]s|people|men|women|children|mice|teeth|feet|species|criteria"
    r"|phenomena)\b)"
)
_ITEMS_ZH = re.compile(
    r"(?:^|[，。！？；,.!?;:：\s]|请|帮我|能否|可以|试|并)(?:列举|列出|列|举出|举|说出|写出|给出|给我|提供|推荐|想出|提出|建议"
    rf"|说|介绍|起|生成|设计|找出|选出|指出|来)(?:至少|大约|约|我|出|一下)*\s*{_N}\s*(?:到\s*(?P<high>{NUMBER})\s*)?"
    r"(?:个(?!字|月|小时|星期|周|世纪|季度|人物?之间|段)|条|种|项|点(?!钟)|首|部|位|道|款|类|本|座|家|所|处|则)"
)
_MARKER = re.compile(
    r"^\s*(?:(?:\d{1,3}|[a-z]|[一二三四五六七八九十]{1,2})[.)、：:]|[-*•]|[①-⑳]|\(\d+\)|第[一二三四五六七八九十]+)",
    re.M,
)
_LINE_MARKER = re.compile(r"(?:^|\s)(?:\d{1,3}[.)、](?=\D)|[•①-⑳])")
_PARTS = re.compile(r"[,;、，；\n/]|\band\b|\bor\b|[和与及]|以及|[.!?](?:\s|$)|[。！？]|\s[-–—]\s", re.I)
_SHORT_PART = 4  # units: longer ones between commas are clauses of a sentence
_CLEARLY = 0.7  # of the wanted number is still no clear miss

_ABBREVIATION = re.compile(
    r"\b(?:mr|mrs|ms|dr|st|prof|e\.g|i\.e|etc|vs|no|u\.s|a\.m|p\.m|jr|sr|inc|ltd|[a-z])\.", re.I
)
_NUMBERED = re.compile(r"(?:(?<=\s)|^)(\d{1,2})[.)、．](?!\d)")
_BULLETS = re.compile(r"(?:^[-*•] [^\n]+(?:\n+|\Z)){2,}", re.M)  # lines of one list, none nested
_END = re.compile(r"[.!?]+[\"')\]]*(?=\s+[\"'(]?[A-Z]|\s*$)|[。！？]+")


def unmet_constraint(instruction: str, output: str, is_classification: bool = False) -> Drop | None:
    """Drop an answer that clearly fails a limit stated in the instruction; labels are not looked at."""
    asked = re.split("[\n]", QUOTED.sub(" X ", normalise(instruction)))[0]
    if (
        is_classification
        or not asked.strip()
        or is_json(output)
        or "```" in output
        or looks_like_code(output)
    ):
        return None
    if _QUESTION_WANTED.search(asked) and not _MARKS.search(output):
        return Drop("unmet_constraint", quote(f"no question: {output}"))
    # what follows a colon may be a text that the task is about
    asked = re.split("[:：]", asked)[0]
    problem = _wrong_length(asked, output) or _miscounted(asked, output) or _unchosen(asked, output)
    return Drop("unmet_constraint", quote(f"{problem}: {output}")) if problem else None


def _unchosen(asked: str, output: str) -> str | None:
    found, said = _CHOICE.search(asked), normalise(output).lower()
    choices = [choice for choice in found.groups() if choice] if found else []
    stems = [choice if CJK.search(choice) else choice.lower()[:_STEM] for choice in choices]
    return f"neither {' nor '.join(choices)}" if stems and not any(stem in said for stem in stems) else None


def _wrong_length(asked: str, output: str) -> str | None:
    for sentence in re.split(r"(?<=[.!?])\s+|[。！？；]", asked):
        found = _LIMIT.search(sentence)
        if not found or _PART.search(sentence) or _OF_WHAT.match(sentence, found.end()):
            continue
        bounds = _bounds(sentence, found)
        if not bounds or (found["zh"] is None and cjk_share(output) > 0.3):
            continue
        low, high, said = bounds
        in_sentences = (found["unit"] or "").startswith("sentence") or found["zh"] == "句"
        fewest, most = sentences(output) if in_sentences else (length(output), length(output))
        if most < low or fewest > high:
            unit = "sentences" if in_sentences else "words"
            return f"{most if most < low else fewest} {unit}, asked for {said}"
    return None


def _bounds(sentence: str, found: re.Match[str]) -> tuple[float, float, str] | None:
    """Give the least and the most that the output may have, and how the limit reads; None for no limit."""
    number, high = value(found["n"]), value(found["high"]) if found["high"] else 0
    before, after, said = sentence[: found.start()], found.end(), found.group().strip()
    slack = 0 if (found["unit"] or found["zh"])[0] in "s句" else 1
    if high > number:
        return 0.8 * number - slack, 1.2 * high + slack, said
    if _UPPER.search(before) or _UPPER_BEHIND.match(sentence, after):
        return 0, 1.2 * number + slack, f"at most {said}"
    lower = _LOWER.search(before)
    if lower or _LOWER_BEHIND.match(sentence, after):
        part = _COUNTED.search(before[: lower.start()] if lower else before)
        return None if part else (0.8 * number - slack, math.inf, f"at least {said}")
    if _EXACT.search(before):
        return 0.9 * number - slack, 1.1 * number + slack, f"exactly {said}"
    if _ABOUT.search(before) or _ABOUT_BEHIND.match(sentence, after):
        return number / 2 - slack, 1.5 * number + 2 * slack + 0.5, said
    return None


def sentences(text: str) -> tuple[int, int]:
    """Count the sentences of a text: (those that surely are some, everything that may be one)."""
    plain = _ABBREVIATION.sub(
        lambda m: m.group().replace(".", ""), re.sub(r"^\s*\d+[.)]", "", text, flags=re.M)
    )
    parts = [p for p in re.split(r"[.!?。！？；;…]+|\n", plain) if length(p)]
    return max(len(_END.findall(plain)), 1), max(len(parts), 1)


def _miscounted(asked: str, output: str) -> str | None:
    """Say how many items there are where they are clearly too few, or numbered or marked and too many."""
    found = _ITEMS.search(asked) or _ITEMS_ZH.search(asked)
    wanted = value(found["n"]) if found else 0
    if not found or not 2 <= wanted <= 30:
        return None
    has, numbered = num_items(output), 0
    if has < wanted and has <= max(1, _CLEARLY * wanted):
        return f"{has} of {wanted} items"
    for number in _NUMBERED.findall(output):  # 1. ... 2. ... and so on, however they are laid out
        numbered += int(number) == numbered + 1
    lists = [] if numbered else _BULLETS.findall(output)
    listed = len(re.findall(r"^[-*•] ", lists[0], re.M)) if len(lists) == 1 else numbered
    too_many = listed > wanted and not _LOWER.search(asked[: found.start("n")])
    return f"{listed} of {wanted} items" if too_many else None


def num_items(text: str) -> int:
    """Count listed things generously: marked lines, else lines, sentences, parts at commas and "and"."""
    marked = max(len(_MARKER.findall(text)), len(_LINE_MARKER.findall(text)))
    parts = [p for p in _PARTS.split(_LINE_MARKER.sub("\n", text)) if length(p)]
    if marked and length(text) > _SHORT_PART * max(len(parts), 1):
        return marked
    return max(marked, len(parts))

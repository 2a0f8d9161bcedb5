"""Checks of what can be seen of an answer's form (IFEval's `detectable_content:` and `detectable_format:`).

In a Chinese answer, 【】 count as brackets, • as a bullet and 《《》》 as a title's marks.
"""

from __future__ import annotations

import json
import re

from pipeline.verify.counting import Found, counted, is_chinese

# "My answer is yes." and so on is what IFEval asks for, to the letter
CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
CHOICES_ZH = ("我的答案是：是。", "我的答案是：否。", "我的答案是：也许。")

_PLACEHOLDER = re.compile(r"\[.*?\]|【.*?】|［.*?］")
_ITALIC, _BOLD = re.compile(r"\*([^\n*]*)\*"), re.compile(r"\*\*([^\n*]*)\*\*")
_TITLE = re.compile(r"<<([^\n]+)>>|《《([^\n]+)》》|＜＜([^\n]+)＞＞")
_FENCE = re.compile(r"\A```(?:json)?|```\Z", re.IGNORECASE)
_DIGIT_ZH = "[一二三四五六七八九十]"


def number_placeholders(answer: str, num_placeholders: int) -> Found:
    """At least so many places to fill in, in square brackets: [name]."""
    return counted(len(_PLACEHOLDER.findall(answer)), "placeholders", "at least", num_placeholders)


def postscript(answer: str, postscript_marker: str) -> Found:
    """A postscript that begins with the marker; dots of P.S. and P.P.S may have one space behind them."""
    marker = postscript_marker.strip().lower()
    letters = {"p.s.": "ps", "p.p.s": "pps", "p.p.s.": "pps"}.get(marker)
    pattern = r"\.\s?".join(letters) + (r"\." if letters == "ps" else "") if letters else re.escape(marker)
    passed = re.search(pattern, answer.lower()) is not None
    return Found(passed, f"{'has' if passed else 'no'} '{postscript_marker}'")


def number_bullet_lists(answer: str, num_bullets: int, relation: str = "exactly") -> Found:
    """So many lines that begin with * or -; **bold** begins no bullet."""
    marks = "-－•" if is_chinese(answer) else "-"
    lines = [line.strip() for line in answer.split("\n")]
    number = sum(
        line.startswith(tuple(marks)) or (line.startswith("*") and line[1:2] not in ("", "*"))
        for line in lines
    )
    return counted(number, "bullets", relation, num_bullets)


def constrained_response(answer: str) -> Found:
    """One of three sentences is in the answer."""
    plain = answer.replace(":", "：")
    found = next((choice for choice in (*CHOICES, *CHOICES_ZH) if choice in plain), "")
    return Found(bool(found), f"says '{found}'" if found else f"says none of: {' '.join(CHOICES)}")


def number_highlighted_sections(answer: str, num_highlights: int) -> Found:
    """At least so many stretches *between asterisks* or **between two**, none of them empty."""
    number = sum(bool(m.strip()) for pattern in (_ITALIC, _BOLD) for m in pattern.findall(answer))
    return counted(number, "highlights", "at least", num_highlights)


def multiple_sections(answer: str, section_spliter: str, num_sections: int) -> Found:
    """At least so many headings of the word and a number (Section 1); 第一节 and 第1节 for a Chinese word."""
    name = re.escape(section_spliter.strip())
    pattern = rf"{name}\s?\d+"
    if is_chinese(section_spliter):
        pattern = rf"第\s?(?:\d+|{_DIGIT_ZH}+)\s?{name}|{name}\s?(?:\d+|{_DIGIT_ZH}+)"
    return counted(len(re.findall(pattern, answer)), f"times '{section_spliter} N'", "at least", num_sections)


def json_format(answer: str) -> Found:
    """The whole answer is JSON; a fence around it is left out."""
    try:
        json.loads(_FENCE.sub("", answer.strip()).strip())
    except (ValueError, RecursionError) as error:
        return Found(False, f"not JSON: {error}")
    return Found(True, "the answer is JSON")


def title(answer: str) -> Found:
    """A title <<in double angle brackets>>."""
    titles = ["".join(found).strip("<>《》＜＞ ") for found in _TITLE.findall(answer)]
    kept = next(filter(None, titles), "")
    return Found(bool(kept), f"title '{kept}'" if kept else "no title in << >>")

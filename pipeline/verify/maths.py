r"""Whether a worked answer ends in the right result: the final answer is found in the text and compared.

It is looked for in this order, the last of each kind: \boxed{...}; #### ... (GSM8K); "the answer is ...",
答案是...; else the last number. Numbers are compared exactly, as fractions; an answer with more decimals than
the wanted result may round to it, and a wanted fraction may be given with two decimals or more. 50% equals
50 (the question may have asked for percents) and 0.5. Anything else is compared as text, without spaces and
case.
"""

from __future__ import annotations

import re
from fractions import Fraction

from pipeline.stages.words import quote
from pipeline.verify.counting import Found
from pipeline.verify.quantities import Quantity, numbers, plain, read

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_HASHES = re.compile(r"####\s*([^\n]+)")
_SAID = re.compile(
    r"(?:\b(?:final |correct )?answer(?: to [^.\n]{1,60}?)?\s*(?:is|=|:|would be|comes to)\s*(?:exactly\b)?"
    r"|(?:最终|正确)?(?:答案|结果)(?:就?是|应该?是|为|等于|[:：])+|答[:：]|故选)[\s:：*]*(?=(?P<clause>[^\n]+))",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[.!?](?=\s|$)|[。！？；]")
_MARKS = re.compile(r"[\s*`_'\"“”{}\\]|(?<=\w)[.。]$")
_FORMULA = re.compile(r"(?:\d|\b)[a-z]\s*[-+*/^]|[-+*/^]\s*\d*[a-z]\b")  # 2x + 1: not the number 2
_FEWEST_PLACES = 2  # decimals, from which on a number may be a rounded one


def final_answer(answer: str) -> str:
    """The part of an answer that is its result, as text; empty if there is none."""
    boxes = [_braced(answer, found.end()) for found in _BOXED.finditer(answer)]
    if boxes:
        return boxes[-1].strip()
    if hashes := _HASHES.findall(answer):
        return hashes[-1].strip()
    if said := [m["clause"] for m in _SAID.finditer(answer)]:
        return _CLAUSE_END.split(said[-1])[0].strip(" *:：")
    found = numbers(answer)
    return str(found[-1]) if found else ""


def same_result(answer: str, wanted: str) -> Found:
    """Hold an answer's result against the wanted one."""
    given = final_answer(answer)
    evidence = f"found {quote(given)}, wanted {wanted}" if given else f"no result, wanted {wanted}"
    return Found(bool(given) and _equal(given, wanted), evidence)


def _equal(given: str, wanted: str) -> bool:
    given = given.rpartition("=")[2] if "=" in given and "=" not in wanted else given
    if _bare(given) == _bare(wanted):
        return True
    expected = read(wanted)
    if expected is None:
        return False
    whole = read(given)
    found = [whole] if whole else [] if _FORMULA.search(given) else numbers(given)[:1]
    return any(_matches(quantity, expected) for quantity in found)


def _matches(given: Quantity, wanted: Quantity) -> bool:
    values = {wanted.value}
    if wanted.percent != given.percent:
        values |= {wanted.value / 100, wanted.value * 100} if wanted.percent else {wanted.value * 100}
    return any(_rounds(given, value, wanted.places) for value in values)


def _rounds(given: Quantity, value: Fraction, places: int) -> bool:
    if given.value == value:
        return True
    endless = not places and _endless(value.denominator)
    kept = given.places if endless else places
    return given.places >= kept >= _FEWEST_PLACES and abs(given.value - value) * 2 <= Fraction(1, 10**kept)


def _endless(denominator: int) -> bool:
    """Say whether decimals never end: the denominator has a factor beside 2 and 5."""
    for factor in (2, 5):
        while denominator % factor == 0:
            denominator //= factor
    return denominator > 1


def _bare(text: str) -> str:
    bare = _MARKS.sub("", plain(text)).lower()
    return bare[1:-1] if re.fullmatch(r"\(\w\)", bare) else bare  # (B) is B


def _braced(text: str, start: int) -> str:
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if not depth:
            return text[start:place]
    return text[start:]

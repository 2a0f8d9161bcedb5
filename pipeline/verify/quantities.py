r"""Numbers as an answer may write them, read exactly: 1,200; 2 1/2; \frac{3}{4}; 12.50; 5%; 1.2万; 三分之二.

Currency signs and units are read over: `$5`, `5 dollars` and `5 km` are all 5, and so is `5 m`.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from pipeline.stages.numbers import NUMBER, value

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_CURRENCY = r"(?:US\$|HK\$|[$€£¥₹]|(?:RMB|CNY|USD|EUR)\s?)"
_POWER = r"\s*(?:\*|x|×)\s*10\s*\^\s*\{?(?P<power>-?\d{1,2})\}?|[eE](?P<e>[-+]?\d{1,2})(?!\w)"
_QUANTITY = re.compile(
    rf"(?P<sign>(?<![\w)\]])[-+])?\s?(?:{_CURRENCY}\s?(?P<inner>-(?=\d))?)?"
    r"(?:(?P<whole>\d{1,9})\s+(?P<part>\d{1,9})\s*/\s*(?P<of>\d{1,9})"
    rf"|\(?(?P<above>{_PLAIN})\)?\s*/\s*\(?(?P<below>{_PLAIN})\)?|(?P<plain>{_PLAIN})(?:{_POWER})?)"
    r"(?:\s*(?P<scale>[百千万亿]+|thousand\b|million\b|billion\b))?\s*(?P<percent>%|percent\b|per cent\b)?"
)
_SCALES = {
    "百": 100,
    "千": 1000,
    "万": 10**4,
    "亿": 10**8,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
}
_UNIT = re.compile(
    r"(?:°\s?[CF]?|[^\W\d_]{2,}|[mgslhtLCFKNJWVA元角分个只岁]|[¥元])(?:[²³]|\^\{?[23]\}?)?"
    r"(?:\s*/\s*[^\W\d_]+|\s+[^\W\d_]+)*"
)
_VULGAR = re.compile(r"[¼-¾⅐-⅞]")
_MINUS = str.maketrans({"−": "-", "–": "-", "﹣": "-", "⁄": "/", "，": ","})
_LATEX = (
    (re.compile(r"\\(?:left|right|displaystyle|,|;|!|:|\s)"), ""),
    (re.compile(r"\\(?:text|mathrm|mathbf|mbox|textbf)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\^\s*\{?\\circ\}?"), "°"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r" \1/\2"),
    (re.compile(r"\\[dt]?frac\s*(\d)\s*(\d)"), r" \1/\2"),
    (re.compile(r"\\(?:times|cdot)"), "*"),
    (re.compile(r"\\([$%#])"), r"\1"),
)
_ZH = "零〇一二两三四五六七八九十百千万亿"
_ZH_NUMBER = rf"[{_ZH}]+(?:点[零〇一二三四五六七八九]+)?"
_ZH_PERCENT = re.compile(rf"百分之({_ZH_NUMBER}|{_PLAIN})")
_ZH_FRACTION = re.compile(rf"({_ZH_NUMBER}|\d+)分之({_ZH_NUMBER}|\d+)")
_IN_WORDS = re.compile(rf"{_ZH_NUMBER}|\b{NUMBER}(?:-{NUMBER})?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Quantity:
    """A number: its exact value, the decimal places that were written out, and whether a % follows."""

    value: Fraction
    places: int = 0
    percent: bool = False

    def __str__(self) -> str:
        if not self.places:
            return f"{self.value}{'%' * self.percent}"
        digits = f"{abs(int(self.value * 10**self.places)):0{self.places + 1}}"
        sign, cut = "-" * (self.value < 0), -self.places
        return f"{sign}{digits[:cut]}.{digits[cut:]}{'%' * self.percent}"


def plain(text: str) -> str:
    """The text without LaTeX, full-width forms and special minus signs."""
    text = _VULGAR.sub(lambda m: " " + unicodedata.normalize("NFKC", m.group()), text)
    text = unicodedata.normalize("NFKC", text.translate(_MINUS)).translate(_MINUS)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return collapse_dollars(text).strip()


def collapse_dollars(text: str) -> str:
    """The text without the dollar signs that stand around LaTeX: $5$ is 5, $5 remains."""
    return re.sub(r"\$([^$\n]*)\$", r"\1", text)


def read(text: str) -> Quantity | None:
    """The number that the whole text is, but for a currency, a unit and a full stop; None if it is more."""
    said = plain(text).rstrip(".。!！ ")
    found = _QUANTITY.match(said)
    if found is None:
        return _read_words(said)
    rest = said[found.end() :].strip()
    return _quantity(found) if not rest or _UNIT.fullmatch(rest) else None


def numbers(text: str) -> list[Quantity]:
    """Every number of a text in digits, in order; where there are none, those written in words."""
    said = plain(text)
    said = _ZH_PERCENT.sub(lambda m: f" {_digits(m[1])}%", said)
    said = _ZH_FRACTION.sub(lambda m: f" {_digits(m[2])}/{_digits(m[1])}", said)
    found = [_quantity(m) for m in _QUANTITY.finditer(said)]
    if not found:
        found = [_read_words(m.group()) for m in _IN_WORDS.finditer(said)]
    return [quantity for quantity in found if quantity is not None]


def _quantity(found: re.Match[str]) -> Quantity | None:
    if found["whole"]:
        if not int(found["of"]):
            return None
        number, places = int(found["whole"]) + Fraction(int(found["part"]), int(found["of"])), 0
    elif found["below"]:
        below = _fraction(found["below"])
        if not below:
            return None
        number, places = _fraction(found["above"]) / below, 0
    else:
        number, places = _fraction(found["plain"]), len(found["plain"].partition(".")[2])
        power = int(found["power"] or found["e"] or 0)
        number, places = number * Fraction(10) ** power, max(places - power, 0)
    for scale in re.findall(r"[百千万亿]|[a-z]+", found["scale"] or ""):
        number, places = number * _SCALES[scale], 0
    negative = (found["sign"] == "-") != (found["inner"] == "-")
    return Quantity(-number if negative else number, places, bool(found["percent"]))


def _fraction(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _read_words(text: str) -> Quantity | None:
    if found := _ZH_PERCENT.fullmatch(text):
        return Quantity(Fraction(_digits(found[1])), percent=True)
    if (found := _ZH_FRACTION.fullmatch(text)) and Fraction(_digits(found[1])):
        return Quantity(Fraction(_digits(found[2])) / Fraction(_digits(found[1])))
    if found := re.match(_ZH_NUMBER, text):
        rest = text[found.end() :].strip()
        return Quantity(Fraction(_digits(found.group()))) if not rest or _UNIT.fullmatch(rest) else None
    parts = re.split("[- ]", text.lower())
    if not all(map(re.compile(NUMBER).fullmatch, parts)) or len(parts) > 2:
        return None
    return Quantity(Fraction(sum(map(value, parts))))


def _digits(chinese: str) -> str:
    """A Chinese number in digits: 一千零五 1005, 三点一四 3.14, 一九八四 1984; digits stay as they are."""
    if chinese[0].isascii():
        return chinese.replace(",", "")
    whole, _, decimals = chinese.replace("〇", "零").partition("点")
    total = Fraction(0)
    for scale in "亿万":
        head, found, tail = whole.partition(scale)
        if found:
            total, whole = total + _section(head) * _SCALES[scale], tail
    total += _section(whole) if whole else 0
    return f"{int(total)}" + ("." + "".join(str(value(digit)) for digit in decimals) if decimals else "")


def _section(text: str) -> int:
    if len(text) > 1 and not re.search("[十百千]", text):
        return int("".join(str(value(digit)) for digit in text))
    return value(text) if text else 1

"""Which language a text is in, and which one an instruction asks for.

Detection is lingua's (n-gram models, https://github.com/pemistahl/lingua-py) over sixteen languages in its
low-accuracy mode: trigrams only, about 20 MB and 0.2 s to load where the full models take 300 MB and 3 s.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pipeline.records import LANGUAGES
from pipeline.stages.language_names import ABBREVIATED, CHINESE_NAMES, ENGLISH_NAMES
from pipeline.stages.text import cjk_share, units

LINGUA_NAMES = (
    "ENGLISH",
    "CHINESE",
    "FRENCH",
    "GERMAN",
    "SPANISH",
    "ITALIAN",
    "PORTUGUESE",
    "DUTCH",
    "RUSSIAN",
    "JAPANESE",
    "KOREAN",
    "ARABIC",
    "POLISH",
    "TURKISH",
    "VIETNAMESE",
    "SWEDISH",
)
LATIN = frozenset("en fr de es it pt nl pl tr vi sv".split())
MARGIN, SHORT_MARGIN = 0.3, 0.97  # how much surer of another language; the latter for texts below _SHORT
_FEW, _SHORT = 4, 20  # units
SCRIPT_SHARE = 0.3  # of a text in Chinese, Russian, ...: names and terms in Latin letters are common in them

_NOISE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+|www\.\S+|\S+@\S+\.\w+|\d+", re.DOTALL)
_WORD = r"[a-zA-Z\u00c0-\u024f\u1e00-\u1eff]+"
_SCRIPTS = re.compile(
    r"(?P<han>[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])|(?P<kana>[\u3041-\u30fa])"
    r"|(?P<hangul>[\uac00-\ud7a3])|(?P<cyrillic>[\u0400-\u04ff]+)|(?P<arabic>[\u0600-\u06ff\ufb50-\ufefc]+)"
    rf"|(?P<latin>{_WORD}(?:['’-]{_WORD})*)|(?P<other>[^\W\d_])"
)
_SCRIPT_OF = {"ru": "cyrillic", "ko": "hangul", "ar": "arabic"}
# Trigrams take one short English sentence in fifty ("Who is the CEO of Google?") for another language with a
# confidence above 0.9; words that only English has overrule them.
_ENGLISH_ONLY = frozenset(
    "the of and are with that this these those what who how which why from into about you your they "
    "their it its have been should would could can write explain describe make find give given using "
    "here there where when".split()
)
ENGLISH_SHARE = 0.09  # of the words; ordinary English prose has about a third of them

# "polish this text" is no language, hence the inner case-sensitive group.
_EN = "(?:" + "|".join(f"(?-i:{n})" if n in ("Polish", "Latin") else n for n in ENGLISH_NAMES) + ")"
_ZH = "(?:" + "|".join(sorted(CHINESE_NAMES, key=len, reverse=True)) + ")"
_LIST = rf"{_EN}(?:(?:,? and |,? or |, ){_EN})*"
_KIND = (
    r"(?:(?:an?|any|the|natural|plain|simple|fluent|idiomatic|formal|informal|modern|standard|business"
    r"|polite|everyday|clear|good|correct|proper|brazilian|european|mexican|british|american|simplified"
    r"|traditional) )*"
)
# What may follow a language that is the form of the output; a noun may not ("in Spanish literature").
_END = (
    r"(?=\s*(?:[^\w\s]|$)|\s+(?:and|or|as|for|with|using|that|so|to|by|then|only|instead|from|while|but"
    r"|about|of|on|in|at|this|these|the|it|my|your|dialect|language|sentence|text|version)\b)"
)
_MAKE = r"\b(?:translat|locali[sz]|render|convert|turn|put|rewrit|rephras|transcri|chang)\w*\b"
_SAY = (
    r"\b(?:write|writing|written|answer|reply|respond|compose|draft|render|rewrite|express|summari[sz]e"
    r"|translate)\b"
)
_ASKS = r"\b(?:is|are|was|were|does|do|did|what|which|who|whether)\b"  # "Is this written in French?"
_ASKED = tuple(
    re.compile(p, re.IGNORECASE)
    for p in (
        rf"{_MAKE}[^.!?;\n]*?\binto {_KIND}(?P<name>{_LIST})\b",
        rf"\btranslat\w*\b[^.!?;\n]*?\bto {_KIND}(?P<name>{_LIST})\b",
        rf"\bfrom [\w ]+? to {_KIND}(?P<name>{_LIST}){_END}",
        rf"(?:^|(?<=[.!?;:,\n]))(?:(?!{_ASKS})[^.!?;\n])*?{_SAY}[^.!?;\n]*?"
        rf"\bin {_KIND}(?P<name>{_LIST}){_END}",
        rf"(?:^|\b(?:an?|the|its|your) )(?P<name>{_EN}) (?:translation|version|rendering)\b",
        rf"(?:翻译|译|翻|转换|转|改写|改|写)[成为作][^，。？！,.?!]{{0,6}}?(?P<name>{_ZH})",
        rf"[用以][^，。？！,.?!]{{0,8}}?(?P<name>{_ZH})(?:[来]|简要|简单|简短)?(?:写|回|答|作答|描述|介绍|表达"
        rf"|表述|翻译|撰"
        r"|创作|编|拟|解释|说明|概括|总结|复述|讲|问候|告诉)",
        rf"的(?P<name>{_ZH})(?:翻译|译文|版)",
        r"[英中汉法德日韩俄]译(?P<name>[英中汉法德日韩俄])",
    )
)
_NAMED = re.compile(
    rf"\b{_EN}\b|(?:another|other|foreign) language|外语|另一种语言|{_ZH}"
    "|[英中汉法德日韩俄]译[英中汉法德日韩俄]",
    re.IGNORECASE,
)


@functools.cache
def _detector() -> Any:
    from lingua import Language, LanguageDetectorBuilder

    languages = [getattr(Language, name) for name in LINGUA_NAMES]
    return LanguageDetectorBuilder.from_languages(*languages).with_low_accuracy_mode().build()


def detect(text: str) -> tuple[str, float]:
    """Guess the language: (ISO 639-1 code, confidence in [0, 1]), ("", 0.0) with nothing to go by."""
    code, confidence = max(_confidences(clean(text)).items(), key=lambda pair: pair[1])
    return (code, confidence) if confidence > 0 else ("", 0.0)


def clean(text: str) -> str:
    """Leave out what belongs to no language: code, addresses and numbers."""
    return _NOISE.sub(" ", text)


def row_language(fields: Mapping[str, Any], request: str) -> str:
    """The one of our two languages that a row names, else that of its request's script.

    That is zh from three Chinese characters in ten.
    """
    named = fields.get("language")
    return str(named) if named in LANGUAGES else "zh" if cjk_share(request) >= 0.3 else "en"


def is_language(text: str, code: str) -> bool:
    """Say whether `text` may be in `code`; doubtful cases pass, and so do languages that detection lacks."""
    text = clean(text)
    counts = Counter(m.lastgroup for m in _SCRIPTS.finditer(text))
    total = sum(counts.values())
    if total == 0:
        return True
    if code in LATIN:
        latin = counts["latin"] / total >= 1 - SCRIPT_SHARE
        return latin and (total < _FEW or _latin_language(text, code, total))
    han, kana = counts["han"] / total, counts["kana"] / total
    if code == "zh":
        return han >= SCRIPT_SHARE and kana <= han / 4
    if code == "ja":
        return han + kana >= SCRIPT_SHARE and (counts["kana"] > 0 or total < _FEW)
    return code not in _SCRIPT_OF or counts[_SCRIPT_OF[code]] / total >= SCRIPT_SHARE


def requested_language(instruction: str) -> str | None:
    """Find the one language (code) that the output is to be in; None if none is asked for, or several are."""
    for pattern in _ASKED:
        found = {_code(name) for m in pattern.finditer(instruction) for name in _names(m["name"])}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def names_language(text: str) -> bool:
    """Say whether any language is named at all: the output may then quote it or be in it."""
    return bool(_NAMED.search(text))


def _latin_language(text: str, code: str, total: int) -> bool:
    if code == "en" and sum(unit in _ENGLISH_ONLY for unit in units(text)) >= ENGLISH_SHARE * total:
        return True
    if total >= _SHORT:
        return _lead(text, code) < MARGIN
    # names weigh much in a short text ("85 degrees Fahrenheit is equal to ..."): look again without them
    plain = [word for word in text.split() if word.islower()]
    texts = [text, *([" ".join(plain)] if len(plain) >= _FEW else [])]
    return any(_lead(t, code) < SHORT_MARGIN for t in texts)


def _lead(text: str, code: str) -> float:
    """Measure how much surer of its best guess than of `code` detection is."""
    confidences = _confidences(text)
    return max(confidences.values()) - confidences.get(code, 0.0)


def _confidences(text: str) -> dict[str, float]:
    values = _detector().compute_language_confidence_values(text)
    return {v.language.iso_code_639_1.name.lower(): v.value for v in values}


def _names(found: str) -> list[str]:
    return re.findall(_EN, found, re.IGNORECASE) or [found]


def _code(name: str) -> str:
    return {**ENGLISH_NAMES, **CHINESE_NAMES, **ABBREVIATED}[name.title() if name.isascii() else name]

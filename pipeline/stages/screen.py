"""Screening of instructions: plain tests in a fixed order, each with one reason, quoting what it found.

Reasons after Self-Instruct (length, unsuited keywords, leading punctuation, other languages; arXiv
2212.10560) plus what small models add: echoes of the prompt, role markers, refusals, loops, statements.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.records import Drop
from pipeline.stages.code_checks import ABOUT_CODE
from pipeline.stages.language import is_language
from pipeline.stages.repetition import repetition as repetition
from pipeline.stages.repetition import stutter
from pipeline.stages.request_form import not_a_request
from pipeline.stages.sameness import QUOTED as QUOTED
from pipeline.stages.sameness import repeated_label, self_comparison
from pipeline.stages.text import CJK, length, units
from pipeline.stages.words import Words as Words
from pipeline.stages.words import find_phrase, quote
from pipeline.stages.words import load_words as load_words

REASONS = (
    "special_token",
    "too_short",
    "too_long",
    "unsuited_keyword",
    "punctuation_start",
    "wrong_language",
    "refusal",
    "prompt_leak",
    "boilerplate",
    "repetition",
    "not_a_request",
    "self_comparison",
    "repeated_label",
)
LEAK_UNITS = {"en": 8, "zh": 12}  # copied in a row; eight characters are a common phrase, eight words are not
SENTENCE_UNITS = {"en": 4, "zh": 7}  # of a prompt's own sentence, from which on it leaks as a whole

SPECIAL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|<｜[^｜<>\n]{1,40}｜>|</?s>|\[/?INST\]|<</?SYS>>|</?(?:bos|eos|unk|pad)>"
    r"|<(?:start|end)_of_turn>|#{3,} *(?:Instruction|Response|Input|Output|指令|回答|输入|输出) *[:：]"
    r"|\{\{[-\s]*[\w.|\s]+\}\}|\{%.*?%\}|\ufffd",
    re.IGNORECASE,
)
ROLE = re.compile(r"^\W{0,3}(?:User|Assistant|System|Human|AI|用户|助手|系统)\W{0,2}[:：]", re.MULTILINE)
ABOUT_AI = re.compile(
    r"\b(?:ai|artificial intelligence|language model|chatbot)\b|人工智能|语言模型|AI"
    r"|聊天机器人",
    re.IGNORECASE,
)
_PAIRS = {
    "“": "”",
    "‘": "’",
    "《": "》",
    "「": "」",
    "『": "』",
    "【": "】",
    "（": "）",
    "〈": "〉",
    "«": "»",
    "(": ")",
    "[": "]",
    '"': '"',
    "'": "'",
    "`": "`",
}
_LABEL = re.compile(
    r"(?:^|[\s.;。；])(?:Title|Input|Output|Instruction|题目|标题|输入|输出|指令)\s*[:：](?=\s|$"
    r"|[^\x00-\x7f])"
)
_NUMBERED = re.compile(
    r"^(?:task|任务|指令|instruction|example|示例)\s*[\d一二三四五六七八九十]+\s*[:：.、]"
    r"|^\d+[.、)]\s*\d+[.、)]"
    r"|etc\.\.+\W*$|等等(?:\.{3,}|…+)\W*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class ScreenLimits:
    """Lengths in units of `text.length` (words, Chinese characters); Chinese has its own minimum."""

    min_length: int = 3
    max_length: int = 150
    min_length_zh: int = 4


LIMITS = ScreenLimits()


def screen(
    instruction: str,
    language: str,
    words: Words,
    limits: ScreenLimits = LIMITS,
    prompt_texts: Sequence[str] = (),
) -> Drop | None:
    """Run every test in the order of REASONS; the first that fires is the reason."""
    low = max(limits.min_length, limits.min_length_zh) if language == "zh" else limits.min_length
    return (
        special_token(instruction, roles=True)
        or too_short(instruction, low)
        or too_long(instruction, limits.max_length)
        or unsuited_keyword(instruction, words)
        or punctuation_start(instruction)
        or wrong_language(instruction, language)
        or refusal(instruction, words)
        or prompt_leak(instruction, words, prompt_texts, language)
        or boilerplate(instruction, words)
        or repetition(instruction)
        or stutter(instruction)
        or not_a_request(instruction, language, words)
        or self_comparison(instruction)
        or repeated_label(instruction)
    )


def special_token(text: str, *, roles: bool = False) -> Drop | None:
    """Find control tokens, template debris, U+FFFD and (with `roles`) lines that begin with a chat role."""
    found = SPECIAL.search(text) or (ROLE.search(text) if roles else None)
    return Drop("special_token", quote(text, found.start())) if found else None


def too_short(text: str, low: int) -> Drop | None:
    """Drop below `low` units."""
    count = length(text)
    return Drop("too_short", f"{count} units, at least {low}") if count < low else None


def too_long(text: str, high: int) -> Drop | None:
    """Drop above `high` units."""
    count = length(text)
    return Drop("too_long", f"{count} units, at most {high}") if count > high else None


def unsuited_keyword(instruction: str, words: Words) -> Drop | None:
    """Find what a text model cannot see, show or reach; instructions about code may name such things."""
    found = None if ABOUT_CODE.search(instruction) else find_phrase(instruction, words.unsuited)
    return Drop("unsuited_keyword", found[0]) if found else None


def punctuation_start(instruction: str) -> Drop | None:
    """Drop a start with punctuation or a symbol, unless it opens a quotation that is closed later."""
    text = instruction.strip()
    first = text[:1] or " "
    odd = unicodedata.category(first)[0] in "PS" and _PAIRS.get(first, "\0") not in text[1:]
    return Drop("punctuation_start", quote(text)) if odd else None


def wrong_language(instruction: str, language: str) -> Drop | None:
    """Drop an instruction that is not in `language`; quotations, and what follows a colon, may be in any."""
    bare = QUOTED.sub(" ", instruction)
    if language != "zh":
        words = sum(not CJK.match(u) for u in units(bare))
        if len(CJK.findall(bare)) > 2 * words:  # "What does 慢走 mean?" is English, "Please 写一首诗" is not
            return Drop("wrong_language", quote(instruction))
        bare = CJK.sub(" ", bare)
    fits = any(is_language(text, language) for text in (bare, re.split("[:：\n]", bare)[0]) if length(text))
    return None if fits or not length(bare) else Drop("wrong_language", quote(instruction))


def refusal(text: str, words: Words, *, within: int | None = None) -> Drop | None:
    """Find a refusal or talk of being an AI; phrases without AI count in the first `within` characters."""
    about_ai = tuple(w for w in words.refusals if ABOUT_AI.search(w))
    found = find_phrase(text, about_ai) or find_phrase(text[:within], words.refusals)
    return Drop("refusal", quote(text, found[1])) if found else None


def prompt_leak(text: str, words: Words, prompt_texts: Sequence[str], language: str) -> Drop | None:
    """Find phrases of prompts, and sentences or LEAK_UNITS units in a row of one of `prompt_texts`."""
    found = find_phrase(text, words.leaks)
    if found:
        return Drop("prompt_leak", quote(text, found[1]))
    size, copied = LEAK_UNITS.get(language, 8), units(text)
    known = _runs(tuple(prompt_texts), size)
    for i in range(len(copied) - size + 1):
        run = tuple(copied[i : i + size])
        if run in known:
            return Drop("prompt_leak", quote(("" if CJK.match(run[0]) else " ").join(run)))
    said = f" {' '.join(copied)} "
    leaked = next(
        (s for s in _sentences(tuple(prompt_texts), SENTENCE_UNITS.get(language, 4)) if s in said), ""
    )
    return Drop("prompt_leak", quote(leaked.strip())) if leaked else None


def boilerplate(instruction: str, words: Words) -> Drop | None:
    """Find chatter about the list at the start, numbering debris, and field labels."""
    text = instruction.strip()
    if find_phrase(text, words.boilerplate, starts=True):
        return Drop("boilerplate", quote(text))
    found = _NUMBERED.search(text) or _LABEL.search(text)
    return Drop("boilerplate", quote(text[found.start() :].lstrip(" .;。；\n"))) if found else None


@functools.cache
def _runs(texts: tuple[str, ...], size: int) -> frozenset[tuple[str, ...]]:
    split = [units(text) for text in texts]
    return frozenset(tuple(u[i : i + size]) for u in split for i in range(len(u) - size + 1))


@functools.cache
def _sentences(texts: tuple[str, ...], shortest: int) -> tuple[str, ...]:
    """The sentences of texts, and the parts of Chinese ones, as units between spaces."""
    split = [units(part) for text in texts for part in re.split(r"[.:;!?，。：；！？\n]+", text)]
    return tuple(dict.fromkeys(f" {' '.join(part)} " for part in split if len(part) >= shortest))

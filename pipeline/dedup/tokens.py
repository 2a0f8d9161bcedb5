"""Tokens for ROUGE-L: rouge_score's rule for Latin script, jieba words for Chinese.

rouge_score (and so Self-Instruct) keeps only [a-z0-9]: every Chinese instruction is empty to it and equal
to every other one. Text without Chinese characters gets exactly rouge_score's tokens (`use_stemmer=False`).
Kana and Hangul get one token per character.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

from pipeline.stages.text import CJK

WORDS, CHARACTERS = "words", "characters"  # what a run of Chinese characters is cut into
_KANA_HANGUL = r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u1100-\u11ff\uac00-\ud7a3"
_CHINESE = CJK.pattern.strip("[]")
_LATIN = re.compile(r"[a-z0-9]+")
WIDE = re.compile(rf"[{_CHINESE}{_KANA_HANGUL}]")
_RUN = re.compile(rf"[{_CHINESE}]+|[{_KANA_HANGUL}]|[a-z0-9]+")


def tokenize(text: str, cjk: str = WORDS) -> list[str]:
    """The tokens of `text`, in order; `cjk` says what Chinese is cut into, words or characters."""
    lower = text.lower()
    if not WIDE.search(lower):
        return _LATIN.findall(lower)
    tokens: list[str] = []
    for run in _RUN.findall(lower):
        if not CJK.match(run):
            tokens.append(run)
        elif cjk == WORDS:
            tokens += _jieba()(run)
        else:
            tokens += run
    return tokens


@functools.cache
def _jieba() -> Callable[[str], Iterable[str]]:
    import rjieba

    return rjieba.cut

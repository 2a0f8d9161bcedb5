"""Tokens for ROUGE-L: rouge_score's rule for Latin script, jieba words for Chinese.

rouge_score (and so Self-Instruct) keeps only [a-z0-9]: every Chinese instruction is empty to it and equal
to every other one. Text without Chinese characters gets exactly rouge_score's tokens (`use_stemmer=False`).
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable

from pipeline.stages.text import CJK

_LATIN = re.compile(r"[a-z0-9]+")
_RUN = re.compile(rf"(?:{CJK.pattern})+|[a-z0-9]+")


def tokenize(text: str) -> list[str]:
    """The tokens of `text`, in order."""
    lower = text.lower()
    if not CJK.search(lower):
        return _LATIN.findall(lower)
    tokens: list[str] = []
    for run in _RUN.findall(lower):
        if CJK.match(run):
            tokens += _jieba()(run)
        else:
            tokens.append(run)
    return tokens


@functools.cache
def _jieba() -> Callable[[str], Iterable[str]]:
    import jieba

    jieba.setLogLevel(logging.WARNING)
    return jieba.lcut

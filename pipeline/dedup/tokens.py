"""Tokens for ROUGE-L: rouge_score's rule for Latin script, jieba words for Chinese.

rouge_score (and so Self-Instruct) keeps only [a-z0-9]: every Chinese instruction is empty to it and equal
to every other one. Text without Chinese characters gets exactly rouge_score's tokens (`use_stemmer=False`).
Kana and Hangul get one token per character.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pipeline.stages.text import CJK

WORDS, CHARACTERS = "words", "characters"  # what a run of Chinese characters is cut into
_KANA_HANGUL = r"\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u1100-\u11ff\uac00-\ud7a3"
_CHINESE = CJK.pattern.strip("[]")
_LATIN = re.compile(r"[a-z0-9]+")
_WIDE = re.compile(rf"[{_CHINESE}{_KANA_HANGUL}]")
_RUN = re.compile(rf"[{_CHINESE}]+|[{_KANA_HANGUL}]|[a-z0-9]+")
_CHUNK = 4096  # texts joined at a time; more takes memory and is no faster
_END = ord("\n")  # what stands between joined texts; white space, as all that is no token
_KEPT = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_CLEAN = bytes(_END if byte == 0 else byte if byte in _KEPT else ord(" ") for byte in range(256))


def tokenize(text: str, cjk: str = WORDS) -> list[str]:
    """The tokens of `text`, in order; `cjk` says what Chinese is cut into, words or characters."""
    lower = text.lower()
    if not _WIDE.search(lower):
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


class Vocabulary:
    """Tokens and their numbers, from 0 on in the order in which they were met."""

    def __init__(self, cjk: str = WORDS) -> None:
        self.cjk = cjk
        self._numbers: defaultdict[bytes, int] = defaultdict(itertools.count().__next__)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def tokens(self) -> list[str]:
        """The tokens in the order of their numbers."""
        return [token.decode() for token in self._numbers]

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The token numbers of all texts in a row (T,) int32, and where each text begins (N + 1,) int64."""
        parts = [self._chunk(texts[i : i + _CHUNK]) for i in range(0, len(texts), _CHUNK)]
        counts = np.concatenate([np.zeros(1, np.int64), *(count for _, count in parts)])
        return np.concatenate([np.zeros(0, np.int32), *(numbers for numbers, _ in parts)]), np.cumsum(counts)

    def _chunk(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token numbers and tokens per text."""
        wide = (
            [i for i, text in enumerate(texts) if _WIDE.search(text)] if _WIDE.search("".join(texts)) else []
        )
        if not wide:
            return self._latin(texts)
        narrow = list(texts)
        for i in wide:
            narrow[i] = ""
        numbers, counts = self._latin(narrow)
        split = [[token.encode() for token in tokenize(texts[i], self.cjk)] for i in wide]
        lengths = np.fromiter(map(len, split), np.int64, len(split))
        found = self._look_up(itertools.chain.from_iterable(split), int(lengths.sum()))
        before = np.cumsum(counts)[wide]  # where each wide text belongs among the others' tokens
        counts[wide] = lengths
        return np.insert(numbers, np.repeat(before, lengths), found), counts

    def _latin(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """rouge_score's tokens of many texts by one translation and one split: no call per text."""
        clean = "\0".join(text.replace("\0", " ") if "\0" in text else text for text in texts)
        text = clean.lower().encode("ascii", "replace").translate(_CLEAN)
        letters = np.frombuffer(text, np.uint8)
        inside = letters > 32
        begins = np.flatnonzero(inside & ~np.concatenate([[False], inside[:-1]]))
        ends = np.concatenate([np.flatnonzero(letters == _END), [len(letters)]])
        counts = np.diff(np.searchsorted(begins, ends), prepend=0)
        return self._look_up(text.split(), len(begins)), counts

    def _look_up(self, tokens: Iterable[bytes], count: int) -> np.ndarray:
        return np.fromiter(map(self._numbers.__getitem__, tokens), np.int32, count)


@functools.cache
def _jieba() -> Callable[[str], Iterable[str]]:
    import rjieba

    return rjieba.cut

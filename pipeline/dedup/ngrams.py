"""Word n-grams that a text shares with held-out texts: GPT-3's test for contamination (Brown et al. 2020).

A size counts tokens of `tokens.py`: an English word, a jieba word of Chinese (13 of them are some 22
characters), a kana or Hangul character. A text shorter than the size is compared as a whole: it must have the
same tokens. n-grams are found by a 64-bit hash in a sorted array and then compared token by token: no
collision decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.dedup.tokens import WORDS, tokenize
from pipeline.dedup.vocabulary import Vocabulary

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no bit of a hash is lost
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # splitmix64 (Steele et al. 2014)


@dataclass(frozen=True)
class Overlap:
    """What a text shares with one held-out text."""

    held: int  # number of the held-out text
    share: float  # of the held-out text's tokens, those inside shared n-grams; in (0, 1]
    spans: tuple[str, ...]  # the shared passages, as the text has them


class NgramIndex:
    """The n-grams of held-out texts; `size` is how many tokens make one."""

    def __init__(self, held: Sequence[str], size: int = 13, *, cjk: str = WORDS) -> None:
        self.size, self._vocabulary = size, Vocabulary(cjk)
        self._tokens, self._starts = self._vocabulary.encode(held)  # (T,), (N + 1,)
        places = _places(self._starts, size)  # (G,)
        hashes = _hashes(self._tokens, size)[places]
        order = np.argsort(hashes, kind="stable")  # of equal ones the earliest comes first
        hashes, places = hashes[order], places[order]
        new = self._new(hashes, places)
        self._hashes, self._ngrams = hashes[new], places[new]
        self._short: dict[bytes, int] = {}  # the tokens of texts that are shorter than an n-gram
        for number in np.flatnonzero(np.diff(self._starts) < size).tolist():
            self._short.setdefault(self._held(number).tobytes(), number)
        self._short.pop(b"", None)

    def __len__(self) -> int:
        """Different n-grams."""
        return len(self._hashes)

    def find(self, texts: Sequence[str]) -> dict[int, Overlap]:
        """What each text, by its number, shares with the held-out text that most of its n-grams lead to.

        An n-gram leads to the first held-out text that has it. Texts that share nothing are left out.
        """
        tokens, starts = self._vocabulary.encode(texts)
        found = {} if not self._short else self._whole(texts, tokens, starts)
        places = _places(starts, self.size)
        matched = self._match(tokens, places, _hashes(tokens, self.size)[places])
        shared = np.flatnonzero(matched >= 0)
        rows = _owners(starts, places[shared])
        held = _owners(self._starts, matched[shared])
        for begin, end in _runs(rows):
            row = int(rows[begin])
            numbers, counts = np.unique(held[begin:end], return_counts=True)
            words = tokens[starts[row] : starts[row + 1]]
            found[row] = self._overlap(texts[row], words, int(numbers[np.argmax(counts)]))
        return found

    def _held(self, number: int) -> np.ndarray:
        return self._tokens[self._starts[number] : self._starts[number + 1]]

    def _new(self, hashes: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Which of the sorted n-grams (G,) are no repetition of the first one with their hash."""
        first = np.concatenate([np.ones(min(len(hashes), 1), bool), hashes[1:] != hashes[:-1]])
        leader = np.maximum.accumulate(np.where(first, np.arange(len(hashes)), 0))
        again = np.flatnonzero(~first)
        same = self._equal(self._tokens, places[again], places[leader[again]])
        return np.delete(np.arange(len(hashes)), again[same])

    def _match(self, tokens: np.ndarray, places: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """The place of the held-out n-gram that equals each n-gram (P,); -1 if there is none."""
        matched = np.full(len(places), -1, np.int64)
        if not len(self):
            return matched
        entry = np.searchsorted(self._hashes, hashes)
        rest = np.arange(len(places))
        while len(rest):  # once, but for different n-grams with one hash
            rest = rest[entry[rest] < len(self)]
            rest = rest[self._hashes[entry[rest]] == hashes[rest]]
            candidates = self._ngrams[entry[rest]]
            equal = self._equal(tokens, places[rest], candidates)
            matched[rest[equal]] = candidates[equal]
            rest = rest[~equal]
            entry[rest] += 1
        return matched

    def _equal(self, tokens: np.ndarray, places: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Whether the n-grams at `places` of `tokens` are those at `held` of the held-out tokens (P,)."""
        equal = np.ones(len(places), bool)
        for i in range(self.size):
            equal &= tokens[places + i] == self._tokens[held + i]
        return equal

    def _whole(self, texts: Sequence[str], tokens: np.ndarray, starts: np.ndarray) -> dict[int, Overlap]:
        """The short texts that have the same tokens as a short held-out one."""
        found = {}
        for row in np.flatnonzero(np.diff(starts) < self.size).tolist():
            number = self._short.get(tokens[starts[row] : starts[row + 1]].tobytes())
            if number is not None:
                found[row] = Overlap(number, 1.0, (texts[row].strip(),))
        return found

    def _overlap(self, text: str, words: np.ndarray, number: int) -> Overlap:
        ours, theirs = _ngrams(words, self.size), _ngrams(self._held(number), self.size)
        known, used = set(theirs), set(ours)
        spans = _spans([ngram in known for ngram in ours], self.size)
        covered = sum(e - b for b, e in _spans([ngram in used for ngram in theirs], self.size))
        share = covered / len(self._held(number))
        return Overlap(number, share, _passages(text, spans, self._vocabulary.cjk))


def _hashes(tokens: np.ndarray, size: int) -> np.ndarray:
    """A 64-bit hash of the n-gram that begins at each token (T - size + 1,)."""
    mixed = tokens.astype(np.uint64) + _BASE
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    hashes = np.zeros(max(len(tokens) - size + 1, 0), np.uint64)
    for i in range(size):  # the polynomial in _BASE, modulo 2 ** 64
        hashes *= _BASE
        hashes += mixed[i : i + len(hashes)]
    return hashes


def _places(starts: np.ndarray, size: int) -> np.ndarray:
    """Where the n-grams begin that lie within one text (P,), in order."""
    counts = np.maximum(np.diff(starts) - size + 1, 0)
    before = np.cumsum(counts) - counts
    return np.arange(counts.sum()) + np.repeat(starts[:-1] - before, counts)


def _owners(starts: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The numbers of the texts that hold the tokens at `places`."""
    return np.searchsorted(starts, places, side="right") - 1


def _runs(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of every run of equal numbers."""
    edges = np.flatnonzero(np.diff(numbers, prepend=-1, append=-1)).tolist()
    return list(zip(edges, edges[1:], strict=False))


def _ngrams(tokens: np.ndarray, size: int) -> list[tuple[int, ...]]:
    words = tokens.tolist()
    return list(zip(*(words[i:] for i in range(size)), strict=False))


def _spans(shared: Sequence[bool], size: int) -> list[tuple[int, int]]:
    """The runs of tokens, begin and end, that the shared n-grams cover together."""
    spans: list[tuple[int, int]] = []
    for begin in (i for i, is_shared in enumerate(shared) if is_shared):
        if spans and begin <= spans[-1][1]:
            spans[-1] = (spans[-1][0], begin + size)
        else:
            spans.append((begin, begin + size))
    return spans


def _passages(text: str, spans: Sequence[tuple[int, int]], cjk: str) -> tuple[str, ...]:
    """What `text` says from the first to the last token of each span."""
    lower, at = text.lower(), 0
    shown = text if len(lower) == len(text) else lower  # some letters grow when they become small
    edges = []
    for token in tokenize(text, cjk):
        begin = lower.index(token, at)
        at = begin + len(token)
        edges.append((begin, at))
    return tuple(shown[edges[begin][0] : edges[end - 1][1]] for begin, end in spans)

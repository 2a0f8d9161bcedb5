"""Numbers for tokens: a hash table in compiled code, where no token has to be a Python object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.dedup.compiled import compiled
from pipeline.dedup.tokens import WIDE, WORDS, tokenize

_CHUNK = 4096  # texts joined at a time; more takes memory and is no faster
_END, _SPACE = ord("\n"), ord(" ")  # what stands between joined texts, and between tokens
_KEPT = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")
_CLEAN = bytes(_END if byte == 0 else byte if byte in _KEPT else _SPACE for byte in range(256))
_WORD = 8  # bytes of a token taken at once
_FIRST = np.array([(1 << 8 * size) - 1 for size in range(_WORD + 1)], np.uint64)  # the first bytes of a word
_MIX, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)


class Vocabulary:
    """Tokens and their numbers, from 0 on in the order in which they were met."""

    def __init__(self, cjk: str = WORDS) -> None:
        self.cjk = cjk
        self._count = 0
        # arrays are longer than what they hold
        self._slots = np.zeros(2048, np.int32)  # (S,), a power of two: by hash a token's number + 1; 0: free
        self._hashes = np.zeros(1024, np.uint64)  # (V,); of a token of up to 8 bytes these bytes
        self._starts = np.zeros(1025, np.int64)  # (V + 1,), into words
        self._words = np.zeros(1024, np.uint64)  # (W,), the tokens one behind the other, filled up with zeros

    def __len__(self) -> int:
        return self._count

    @property
    def tokens(self) -> list[str]:
        """The tokens in the order of their numbers."""
        starts, held = (self._starts[: len(self) + 1] * _WORD).tolist(), self._words.tobytes()
        return [
            held[begin:end].rstrip(b"\0").decode() for begin, end in zip(starts[:-1], starts[1:], strict=True)
        ]

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The token numbers of all texts in a row (T,) int32, and where each text begins (N + 1,) int64."""
        starts, parts = np.zeros(len(texts) + 1, np.int64), [np.zeros(0, np.int32)]
        for i in range(0, len(texts), _CHUNK):
            chunk = texts[i : i + _CHUNK]
            text = b" %b\n%b" % (self._letters(chunk), b" " * _WORD)
            letters = np.frombuffer(text, np.uint8)
            inside = letters > _SPACE
            edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
            begins, ends = edges[::2], edges[1::2]
            words = np.ndarray((len(text) - _WORD + 1,), np.uint64, text, strides=(1,))  # from each byte on
            parts.append(self._number(words, begins, ends))
            lines = np.flatnonzero(letters == _END)
            starts[i + 1 : i + 1 + len(chunk)] = starts[i] + np.searchsorted(begins, lines)
        return np.concatenate(parts), starts

    def _number(self, text: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """The numbers of the tokens at begins..ends; new ones are entered."""
        numbers, done = np.empty(len(begins), np.int32), 0
        while True:
            table = (self._slots, self._hashes, self._starts, self._words)
            done, self._count = _number(text, begins, ends, *table, self._count, numbers, done)
            if done == len(begins):
                return numbers
            size, used = 2 * len(self._hashes), int(self._starts[self._count])
            self._hashes, self._starts = np.resize(self._hashes, size), np.resize(self._starts, size + 1)
            self._words = np.resize(self._words, 2 * used + int(ends[done] - begins[done]))
            self._slots = np.zeros(2 * size, np.int32)
            _enter(self._hashes, self._count, self._slots)

    def _letters(self, texts: Sequence[str]) -> bytes:
        """The tokens of many texts, by one translation: a space between tokens, a line for a text."""
        wide = [i for i, text in enumerate(texts) if not text.isascii() and WIDE.search(text)]
        narrow = list(texts)
        for i in wide:
            narrow[i] = ""
        clean = "\0".join(text.replace("\0", " ") if "\0" in text else text for text in narrow)
        letters = clean.lower().encode("ascii", "replace").translate(_CLEAN)
        if not wide:
            return letters
        lines = letters.split(b"\n")
        for i in wide:
            lines[i] = " ".join(tokenize(texts[i], self.cjk)).encode()
        return b"\n".join(lines)


@compiled
def _place(digest: Any, slots: Any) -> Any:
    """The slot where a hash is looked for first."""
    return np.int64((digest * _MIX) >> _SHIFT) & (len(slots) - 1)


@compiled
def _enter(hashes: Any, count: int, slots: Any) -> None:
    """Fill the empty slots with the tokens known."""
    for number in range(count):
        slot = _place(hashes[number], slots)
        while slots[slot]:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = number + 1


@compiled
def _word(text: Any, at: int, end: int) -> Any:
    """The bytes of a token from one on, at most 8, as a number."""
    return text[at] & _FIRST[min(end - at, _WORD)]


@compiled
def _number(
    text: Any,
    begins: Any,
    ends: Any,
    slots: Any,
    hashes: Any,
    starts: Any,
    words: Any,
    count: int,
    numbers: Any,
    done: int,
) -> Any:
    """Write the numbers of tokens from number `done` on; return how many are done, and known then.

    It ends early when there is no room for another token.
    """
    for i in range(done, len(begins)):
        begin, end = begins[i], ends[i]
        digest = _word(text, begin, end)
        for at in range(begin + _WORD, end, _WORD):
            digest = ((digest ^ (digest >> _SHIFT)) * _MIX) ^ _word(text, at, end)
        size, slot = (end - begin + _WORD - 1) // _WORD, _place(digest, slots)
        while True:
            number = np.int64(slots[slot]) - 1
            if number < 0:
                break
            if hashes[number] == digest and starts[number + 1] - starts[number] == size:
                same = 0 if size > 1 else 1  # of a short token the hash is the token
                while same < size and words[starts[number] + same] == _word(text, begin + same * _WORD, end):
                    same += 1
                if same == size:
                    break
            slot = (slot + 1) & (len(slots) - 1)
        if number < 0:
            used = starts[count]
            if count == len(hashes) or used + size > len(words):
                return i, count
            for j in range(size):
                words[used + j] = _word(text, begin + j * _WORD, end)
            count += 1
            slots[slot], hashes[count - 1], starts[count] = count, digest, used + size
        numbers[i] = slots[slot] - 1
    return len(begins), count

"""Compiled loops of the exact ROUGE-L index: bounds, signatures, bit-parallel LCS.

A text is an array of token numbers. m and n are the lengths of a candidate and of an admitted text;
need(m, n) is the smallest LCS whose F-measure exceeds the threshold. A pair is looked at only if

    need(m, n) <= min(m, n)                            the lengths allow it
    need(m, n) <= min(m - p, n - q)                    p, q: tokens before the first that they share
    need(m, n) <= |bits shared| + min(hidden x, y)     signatures: one bit per token, 128 bits

The second bound is the prefix filter: in rarity order the first shared token of a pair that shares need(m, n)
tokens has at most m - need(m, n) tokens before it. So a text is listed only under the rarest of its tokens
(Chaudhuri et al. 2006). Under most of them it can only be found by texts shorter than itself: need(m, n)
grows with m, so n - q < need(n, n) leaves m < n. These entries have lists of their own, which longer
candidates skip (Xiao et al. 2008, PPJoin: its indexing prefix is shorter than its probing prefix). What is
left is decided by the LCS itself (Hyyro 2004).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.dedup.compiled import compiled

WORD = 64
BYTE = 255  # entries hold lengths in bytes, longer ones as this
# a frequent token's lists are for lengths 1, 2 to 3, 4 to 7, ...: finer steps cost as much as they save
_STEPS = [1 << i for i in range(BYTE.bit_length())]
SHORTEST = np.array(_STEPS)  # the shortest text of each list
CLASSES = len(SHORTEST)
_CLASS_OF = np.searchsorted(SHORTEST, np.arange(BYTE + 1), "right") - 1
_ONE, _ALL = np.uint64(1), np.uint64(0xFFFFFFFFFFFFFFFF)
_EACH_2, _EACH_4 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333)
_EACH_8, _SUM = np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0x0101010101010101)
_S1, _S2, _S4, _S24, _S56 = np.uint64(1), np.uint64(2), np.uint64(4), np.uint64(24), np.uint64(56)
_MIX, _TOP7 = np.uint64(0x9E3779B97F4A7C15), np.uint64(57)


class Texts(NamedTuple):
    """Texts one behind the other; arrays may be longer than what they hold."""

    tokens: np.ndarray  # (T,) int32
    starts: np.ndarray  # (N + 1,) int64, into tokens
    bits: np.ndarray  # (N, 2) uint64, signature
    hidden: np.ndarray  # (N,) int32, tokens without a bit of their own


class Postings(NamedTuple):
    """For each token the admitted texts that have it among their rarest, in lists in order of admission.

    A token has one list; a frequent one has a list for each class of lengths, and as many again for entries
    that only shorter texts need to look at. Whole lists of what would otherwise be most of the work are
    skipped. Signatures stand with the entries: looked up by number they would not be in the cache.
    """

    base: np.ndarray  # (V + 1,) int64, the first list of each token
    heads: np.ndarray  # (L, 3) int64, of each list: first entry, entries, room for entries
    used: np.ndarray  # (1,) int64, entries given out
    entries: np.ndarray  # (3, E) uint64: signature of the text, number and lengths: see `packed`


class Ranked(NamedTuple):
    """What a search needs of each text of a block."""

    tokens: np.ndarray  # (T,) int32, its distinct tokens, rarest first, from where the text begins
    before: np.ndarray  # (T,) int32, how many tokens of the text, with repeats, are rarer
    counts: np.ndarray  # (N,) int32, distinct tokens
    bits: np.ndarray  # (N, 2) uint64, signature
    hidden: np.ndarray  # (N,) int32, tokens without a bit of their own


@compiled
def popcount(word: Any) -> Any:
    """Set bits of a uint64."""
    word = word - ((word >> _S1) & _EACH_2)
    word = (word & _EACH_4) + ((word >> _S2) & _EACH_4)
    word = (word + (word >> _S4)) & _EACH_8
    return np.int64((word * _SUM) >> _S56)


@compiled
def list_of(base: Any, token: Any, length: int, far: int) -> Any:
    """The list of a token's texts of this length; `far`: of those that only shorter texts look at."""
    first = base[token]
    if base[token + 1] - first == 1:
        return first
    return first + far * CLASSES + _CLASS_OF[min(length, BYTE)]


@compiled
def packed(number: Any, hidden: Any, left: Any, length: Any) -> Any:
    """An entry's third word: the text's number, hidden tokens, tokens from this one on, length."""
    return np.uint64((number << 24) | (min(hidden, BYTE) << 16) | (min(left, BYTE) << 8) | min(length, BYTE))


@compiled
def number_of(word: Any) -> Any:
    """The text's number in an entry's third word."""
    return np.int64(word >> _S24)


@compiled
def sort(keys: Any) -> None:
    """Sort in place (Shell 1959): fast on a few dozen keys, and compiled sooner than the library sort."""
    gap = len(keys) // 2
    while gap:
        for i in range(gap, len(keys)):
            key, j = keys[i], i
            while j >= gap and keys[j - gap] > key:
                keys[j] = keys[j - gap]
                j -= gap
            keys[j] = key
        gap //= 2


@compiled
def rarest_first(tokens: Any, rank: Any, distinct: Any, before: Any) -> int:
    """Write the distinct tokens, rarest first, and how many tokens are rarer; return how many there are."""
    keys = np.empty(len(tokens), np.int64)
    for i, token in enumerate(tokens):
        keys[i] = np.int64(rank[token]) * (1 << 32) + token
    sort(keys)
    found = 0
    for i, key in enumerate(keys):
        if i == 0 or key != keys[i - 1]:
            distinct[found], before[found] = key & 0xFFFFFFFF, i
            found += 1
    return found


@compiled
def sign(tokens: Any, bits: Any) -> int:
    """Set one of 128 bits per token in `bits` (2,); return how many tokens have none of their own."""
    bits[0] = bits[1] = np.uint64(0)
    for token in tokens:
        place = (np.uint64(token) * _MIX) >> _TOP7
        bits[np.int64(place >> np.uint64(6))] |= _ONE << (place & np.uint64(63))
    return len(tokens) - popcount(bits[0]) - popcount(bits[1])


@compiled
def place(tokens: Any, slots: Any) -> Any:
    """Write into the slots (V,) uint64 of tokens, which are 0, where each stands, as bits; return masks.

    Of a text of at most 64 tokens a token's slot holds its bits and there are no masks; of a longer one it
    holds the number of its mask, from 1 on. `lift` undoes it.
    """
    if len(tokens) <= WORD:
        for i, token in enumerate(tokens):
            slots[token] |= _ONE << np.uint64(i)
        return np.zeros((0, 0), np.uint64)
    masks = np.zeros((len(tokens), (len(tokens) + WORD - 1) // WORD), np.uint64)
    rows = np.uint64(0)
    for i, token in enumerate(tokens):
        if not slots[token]:
            rows += _ONE
            slots[token] = rows
        masks[slots[token] - _ONE, i // WORD] |= _ONE << np.uint64(i % WORD)
    return masks


@compiled
def lift(tokens: Any, slots: Any) -> None:
    """Set the slots of these tokens to 0 again."""
    for token in tokens:
        slots[token] = 0


@compiled
def lcs(masks: Any, slots: Any, tokens: Any, begin: int, end: int, wanted: int) -> int:
    """Length of the longest common subsequence of the text that was placed and tokens[begin:end].

    Of a long text 0 is returned where too few of these tokens are in it for an LCS of `wanted`.
    """
    words = masks.shape[1]
    if not words:
        row = _ALL
        # no branch, as nothing foresees whether a token is shared; unsigned indices are not tested for a sign
        for i in range(begin, end):
            hit = row & slots[np.uint64(tokens[np.uint64(i)])]
            row = (row + hit) | (row - hit)
        return popcount(~row)
    known: Any = 0
    for i in range(begin, end):
        known += np.int64(slots[np.uint64(tokens[np.uint64(i)])] != 0)
    if known < wanted:
        return 0
    rows = np.full(words, _ALL, np.uint64)
    for i in range(begin, end):
        slot = slots[tokens[i]]
        if not slot:
            continue
        mask, carry = slot - _ONE, np.uint64(0)
        for w in range(words):
            hit = rows[w] & masks[mask, w]
            total = rows[w] + hit + carry
            over = total < rows[w] or (carry == _ONE and total == rows[w])
            rows[w] = total | (rows[w] - hit)
            carry = _ONE if over else np.uint64(0)
    common = 0
    for w in range(words):
        common += popcount(~rows[w])
    return common

"""The compiled search of the exact ROUGE-L filter: the first admitted text that is too like a candidate."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.dedup.compiled import compiled
from pipeline.dedup.lcs import (
    BYTE,
    CLASSES,
    Postings,
    Ranked,
    Texts,
    f_measure,
    lcs,
    lift,
    list_of,
    needs,
    number_of,
    place,
    popcount,
    sign,
    sort,
)

_EIGHTS = 64
_TOGETHER = 8 * _EIGHTS  # entries looked at together
_MAYBE = 4096  # texts to compare with that are gathered before they are
_FRACTION, _MORE = 20, 1 << 20


class Asked(NamedTuple):
    """What a candidate's bounds need."""

    first: np.uint64  # its signature
    second: np.uint64
    hidden: int  # tokens without a bit of their own
    length: int
    share: int  # of both lengths that an LCS has at the threshold, rounded down, in steps of 2 ** -_FRACTION


@compiled
def _span(entries: Any, heads: Any, one: int, since: int) -> Any:
    """Where in a list the texts numbered `since` and up begin, and where it ends."""
    low, end = heads[one, 0], heads[one, 0] + heads[one, 1]
    high = end if since else low
    while low < high:
        middle = (low + high) // 2
        if number_of(entries[2, middle]) < since:
            low = middle + 1
        else:
            high = middle
    return low, end


@compiled
def _flag(
    first: Any, second: Any, words: Any, begin: int, end: int, asked: Asked, low: int, high: int, flags: Any
) -> int:
    """Flag (in bytes) which of the entries begin..end may be too like; return how many.

    Without a branch or a table, so that a processor takes several at once; the bounds are as good as exact.
    """
    count, low, high = 0, min(low, BYTE), min(high, BYTE)
    for i in range(end - begin):
        word = np.int64(words[begin + i])  # see `packed`
        n, left, behind = word & BYTE, (word >> 8) & BYTE, (word >> 16) & BYTE
        left += (left == BYTE) * _MORE
        behind += (behind == BYTE) * _MORE
        shared = popcount(asked.first & first[begin + i]) + popcount(asked.second & second[begin + i])
        most = min(left, shared + min(behind, asked.hidden))
        like = (n >= low) & (n <= high) & (most << _FRACTION > (asked.length + n) * asked.share)
        flags[i] = like
        count += like
    for i in range(end - begin, (end - begin + 7) // 8 * 8):
        flags[i] = 0  # the rest of eight
    return count


@compiled
def _gather(m: int, ranked: Ranked, lists: Postings, since: int, low: int, table: Any) -> Any:
    """Where to look (spans, 4): begin, end, shortest and longest partner."""
    base, heads, high = lists.base, lists.heads, low + len(table) - 1
    distinct, before = ranked
    for i in range(len(distinct)):
        if m - before[i] < table[0]:
            distinct = distinct[:i]
            break
    spans = np.empty((2 * CLASSES * len(distinct), 4), np.int64)
    count: Any = 0
    for i in range(len(distinct)):
        token = distinct[i]
        while table[high - low] > m - before[i]:
            high -= 1  # need(m, n) grows with n
        split = base[token + 1] - base[token] > 1
        for far in range(1 + split):
            shortest = max(low, m + 1) if far else low
            if shortest > high:
                break
            for one in range(list_of(base, token, shortest, far), list_of(base, token, high, far) + 1):
                if not heads[one, 1] or heads[one, 3] < since:
                    continue
                begin, end = _span(lists.entries, heads, one, since)
                spans[count, 0], spans[count, 1] = begin, end
                spans[count, 2], spans[count, 3] = shortest, high
                count += 1
    return spans[:count]


@compiled
def _name(words: Any, begin: int, end: int, flags: Any, eights: Any, maybe: Any, count: int) -> int:
    """Append the numbers of the flagged texts to the `count` that are there; return how many there are."""
    for eight in range((end - begin + 7) // 8):
        if eights[eight]:
            for i in range(8 * eight, 8 * eight + 8):
                if flags[i]:
                    maybe[count] = number_of(words[begin + i])
                    count += 1
    return count


@compiled
def _decide(
    maybe: Any, tokens: Any, pool: Texts, slots: Any, low: int, table: Any, best: int, score: float
) -> Any:
    """The earliest of these texts that is too like, if it is earlier than `best`, and its F-measure."""
    sort(maybe)
    m, last, pool_tokens, pool_starts = len(tokens), -1, pool.tokens, pool.starts
    masks = place(tokens, slots)
    for number in maybe:
        if 0 <= best <= number:
            break
        if number == last:
            continue
        last = number
        begin, end = pool_starts[number], pool_starts[number + 1]
        n: Any = end - begin
        if n < low or n >= low + len(table):
            continue
        wanted = table[n - low]
        common = lcs(masks, slots, pool_tokens, begin, end, wanted)
        if common >= wanted:
            best, score = number, f_measure(common, m, n)
    lift(tokens, slots)
    return best, score


@compiled
def first_match(
    tokens: Any,
    ranked: Ranked,
    pool: Texts,
    lists: Postings,
    slots: Any,
    longest: int,
    since: int,
    threshold: float,
) -> Any:
    """The earliest admitted text, from number `since` on, that is too like, and its F-measure; else -1, 0."""
    best: Any = -1
    m, score, count = len(tokens), 0.0, 0
    low, table = needs(m, longest, threshold)
    if m == 0 or len(table) == 0:
        return best, score
    bits, maybe, eights = np.empty(2, np.uint64), np.empty(_MAYBE, np.int64), np.empty(_EIGHTS, np.uint64)
    flags = eights.view(np.uint8)
    hidden = sign(tokens, bits)
    asked = Asked(bits[0], bits[1], hidden, m, int(threshold / 2 * _MORE * (1 - 1e-6)))
    entries = lists.entries
    first, second, words = entries[0], entries[1], entries[2]
    spans = _gather(m, ranked, lists, since, low, table)
    for one in range(len(spans)):
        begin, end = spans[one, 0], spans[one, 1]
        for part in range(begin, end, _TOGETHER):
            upto = min(end, part + _TOGETHER)
            if 0 <= best <= number_of(words[part]):
                break  # only an earlier one would do
            if _flag(first, second, words, part, upto, asked, spans[one, 2], spans[one, 3], flags):
                count = _name(words, part, upto, flags, eights, maybe, count)
            if count > _MAYBE - _TOGETHER:
                best, score = _decide(maybe[:count], tokens, pool, slots, low, table, best, score)
                count = 0
    if count:
        best, score = _decide(maybe[:count], tokens, pool, slots, low, table, best, score)
    return best, score

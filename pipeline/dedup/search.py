"""The compiled search of the exact ROUGE-L filter: the first admitted text that is too like a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.dedup.lcs import (
    BYTE,
    CLASSES,
    SHORTEST,
    Postings,
    Scratch,
    Texts,
    f_measure,
    lcs,
    list_of,
    needs,
    number_of,
    place,
    popcount,
    rarest_first,
    sign,
)

PICKED = 512  # entries looked at together


@njit(cache=True, nogil=True)
def _span(entries: Any, heads: Any, one: int, since: int) -> Any:
    """Where in a list the texts numbered `since` and up begin, and where it ends."""
    low, end = heads[one, 0], heads[one, 0] + heads[one, 1]
    high = end if since else low
    while low < high:
        middle = (low + high) // 2
        if number_of(entries[middle, 2]) < since:
            low = middle + 1
        else:
            high = middle
    return low, end


@njit(cache=True, nogil=True)
def _pick(entries: Any, begin: int, end: int, low: int, high: int, least: int, picked: Any) -> int:
    """Write which entries have a length from low to high and at least `least` tokens left; return how many.

    Without a branch: what a processor cannot foresee costs it more than the work.
    """
    count: Any = 0
    low, high, least = min(low, BYTE), min(high, BYTE), min(least, BYTE)
    for at in range(begin, end):
        word = np.int64(entries[at, 2])
        n, left = word & BYTE, (word >> 8) & BYTE
        picked[count] = at
        count += np.int64((low <= n) & (n <= high) & (left >= least))
    return count


@njit(cache=True, nogil=True)
def _gather(tokens: Any, rank: Any, lists: Postings, since: int, low: int, table: Any) -> Any:
    """Where to look (spans, 5): begin, end, shortest and longest partner, fewest tokens shared with one."""
    m, base, heads, high = len(tokens), lists.base, lists.heads, low + len(table) - 1
    distinct, before = rarest_first(tokens, rank)
    for i in range(len(distinct)):
        if m - before[i] < table[0]:
            distinct = distinct[:i]
            break
    spans = np.empty((2 * CLASSES * len(distinct), 5), np.int64)
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
                begun = SHORTEST[one - base[token] - far * CLASSES] if split else 1
                begin, end = _span(lists.entries, heads, one, since)
                spans[count, 0], spans[count, 1] = begin, end
                spans[count, 2], spans[count, 3] = shortest, high
                spans[count, 4] = table[max(shortest, begun) - low]
                count += 1
    return spans[:count]


@njit(cache=True, nogil=True)
def first_match(
    tokens: Any,
    rank: Any,
    pool: Texts,
    lists: Postings,
    scratch: Scratch,
    longest: int,
    since: int,
    threshold: float,
) -> Any:
    """The earliest admitted text, from number `since` on, that is too like, and its F-measure; else -1, 0."""
    best: Any = -1
    m, score = len(tokens), 0.0
    low, table = needs(m, longest, threshold)
    if m == 0 or len(table) == 0:
        return best, score
    bits, masks, picked = np.empty(2, np.uint64), np.zeros((0, 0), np.uint64), np.empty(PICKED, np.int64)
    hidden = sign(tokens, bits)
    # as locals: taken out of their tuples in the loop they would be counted as references each time
    entries, seen, slots = lists.entries, scratch.seen, scratch.slots
    pool_tokens, pool_starts, pool_hidden = pool.tokens, pool.starts, pool.hidden
    scratch.clock[0] += 1
    now: Any = scratch.clock[0]
    spans = _gather(tokens, rank, lists, since, low, table)
    for one in range(len(spans)):
        begin, end, shortest, high = spans[one, 0], spans[one, 1], spans[one, 2], spans[one, 3]
        least = spans[one, 4]
        for part in range(begin, end, PICKED):
            upto = min(end, part + PICKED)
            for j in range(_pick(entries, part, upto, shortest, high, least, picked)):
                at = picked[j]
                word = np.int64(entries[at, 2])  # see `packed`
                number, behind = word >> 24, (word >> 16) & BYTE
                n: Any = word & BYTE
                if 0 <= best <= number:
                    break  # only an earlier one would do
                if n == BYTE:
                    n = pool_starts[number + 1] - pool_starts[number]
                    if n < low or n > high:
                        continue
                if behind == BYTE:
                    behind = pool_hidden[number]
                wanted = table[n - low]
                shared = popcount(bits[0] & entries[at, 0]) + popcount(bits[1] & entries[at, 1])
                if shared + min(hidden, behind) < wanted or seen[number] == now:
                    continue
                seen[number] = now
                if len(masks) == 0:
                    masks = place(tokens, slots)
                common = lcs(masks, slots, pool_tokens[pool_starts[number] : pool_starts[number + 1]], wanted)
                if common >= wanted:
                    best, score = number, f_measure(common, m, n)
            if 0 <= best <= number_of(entries[upto - 1, 2]):
                break
    if len(masks):
        for token in tokens:
            slots[token] = -1
    return best, score

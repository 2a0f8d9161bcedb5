"""The compiled search of the exact ROUGE-L filter: the first admitted text that is too like a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.dedup.lcs import (
    Postings,
    Scratch,
    Texts,
    f_measure,
    lcs,
    needs,
    place,
    popcount,
    rarest_first,
    sign,
)

PICKED = 512  # entries looked at together


@njit(cache=True, nogil=True)
def _begin(entries: Any, first: int, end: int, since: int) -> int:
    """Where in a list the texts numbered `since` and up begin."""
    low, high = first, end
    while low < high:
        middle = (low + high) // 2
        if entries[middle, 0] < since:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _pick(entries: Any, begin: int, end: int, low: int, high: int, least: int, picked: Any) -> int:
    """Write which entries have a length from low to high and at least `least` tokens left; return how many.

    Without a branch: what a processor cannot foresee costs it more than the work.
    """
    count: Any = 0
    for at in range(begin, end):
        n = entries[at, 1]
        picked[count] = at
        count += np.int64((low <= n) & (n <= high) & (entries[at, 2] >= least))
    return count


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
    """The earliest admitted text, from number `since` on, whose F-measure exceeds the threshold.

    Returns its number and that F-measure; -1 and 0 if there is none.
    """
    m, best, score = len(tokens), -1, 0.0
    if m == 0:
        return best, score
    low, table = needs(m, longest, threshold)
    bits, masks, picked = np.empty(2, np.uint64), np.zeros((0, 0), np.uint64), np.empty(PICKED, np.int64)
    hidden = sign(tokens, bits)
    # as locals: taken out of their tuples in the loop they would be counted as references each time
    entries, seen, slots = lists.entries, scratch.seen, scratch.slots
    pool_bits, pool_hidden, pool_tokens, pool_starts = pool.bits, pool.hidden, pool.tokens, pool.starts
    scratch.clock[0] += 1
    now: Any = scratch.clock[0]
    high = low + len(table) - 1
    distinct, before = rarest_first(tokens, rank)
    for i in range(len(distinct)):
        token, left = distinct[i], m - before[i]
        while high >= low and table[high - low] > left:
            high -= 1  # need(m, n) grows with n
        if high < low:
            break
        first, end = lists.first[token], lists.first[token] + lists.size[token]
        begin = _begin(entries, first, end, since) if since else first
        for part in range(begin, end, PICKED):
            for j in range(_pick(entries, part, min(end, part + PICKED), low, high, table[0], picked)):
                number, n = entries[picked[j], 0], entries[picked[j], 1]
                if 0 <= best <= number:
                    break  # only an earlier one would do
                wanted = table[n - low]
                if entries[picked[j], 2] < wanted or seen[number] == now:
                    continue
                seen[number] = now
                shared = popcount(bits[0] & pool_bits[number, 0]) + popcount(bits[1] & pool_bits[number, 1])
                if shared + min(hidden, pool_hidden[number]) < wanted:
                    continue
                if len(masks) == 0:
                    masks = place(tokens, slots)
                found = lcs(masks, slots, pool_tokens[pool_starts[number] : pool_starts[number + 1]])
                if found >= wanted:
                    best, score = number, f_measure(found, m, n)
            if 0 <= best <= entries[min(end, part + PICKED) - 1, 0]:
                break
    if len(masks):
        for token in tokens:
            scratch.slots[token] = -1
    return best, score

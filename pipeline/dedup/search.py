"""The compiled search of the exact ROUGE-L filter: the first admitted text that is too like a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.dedup.lcs import (
    LENGTHS,
    Postings,
    Scratch,
    Texts,
    f_measure,
    lcs,
    lists_of,
    needs,
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
    if not since:
        return low, end
    high = end if heads[one, 3] >= since else low
    end = high
    while low < high:
        middle = (low + high) // 2
        if entries[middle, 0] < since:
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
    """The earliest admitted text, from number `since` on, that is too like, and its F-measure; else -1, 0."""
    m, best, score = len(tokens), -1, 0.0
    if m == 0:
        return best, score
    bits, masks, picked = np.empty(2, np.uint64), np.zeros((0, 0), np.uint64), np.empty(PICKED, np.int64)
    hidden = sign(tokens, bits)
    low, table = needs(m, longest, threshold)
    # as locals: taken out of their tuples in the loop they would be counted as references each time
    base, heads, entries, signs = lists.base, lists.heads, lists.entries, lists.signs
    seen, slots, pool_tokens, pool_starts = scratch.seen, scratch.slots, pool.tokens, pool.starts
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
        start, stop = lists_of(base, token, low, high)
        for one in range(start, stop):
            begin, end = _span(entries, heads, one, since)
            least = table[
                max(low, min(low, LENGTHS) + one - start) - low
            ]  # a list is of one length, or of all
            for part in range(begin, end, PICKED):
                for j in range(_pick(entries, part, min(end, part + PICKED), low, high, least, picked)):
                    number, n = entries[picked[j], 0], entries[picked[j], 1]
                    if 0 <= best <= number:
                        break  # only an earlier one would do
                    wanted, at = table[n - low], picked[j]
                    shared = popcount(bits[0] & signs[at, 0]) + popcount(bits[1] & signs[at, 1])
                    most = min(shared + min(hidden, entries[at, 3]), entries[at, 2])
                    if most < wanted or seen[number] == now:
                        continue
                    seen[number] = now
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

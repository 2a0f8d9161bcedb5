"""Compiled loops that keep the inverted index of the exact ROUGE-L filter, and go through whole batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from pipeline.dedup.lcs import (
    Postings,
    Scratch,
    Texts,
    f_measure,
    fewest,
    lcs,
    list_of,
    need,
    packed,
    place,
    popcount,
    rarest_first,
    sign,
)
from pipeline.dedup.search import first_match


@njit(cache=True, nogil=True)
def match(
    new: Texts,
    begin: int,
    end: int,
    rank: Any,
    pool: Texts,
    lists: Postings,
    scratch: Scratch,
    longest: int,
    threshold: float,
    matches: Any,
    scores: Any,
) -> None:
    """Search for the new texts begin..end; write their matches and F-measures."""
    for i in range(begin, end):
        tokens = new.tokens[new.starts[i] : new.starts[i + 1]]
        matches[i], scores[i] = first_match(tokens, rank, pool, lists, scratch, longest, 0, threshold)


@njit(cache=True, nogil=True)
def _copy_rows(source: Any, first: int, target: Any, begin: int, count: int) -> None:
    """Copy entries one by one: a slice assignment takes Numba seconds to compile."""
    for i in range(count):
        for j in range(source.shape[1]):
            target[begin + i, j] = source[first + i, j]


@njit(cache=True, nogil=True)
def _grown(lists: Postings, room: int) -> Postings:
    """The lists with room for so many entries."""
    entries = np.empty((room, 3), np.uint64)
    _copy_rows(lists.entries, 0, entries, 0, lists.used[0])
    return Postings(lists.base, lists.heads, lists.used, entries)


@njit(cache=True, nogil=True)
def _entries(tokens: Any, rank: Any, base: Any, longest: int, threshold: float) -> Any:
    """The lists where an admitted text belongs, and how many of its tokens stand from each list's on."""
    m = len(tokens)
    least, near = fewest(m, longest, threshold), need(m, m, threshold)
    places, left = np.empty(m, np.int64), np.empty(m, np.int64)
    distinct, before = rarest_first(tokens, rank)
    count = 0
    for i in range(len(distinct)):
        rest = m - before[i]
        if rest < least:
            break
        places[count], left[count] = list_of(base, distinct[i], m, 1 if rest < near else 0), rest
        count += 1
    return places[:count], left[:count]


@njit(cache=True, nogil=True)
def _list(lists: Postings, pool: Texts, number: int, rank: Any, longest: int, threshold: float) -> Postings:
    """Enter an admitted text where it may be searched for; return the lists, which may have moved."""
    tokens, heads = pool.tokens[pool.starts[number] : pool.starts[number + 1]], lists.heads
    places, left = _entries(tokens, rank, lists.base, longest, threshold)
    for i in range(len(places)):
        mine = places[i]
        count = heads[mine, 1]
        if count == heads[mine, 2]:  # move the list to where it has twice the room
            room, used = max(2, 2 * count), lists.used[0]
            if used + room > len(lists.entries):
                lists = _grown(lists, max(2 * used, used + room))
            _copy_rows(lists.entries, heads[mine, 0], lists.entries, used, count)
            heads[mine, 0], heads[mine, 2], lists.used[0] = used, room, used + room
        at = heads[mine, 0] + count
        lists.entries[at, 0], lists.entries[at, 1] = pool.bits[number, 0], pool.bits[number, 1]
        lists.entries[at, 2] = packed(number, pool.hidden[number], left[i], len(tokens))
        heads[mine, 1], heads[mine, 3] = count + 1, number
    return lists


@njit(cache=True, nogil=True)
def count_entries(
    texts: Texts, size: int, rank: Any, base: Any, longest: int, threshold: float, counts: Any
) -> None:
    """Add to `counts` (L,) how many entries `list_all` would make of the first `size` texts in each list."""
    for number in range(size):
        tokens = texts.tokens[texts.starts[number] : texts.starts[number + 1]]
        places, _ = _entries(tokens, rank, base, longest, threshold)
        for mine in places:
            counts[mine] += 1


@njit(cache=True, nogil=True)
def list_all(
    pool: Texts, begin: int, end: int, rank: Any, lists: Postings, longest: int, threshold: float
) -> Any:
    """Enter the admitted texts begin..end; return the lists, which may have moved."""
    for number in range(begin, end):
        lists = _list(lists, pool, number, rank, longest, threshold)
    return lists


@njit(cache=True, nogil=True)
def admit(
    new: Texts,
    count: int,
    rank: Any,
    pool: Texts,
    size: int,
    lists: Postings,
    scratch: Scratch,
    longest: int,
    threshold: float,
    since: int,
    always: bool,
    matches: Any,
    scores: Any,
) -> Any:
    """Admit the first `count` new texts that have no match, in order; `pool` has room for all of them.

    `matches` holds what was found among the texts below `since`; the rest is searched here unless they are
    admitted `always`. Returns the lists, which may have moved.
    """
    for i in range(count):
        if matches[i] >= 0:
            continue
        tokens = new.tokens[new.starts[i] : new.starts[i + 1]]
        if not always:
            found, score = first_match(tokens, rank, pool, lists, scratch, longest, since, threshold)
            if found >= 0:
                matches[i], scores[i] = found, score
                continue
        at = pool.starts[size]
        for j in range(len(tokens)):
            pool.tokens[at + j] = tokens[j]
        pool.starts[size + 1] = at + len(tokens)
        pool.hidden[size] = sign(tokens, pool.bits[size])
        lists = _list(lists, pool, size, rank, longest, threshold)
        size += 1
    return lists


@njit(cache=True, nogil=True)
def most_similar(tokens: Any, pool: Texts, size: int, scratch: Scratch, k: int) -> Any:
    """The k admitted texts with the highest F-measure, the earliest of equals first (numbers, F)."""
    k, m = min(k, size), len(tokens)
    numbers, scores = np.zeros(k, np.int64), np.full(k, -1.0)
    bits = np.empty(2, np.uint64)
    hidden = sign(tokens, bits)
    masks = place(tokens, scratch.slots)
    for number in range(size):
        n = pool.starts[number + 1] - pool.starts[number]
        shared = popcount(bits[0] & pool.bits[number, 0]) + popcount(bits[1] & pool.bits[number, 1])
        bound = min(min(m, n), shared + min(hidden, pool.hidden[number]))
        if f_measure(bound, m, n) <= scores[k - 1]:
            continue
        common = (
            lcs(masks, scratch.slots, pool.tokens[pool.starts[number] : pool.starts[number + 1]], 0)
            if m
            else 0
        )
        score, at = f_measure(common, m, n), k
        while at and score > scores[at - 1]:
            at -= 1
        if at < k:
            for j in range(k - 1, at, -1):
                numbers[j], scores[j] = numbers[j - 1], scores[j - 1]
            numbers[at], scores[at] = number, score
    for token in tokens:
        scratch.slots[token] = -1
    return numbers, scores

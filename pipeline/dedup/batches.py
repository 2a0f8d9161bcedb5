"""Compiled loops that keep the inverted index of the exact ROUGE-L filter, and go through whole batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.dedup.compiled import compiled
from pipeline.dedup.lcs import (
    Postings,
    Ranked,
    Texts,
    f_measure,
    fewest,
    lcs,
    lift,
    list_of,
    need,
    packed,
    place,
    popcount,
    rarest_first,
    sign,
)
from pipeline.dedup.search import first_match


@compiled
def match(
    new: Texts,
    begin: int,
    end: int,
    rank: Any,
    pool: Texts,
    lists: Postings,
    slots: Any,
    longest: int,
    threshold: float,
    matches: Any,
    scores: Any,
) -> None:
    """Search for the new texts begin..end; write their matches and F-measures."""
    for i in range(begin, end):
        tokens = new.tokens[new.starts[i] : new.starts[i + 1]]
        ranked = rarest_first(tokens, rank)
        matches[i], scores[i] = first_match(tokens, ranked, pool, lists, slots, longest, 0, threshold)


@compiled
def _copy(source: Any, first: int, target: Any, begin: int, count: int) -> None:
    """Copy entries one by one: a slice assignment takes Numba seconds to compile."""
    for row in range(source.shape[0]):
        for i in range(count):
            target[row, begin + i] = source[row, first + i]


@compiled
def _grown(lists: Postings, room: int) -> Postings:
    """The lists with room for so many entries."""
    entries = np.empty((3, room), np.uint64)
    _copy(lists.entries, 0, entries, 0, lists.used[0])
    return Postings(lists.base, lists.heads, lists.used, entries)


@compiled
def _entries(m: int, ranked: Ranked, base: Any, longest: int, threshold: float) -> Any:
    """The lists where an admitted text belongs, and how many of its tokens stand from each list's on."""
    least, near = fewest(m, longest, threshold), need(m, m, threshold)
    places, left = np.empty(m, np.int64), np.empty(m, np.int64)
    distinct, before = ranked
    count = 0
    for i in range(len(distinct)):
        rest = m - before[i]
        if rest < least:
            break
        places[count], left[count] = list_of(base, distinct[i], m, 1 if rest < near else 0), rest
        count += 1
    return places[:count], left[:count]


@compiled
def _list(
    lists: Postings, pool: Texts, number: int, ranked: Ranked, longest: int, threshold: float
) -> Postings:
    """Enter an admitted text where it may be searched for; return the lists, which may have moved."""
    m, heads = pool.starts[number + 1] - pool.starts[number], lists.heads
    places, left = _entries(m, ranked, lists.base, longest, threshold)
    for i in range(len(places)):
        mine = places[i]
        count = heads[mine, 1]
        if count == heads[mine, 2]:  # move the list to where it has twice the room
            room, used = max(2, 2 * count), lists.used[0]
            if used + room > lists.entries.shape[1]:
                lists = _grown(lists, max(2 * used, used + room))
            _copy(lists.entries, heads[mine, 0], lists.entries, used, count)
            heads[mine, 0], heads[mine, 2], lists.used[0] = used, room, used + room
        at = heads[mine, 0] + count
        lists.entries[0, at], lists.entries[1, at] = pool.bits[number, 0], pool.bits[number, 1]
        lists.entries[2, at] = packed(number, pool.hidden[number], left[i], m)
        heads[mine, 1], heads[mine, 3] = count + 1, number
    return lists


@compiled
def count_entries(
    texts: Texts, size: int, rank: Any, base: Any, longest: int, threshold: float, counts: Any
) -> None:
    """Add to `counts` (L,) how many entries `list_all` would make of the first `size` texts in each list."""
    for number in range(size):
        tokens = texts.tokens[texts.starts[number] : texts.starts[number + 1]]
        places, _ = _entries(len(tokens), rarest_first(tokens, rank), base, longest, threshold)
        for mine in places:
            counts[mine] += 1


@compiled
def list_all(
    pool: Texts, begin: int, end: int, rank: Any, lists: Postings, longest: int, threshold: float
) -> Any:
    """Enter the admitted texts begin..end; return the lists, which may have moved."""
    for number in range(begin, end):
        tokens = pool.tokens[pool.starts[number] : pool.starts[number + 1]]
        lists = _list(lists, pool, number, rarest_first(tokens, rank), longest, threshold)
    return lists


@compiled
def admit(
    new: Texts,
    count: int,
    rank: Any,
    pool: Texts,
    size: int,
    lists: Postings,
    slots: Any,
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
        ranked = rarest_first(tokens, rank)
        if not always:
            found, score = first_match(tokens, ranked, pool, lists, slots, longest, since, threshold)
            if found >= 0:
                matches[i], scores[i] = found, score
                continue
        at = pool.starts[size]
        for j in range(len(tokens)):
            pool.tokens[at + j] = tokens[j]
        pool.starts[size + 1] = at + len(tokens)
        pool.hidden[size] = sign(tokens, pool.bits[size])
        lists = _list(lists, pool, size, ranked, longest, threshold)
        size += 1
    return lists


@compiled
def most_similar(tokens: Any, pool: Texts, size: int, slots: Any, k: int) -> Any:
    """The k admitted texts with the highest F-measure, the earliest of equals first (numbers, F)."""
    k, m = min(k, size), len(tokens)
    numbers, scores = np.zeros(k, np.int64), np.full(k, -1.0)
    bits = np.empty(2, np.uint64)
    hidden = sign(tokens, bits)
    masks = place(tokens, slots)
    for number in range(size):
        n = pool.starts[number + 1] - pool.starts[number]
        shared = popcount(bits[0] & pool.bits[number, 0]) + popcount(bits[1] & pool.bits[number, 1])
        bound = min(min(m, n), shared + min(hidden, pool.hidden[number]))
        if f_measure(bound, m, n) <= scores[k - 1]:
            continue
        common = lcs(masks, slots, pool.tokens, pool.starts[number], pool.starts[number + 1], 0) if m else 0
        score, at = f_measure(common, m, n), k
        while at and score > scores[at - 1]:
            at -= 1
        if at < k:
            for j in range(k - 1, at, -1):
                numbers[j], scores[j] = numbers[j - 1], scores[j - 1]
            numbers[at], scores[at] = number, score
    lift(tokens, slots)
    return numbers, scores

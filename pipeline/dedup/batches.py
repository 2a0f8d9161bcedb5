"""Compiled loops that keep the inverted index of the exact ROUGE-L filter, and go through whole batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.dedup.bounds import f_measure, fewest, need, needs
from pipeline.dedup.compiled import compiled
from pipeline.dedup.lcs import (
    Postings,
    Ranked,
    Texts,
    lcs,
    lift,
    list_of,
    packed,
    place,
    popcount,
    rarest_first,
    sign,
)
from pipeline.dedup.search import EIGHTS, TOGETHER, Scratch, asked_of, decide, flag, name, search

_BATCH = 4096  # texts that are searched for together


@compiled
def rank(new: Texts, begin: int, end: int, ranks: Any, ranked: Ranked) -> None:
    """Write what a search needs of the new texts begin..end; `ranks` (V,) says which tokens are rarer."""
    for i in range(begin, end):
        tokens, at = new.tokens[new.starts[i] : new.starts[i + 1]], new.starts[i] - new.starts[0]
        ranked.counts[i] = rarest_first(tokens, ranks, ranked.tokens[at:], ranked.before[at:])
        ranked.hidden[i] = sign(tokens, ranked.bits[i])


@compiled
def match(
    new: Texts, ranked: Ranked, begin: int, end: int, pool: Texts, lists: Postings, scratch: Scratch,
    longest: int, threshold: float, matches: Any, scores: Any,
) -> None:  # fmt: skip
    """Search for the new texts begin..end; write their matches and F-measures."""
    for first in range(begin, end, _BATCH):
        last = min(end, first + _BATCH)
        search(new, ranked, first, last, pool, lists, scratch, longest, threshold, matches, scores)


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
def _entries(
    m: int, distinct: Any, before: Any, count: int, base: Any, longest: int, threshold: float,
    places: Any, left: Any,
) -> int:  # fmt: skip
    """Write the lists where a text of m tokens belongs, and how many of these stand from each list's on."""
    least, near = fewest(m, longest, threshold), need(m, m, threshold)
    for i in range(count):
        left[i] = m - before[i]
        if left[i] < least:
            return i
        places[i] = list_of(base, distinct[i], m, 1 if left[i] < near else 0)
    return count


@compiled
def _list(
    lists: Postings, pool: Texts, number: int, distinct: Any, before: Any, count: int,
    longest: int, threshold: float,
) -> Postings:  # fmt: skip
    """Enter an admitted text where it may be searched for; return the lists, which may have moved."""
    m, heads = pool.starts[number + 1] - pool.starts[number], lists.heads
    places, left = np.empty(count, np.int64), np.empty(count, np.int64)
    for i in range(_entries(m, distinct, before, count, lists.base, longest, threshold, places, left)):
        mine = places[i]
        held = heads[mine, 1]
        if held == heads[mine, 2]:  # move the list to where it has twice the room
            room, used = max(2, 2 * held), lists.used[0]
            if used + room > lists.entries.shape[1]:
                lists = _grown(lists, max(2 * used, used + room))
            _copy(lists.entries, heads[mine, 0], lists.entries, used, held)
            heads[mine, 0], heads[mine, 2], lists.used[0] = used, room, used + room
        at = heads[mine, 0] + held
        lists.entries[0, at], lists.entries[1, at] = pool.bits[number, 0], pool.bits[number, 1]
        lists.entries[2, at] = packed(number, pool.hidden[number], left[i], m)
        heads[mine, 1] = held + 1
    return lists


@compiled
def count_entries(
    texts: Texts, begin: int, end: int, ranks: Any, base: Any, longest: int, threshold: float, counts: Any
) -> None:
    """Add to `counts` (L,) how many entries `list_all` would make of the texts begin..end in each list."""
    distinct, before = np.empty(longest, np.int32), np.empty(longest, np.int32)
    places, left = np.empty(longest, np.int64), np.empty(longest, np.int64)
    for number in range(begin, end):
        tokens = texts.tokens[texts.starts[number] : texts.starts[number + 1]]
        m, found = len(tokens), rarest_first(tokens, ranks, distinct, before)
        for i in range(_entries(m, distinct, before, found, base, longest, threshold, places, left)):
            counts[places[i]] += 1


@compiled
def list_all(pool: Texts, size: int, ranks: Any, lists: Postings, longest: int, threshold: float) -> Any:
    """Enter the first `size` admitted texts; return the lists, which may have moved."""
    distinct, before = np.empty(longest, np.int32), np.empty(longest, np.int32)
    for number in range(size):
        tokens = pool.tokens[pool.starts[number] : pool.starts[number + 1]]
        found = rarest_first(tokens, ranks, distinct, before)
        lists = _list(lists, pool, number, distinct, before, found, longest, threshold)
    return lists


@compiled
def _match_within(
    text: int, new: Texts, ranked: Ranked, pool: Texts, entries: Any, count: int, slots: Any,
    longest: int, threshold: float,
) -> Any:  # fmt: skip
    """The earliest match of a text among `count` admitted ones with these entries, and its F; else -1, 0."""
    tokens, held = new.tokens[new.starts[text] : new.starts[text + 1]], 0
    low, table = needs(len(tokens), longest, threshold)
    if len(tokens) == 0 or len(table) == 0:
        return -1, 0.0
    asked, high = asked_of(text, len(tokens), ranked, threshold), low + len(table) - 1
    first, second, words = entries[0], entries[1], entries[2]
    eights, numbers = np.empty(EIGHTS, np.uint64), np.empty(count + 1, np.int64)
    flags = eights.view(np.uint8)
    for part in range(0, count, TOGETHER):
        upto = min(count, part + TOGETHER)
        if flag(first, second, words, part, upto, asked, low, high, flags):
            held = name(words, part, upto, flags, eights, numbers, held)
    if not held:
        return -1, 0.0
    return decide(numbers[:held], tokens, pool, slots, longest, threshold, -1, 0.0)


@compiled
def admit(
    new: Texts, ranked: Ranked, count: int, pool: Texts, size: int, lists: Postings, scratch: Scratch,
    longest: int, threshold: float, always: bool, matches: Any, scores: Any,
) -> Any:  # fmt: skip
    """Admit the first `count` new texts that have no match, in order; `pool` has room for all of them.

    `matches` holds what was found among the texts admitted before; those admitted here are gone through one
    by one, as they are few, unless all are admitted `always`. Returns the lists, which may have moved.
    """
    entries, kept = np.empty((3, count), np.uint64), 0
    for i in range(count):
        if matches[i] < 0 and not always:
            matches[i], scores[i] = _match_within(
                i, new, ranked, pool, entries, kept, scratch.slots, longest, threshold
            )
        if matches[i] >= 0:
            continue
        begin, end, at = new.starts[i], new.starts[i + 1], pool.starts[size]
        for j in range(begin, end):
            pool.tokens[at + j - begin] = new.tokens[j]
        pool.starts[size + 1] = at + end - begin
        pool.bits[size, 0], pool.bits[size, 1] = ranked.bits[i, 0], ranked.bits[i, 1]
        pool.hidden[size], at = ranked.hidden[i], begin - new.starts[0]
        entries[0, kept], entries[1, kept] = ranked.bits[i, 0], ranked.bits[i, 1]
        entries[2, kept] = packed(size, ranked.hidden[i], end - begin, end - begin)
        distinct, before = ranked.tokens[at:], ranked.before[at:]
        lists = _list(lists, pool, size, distinct, before, ranked.counts[i], longest, threshold)
        size, kept = size + 1, kept + 1
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

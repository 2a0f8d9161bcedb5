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
    lcs,
    needs,
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
    since: int,
    matches: Any,
    scores: Any,
) -> None:
    """Search for the new texts begin..end from text `since` on; write their matches and F-measures."""
    for i in range(begin, end):
        tokens = new.tokens[new.starts[i] : new.starts[i + 1]]
        matches[i], scores[i] = first_match(tokens, rank, pool, lists, scratch, longest, since, threshold)


@njit(cache=True, nogil=True)
def _copy_rows(source: Any, first: int, target: Any, begin: int, count: int) -> None:
    """Copy rows one by one: a slice assignment takes Numba seconds to compile."""
    for i in range(count):
        for j in range(3):
            target[begin + i, j] = source[first + i, j]


@njit(cache=True, nogil=True)
def _list(lists: Postings, entries: Any, tokens: Any, number: int, rank: Any, least: int) -> Any:
    """Enter a text under the tokens with at least `least` tokens from there on; return the entries."""
    m = len(tokens)
    distinct, before = rarest_first(tokens, rank)
    for i in range(len(distinct)):
        token, p = distinct[i], before[i]
        if m - p < least:
            break
        count = lists.size[token]
        if count == lists.room[token]:  # move the list to where it has twice the room
            room, used = max(2, 2 * count), lists.used[0]
            if used + room > len(entries):
                grown = np.empty((max(2 * len(entries), used + room), 3), np.int32)
                _copy_rows(entries, 0, grown, 0, used)
                entries = grown
            _copy_rows(entries, lists.first[token], entries, used, count)
            lists.first[token], lists.room[token], lists.used[0] = used, room, used + room
        at = lists.first[token] + count
        entries[at, 0], entries[at, 1], entries[at, 2] = number, m, m - p
        lists.size[token] = count + 1
    return entries


@njit(cache=True, nogil=True)
def count_entries(texts: Texts, size: int, rank: Any, longest: int, threshold: float, counts: Any) -> None:
    """Add to `counts` (V,) under how many tokens `list_all` would enter the first `size` texts."""
    for number in range(size):
        tokens = texts.tokens[texts.starts[number] : texts.starts[number + 1]]
        if len(tokens) == 0:
            continue
        _, table = needs(len(tokens), longest, threshold)
        if len(table) == 0:
            continue
        distinct, before = rarest_first(tokens, rank)
        for i in range(len(distinct)):
            if len(tokens) - before[i] < table[0]:
                break
            counts[distinct[i]] += 1


@njit(cache=True, nogil=True)
def list_all(
    pool: Texts, begin: int, end: int, rank: Any, lists: Postings, longest: int, threshold: float
) -> Any:
    """Enter the admitted texts begin..end; return the entries, which may have moved."""
    entries = lists.entries
    for number in range(begin, end):
        tokens = pool.tokens[pool.starts[number] : pool.starts[number + 1]]
        _, table = needs(len(tokens), longest, threshold) if len(tokens) else (0, np.zeros(0, np.int64))
        if len(table):
            entries = _list(lists, entries, tokens, number, rank, table[0])
    return entries


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
    admitted `always`. Returns the new size of the pool and the entries, which may have moved.
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
        _, table = needs(len(tokens), longest, threshold) if len(tokens) else (0, np.zeros(0, np.int64))
        if len(table):
            entries = _list(lists, lists.entries, tokens, size, rank, table[0])
            lists = Postings(lists.first, lists.size, lists.room, lists.used, entries)
        size += 1
    return size, lists.entries


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
            lcs(masks, scratch.slots, pool.tokens[pool.starts[number] : pool.starts[number + 1]]) if m else 0
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

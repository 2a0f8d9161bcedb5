"""The compiled search of the exact ROUGE-L filter: the first admitted text that is too like a candidate.

Many candidates are searched for together, list by list: the entries of a list are fetched from memory once,
not once for each candidate.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from pipeline.dedup.bounds import f_measure, needs
from pipeline.dedup.compiled import compiled
from pipeline.dedup.lcs import (
    BYTE,
    CLASSES,
    Postings,
    Ranked,
    Texts,
    lcs,
    lift,
    list_of,
    number_of,
    place,
    popcount,
    sort,
)

EIGHTS = 64
TOGETHER = 8 * EIGHTS  # entries looked at together
_FRACTION, _MORE = 20, 1 << 20
_ROOM = 32  # lists of a text, at first
_HITS = 1 << 18  # pairs to compare that are gathered before they are


class Scratch(NamedTuple):
    """What one thread works with; all 0 between searches."""

    slots: np.ndarray  # (V,) uint64, see `lcs.place`
    first: np.ndarray  # (L,) int32, of each list: the first request, from 1 on


class Asked(NamedTuple):
    """What the bounds of a candidate need."""

    first: np.uint64  # its signature
    second: np.uint64
    hidden: int  # tokens without a bit of their own
    length: int
    share: int  # of both lengths that an LCS has at the threshold, rounded down, in steps of 2 ** -_FRACTION


@compiled
def _ask(
    text: int, at: int, m: int, ranked: Ranked, lists: Postings, low: int, table: Any,
    requests: Any, count: int,
) -> int:  # fmt: skip
    """Append the lists to look into for a text, behind `count` requests; return how many there are."""
    base, heads, high = lists.base, lists.heads, low + len(table) - 1
    for i in range(at, at + ranked.counts[text]):
        left = m - ranked.before[i]
        if left < table[0]:
            break
        token = ranked.tokens[i]
        while table[high - low] > left:
            high -= 1  # need(m, n) grows with n
        split = base[token + 1] - base[token] > 1
        for far in range(1 + split):
            shortest = max(low, m + 1) if far else low
            if shortest > high:
                break
            for one in range(list_of(base, token, shortest, far), list_of(base, token, high, far) + 1):
                if heads[one, 1]:
                    requests[count, 0], requests[count, 1] = one, text
                    requests[count, 2], requests[count, 3] = shortest, high
                    count += 1
    return count


@compiled
def _requests(
    new: Texts, ranked: Ranked, begin: int, end: int, lists: Postings, longest: int, threshold: float
) -> Any:  # fmt: skip
    """Where to look for the texts begin..end: list, text, shortest and longest partner (R, 4)."""
    count, requests = 0, np.empty((_ROOM * (end - begin), 4), np.int32)
    for text in range(begin, end):
        at, m = new.starts[text] - new.starts[0], new.starts[text + 1] - new.starts[text]
        low, table = needs(m, longest, threshold)
        if m == 0 or len(table) == 0:
            continue
        most = count + 2 * CLASSES * ranked.counts[text]
        if most > len(requests):
            before, requests = requests, np.empty((2 * most, 4), np.int32)
            for i in range(count):
                for j in range(4):
                    requests[i, j] = before[i, j]
        count = _ask(text, at, m, ranked, lists, low, table, requests, count)
    return requests[:count]


@compiled
def _by_list(requests: Any, first: Any) -> Any:
    """The order of the requests in which those of one list follow one another."""
    count = len(requests)
    following, order = np.empty(count, np.int32), np.empty(count, np.int32)
    for i in range(count - 1, -1, -1):
        one = requests[i, 0]
        following[i], first[one] = first[one], i + 1
    at = 0
    for i in range(count):
        request: Any = first[requests[i, 0]]
        first[requests[i, 0]] = 0
        while request:
            order[at] = request - 1
            request = following[request - 1]
            at += 1
    return order


@compiled
def asked_of(text: int, m: int, ranked: Ranked, threshold: float) -> Asked:
    """What is asked for one text of a block."""
    share = int(threshold / 2 * _MORE * (1 - 1e-6))
    return Asked(ranked.bits[text, 0], ranked.bits[text, 1], ranked.hidden[text], m, share)


@compiled
def flag(
    first: Any, second: Any, words: Any, begin: int, end: int, asked: Asked, low: int, high: int, flags: Any
) -> int:
    """Flag (in bytes) which of at most TOGETHER entries begin..end may be too like; return how many.

    Without a branch, a table or an index that may be negative, so that a processor takes several entries at
    once; the bounds are as good as exact.
    """
    count, low, high = 0, min(low, BYTE), min(high, BYTE)
    for i in range(end - begin):
        at = np.uint64(begin + i)
        word = np.int64(words[at])  # see `packed`
        n, left, behind = word & BYTE, (word >> 8) & BYTE, (word >> 16) & BYTE
        left += (left == BYTE) * _MORE
        behind += (behind == BYTE) * _MORE
        shared = popcount(asked.first & first[at]) + popcount(asked.second & second[at])
        most = min(left, shared + min(behind, asked.hidden))
        like = (n >= low) & (n <= high) & (most << _FRACTION > (asked.length + n) * asked.share)
        flags[i] = like
        count += like
    return count


@compiled
def name(words: Any, begin: int, end: int, flags: Any, eights: Any, numbers: Any, held: int) -> int:
    """Append the numbers of the flagged texts to the `held` ones; return how many there are."""
    for eight in range((end - begin + 7) // 8):
        if eights[eight]:
            for i in range(8 * eight, min(8 * eight + 8, end - begin)):
                numbers[held] = number_of(words[begin + i])
                held += flags[i]
    return held


@compiled
def decide(
    numbers: Any, tokens: Any, pool: Texts, slots: Any, longest: int, threshold: float,
    best: int, score: float,
) -> Any:  # fmt: skip
    """The earliest of these texts that is too like, if it is earlier than `best`, and its F-measure."""
    sort(numbers)
    m, last, pool_tokens, pool_starts = len(tokens), -1, pool.tokens, pool.starts
    low, table = needs(m, longest, threshold)
    masks = place(tokens, slots)
    for number in numbers:
        if 0 <= best <= number:
            break
        begin, end = pool_starts[number], pool_starts[number + 1]
        n: Any = end - begin
        if number == last or n < low or n >= low + len(table):
            continue
        last, wanted = number, table[n - low]
        common = lcs(masks, slots, pool_tokens, begin, end, wanted)
        if common >= wanted:
            best, score = number, f_measure(common, m, n)
    lift(tokens, slots)
    return best, score


@compiled
def _settle(
    found: Any, numbers: Any, count: int, new: Texts, begin: int, end: int, pool: Texts, slots: Any,
    longest: int, threshold: float, matches: Any, scores: Any,
) -> None:  # fmt: skip
    """Compare pairs of new and admitted text: found[i] with numbers[i], `count` of them."""
    begins, sorted_numbers = np.zeros(end - begin + 1, np.int64), np.empty(count, np.int64)
    for i in range(count):
        begins[found[i] - begin + 1] += 1
    begins = np.cumsum(begins)
    filled = begins.copy()
    for i in range(count):
        sorted_numbers[filled[found[i] - begin]] = numbers[i]
        filled[found[i] - begin] += 1
    for text in range(begin, end):
        mine = sorted_numbers[begins[text - begin] : begins[text - begin + 1]]
        if len(mine):
            tokens = new.tokens[new.starts[text] : new.starts[text + 1]]
            best, score = matches[text], scores[text]
            matches[text], scores[text] = decide(mine, tokens, pool, slots, longest, threshold, best, score)


@compiled
def search(
    new: Texts, ranked: Ranked, begin: int, end: int, pool: Texts, lists: Postings, scratch: Scratch,
    longest: int, threshold: float, matches: Any, scores: Any,
) -> None:  # fmt: skip
    """Write the earliest match of each of the new texts begin..end, and its F; both are -1 and 0 before."""
    starts, heads, held = new.starts, lists.heads, 0
    requests = _requests(new, ranked, begin, end, lists, longest, threshold)
    most = min(_HITS, 4096 * (end - begin))
    found, numbers, eights = np.empty(most, np.int64), np.empty(most, np.int64), np.empty(EIGHTS, np.uint64)
    flags, first, second, words = eights.view(np.uint8), lists.entries[0], lists.entries[1], lists.entries[2]
    for request in _by_list(requests, scratch.first):
        one, text = requests[request, 0], requests[request, 1]
        low, high = requests[request, 2], requests[request, 3]
        asked = asked_of(text, starts[text + 1] - starts[text], ranked, threshold)
        stop = heads[one, 0] + heads[one, 1]
        for part in range(heads[one, 0], stop, TOGETHER):
            upto = min(stop, part + TOGETHER)
            if 0 <= matches[text] <= number_of(words[part]):
                break  # only an earlier one would do
            if not flag(first, second, words, part, upto, asked, low, high, flags):
                continue
            before, held = held, name(words, part, upto, flags, eights, numbers, held)
            for i in range(before, held):
                found[i] = text
            if held > most - TOGETHER:
                index = (pool, scratch.slots, longest, threshold, matches, scores)
                _settle(found, numbers, held, new, begin, end, *index)
                held = 0
    if held:
        index = (pool, scratch.slots, longest, threshold, matches, scores)
        _settle(found, numbers, held, new, begin, end, *index)

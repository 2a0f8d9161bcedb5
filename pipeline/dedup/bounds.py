"""How long the LCS of two texts of given lengths must be for a ROUGE-L F above the threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.dedup.compiled import compiled

_ROUNDING = 1e-12  # of four operations on floats, and to spare


@compiled
def f_measure(common: int, m: int, n: int) -> float:
    """ROUGE-L F of an LCS of `common` tokens, by rouge_score's own operations so that ties fall alike."""
    if common == 0:
        return 0.0
    precision, recall = common / m, common / n
    return 2 * precision * recall / (precision + recall)


@compiled
def need(m: int, n: int, threshold: float) -> int:
    """The smallest LCS with an F-measure above the threshold; min(m, n) + 1 if there is none."""
    most, exact = min(m, n), threshold * (m + n) / 2
    # F = 2 LCS / (m + n) but for rounding: an LCS below `exact` by more than that is never enough, and one
    # above it always is; only what is as good as equal has to be computed
    least = max(1, int(exact * (1 - _ROUNDING)) + 1)
    while least <= most and least <= exact * (1 + _ROUNDING) and not f_measure(least, m, n) > threshold:
        least += 1
    return min(least, most + 1)


@compiled
def needs(m: int, longest: int, threshold: float) -> Any:
    """The shortest partner of a text of m tokens, and need(m, n) for it and longer ones up to `longest`."""
    low, high = m, m
    if need(m, m, threshold) > m:
        return m, np.zeros(0, np.int64)
    while low > 1 and need(m, low - 1, threshold) <= low - 1:
        low -= 1
    while high < longest and need(m, high + 1, threshold) <= m:
        high += 1
    table = np.empty(high - low + 1, np.int64)
    for n in range(low, high + 1):
        table[n - low] = need(m, n, threshold)
    return low, table


@compiled
def fewest(m: int, longest: int, threshold: float) -> int:
    """The fewest tokens that a text of m tokens shares with one that it is too like; m + 1: with none."""
    if m == 0:
        return 1
    _, table = needs(m, longest, threshold)
    return table[0] if len(table) else m + 1

"""Paired bootstrap over tasks: the interval of a difference (Efron 1979; on one test set Koehn 2004)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.intervals import Interval

_AT_ONCE = 2_000_000  # numbers drawn at a time


def paired(
    differences: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    resamples: int = 10000,
    seed: int = 0,
) -> Interval:
    """The weighted mean of differences, one a task, with the percentile interval of resampled tasks.

    `weights` (tokens of a reference, say) are resampled with their tasks; none: all tasks count the same.
    """
    count = len(differences)
    if not count:
        return Interval(0.0, 0.0, 0.0, 0)
    tops, bottoms = np.asarray(differences, np.float64), np.ones(count)
    if weights is not None:
        bottoms = np.asarray(weights, np.float64)
        tops = tops * bottoms
    rng, found = np.random.default_rng(seed), np.empty(resamples)
    step = max(1, _AT_ONCE // count)
    for begin in range(0, resamples, step):
        end = min(begin + step, resamples)
        drawn = rng.integers(0, count, (end - begin, count))  # (draws, tasks)
        found[begin:end] = tops[drawn].sum(axis=1) / bottoms[drawn].sum(axis=1)
    low, high = np.quantile(found, (0.025, 0.975))
    return Interval(float(tops.sum() / bottoms.sum()), float(low), float(high), count)

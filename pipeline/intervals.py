"""95% confidence intervals of shares, of means and of ratios."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959964  # of 95%


@dataclass(frozen=True)
class Interval:
    """An estimate from `count` observations with the interval around it; of none nothing is known."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        if not self.count:
            return "unknown (no observation)"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] of {self.count}"

    def as_json(self) -> dict[str, float | int]:
        """Rounded, for files."""
        low, high = round(self.low, 4), round(self.high, 4)
        return {"value": round(self.value, 4), "low": low, "high": high, "count": self.count}


def share(hits: float, count: int) -> Interval:
    """A share of independent trials, with Wilson's interval (1927); a tie may count as half a hit."""
    if not count:
        return Interval(0.0, 0.0, 1.0, 0)
    p, z = hits / count, _Z * _Z / count
    middle, half = (p + z / 2) / (1 + z), _Z / (1 + z) * math.sqrt(p * (1 - p) / count + z / count / 4)
    return Interval(p, max(0.0, middle - half), min(1.0, middle + half), count)


def mean(values: Sequence[float]) -> Interval:
    """A mean of independent values, by the normal approximation."""
    if len(values) < 2:
        return Interval(values[0], values[0], values[0], 1) if values else Interval(0.0, 0.0, 0.0, 0)
    middle, half = statistics.fmean(values), _Z * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(middle, middle - half, middle + half, len(values))


def ratio(tops: Sequence[float], bottoms: Sequence[float]) -> Interval:
    """The sum of `tops` over the sum of `bottoms`, pairs of independent draws, by linearisation."""
    if not bottoms or not sum(bottoms):
        return Interval(0.0, 0.0, 0.0, 0)
    value = sum(tops) / sum(bottoms)
    scale = statistics.fmean(bottoms)
    rest = [(top - value * bottom) / scale for top, bottom in zip(tops, bottoms, strict=True)]
    half = _Z * statistics.stdev(rest) / math.sqrt(len(rest)) if len(rest) > 1 else 0.0
    return Interval(value, value - half, value + half, len(rest))

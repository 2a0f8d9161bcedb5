"""How well a reward model ranks pairs, and how well its margins say how sure it may be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.intervals import Interval, share
from pipeline.train.curves import panels, write

_LENGTHS = (-100, -30, 0, 30, 100)  # tokens; the bounds of the buckets of length differences


@dataclass(frozen=True)
class Bin:
    """Pairs with a confidence in [low, high): how sure the model was on average, how often it was right."""

    low: float
    high: float
    confidence: float
    accuracy: Interval


@dataclass(frozen=True)
class Bucket:
    """Pairs in which the chosen answer has from `low` (exclusive) to `high` tokens more than the rejected."""

    low: float
    high: float
    accuracy: Interval

    @property
    def name(self) -> str:
        """For people."""
        if math.isinf(self.low):
            return f"{-self.high:g} shorter or more" if self.high < 0 else f"up to {self.high:g} more"
        if math.isinf(self.high):
            return f"over {self.low:g} longer"
        return f"over {self.low:g} to {self.high:g}"


def wins(margins: Sequence[float]) -> float:
    """In how many pairs the chosen answer is ahead; a tie counts as half."""
    return sum(1.0 if margin > 0 else 0.5 * (margin == 0) for margin in margins)


def accuracy(margins: Sequence[float]) -> Interval:
    """The share of these pairs."""
    return share(wins(margins), len(margins))


def said(name: str, before: Interval, after: Interval) -> str:
    """Both for people, and whether the second is better than tossing a coin."""
    how = "above" if after.low > 0.5 else "below" if after.high < 0.5 else "not to be told from"
    return f"held-out {name}: {before} before, {after} after: {how} chance"


def reliability(margins: Sequence[float], count: int) -> list[Bin]:
    """The pairs by confidence, in `count` bins of equal width over [0.5, 1]; empty ones are left out.

    The model prefers the answer with the higher score and is sure of it with probability sigmoid(|margin|),
    which is what the Bradley-Terry loss fits.
    """
    bins: list[list[float]] = [[] for _ in range(count)]
    for margin in margins:
        place = int((_sure(margin) - 0.5) * 2 * count)
        bins[min(place, count - 1)].append(margin)
    width = 0.5 / count
    return [
        Bin(
            round(0.5 + place * width, 6),
            round(0.5 + (place + 1) * width, 6),
            sum(map(_sure, inside)) / len(inside),
            accuracy(inside),
        )
        for place, inside in enumerate(bins)
        if inside
    ]


def expected_error(bins: Sequence[Bin]) -> float:
    """The expected calibration error: |confidence - accuracy|, weighted by the pairs in each bin."""
    total = sum(one.accuracy.count for one in bins)
    return sum(one.accuracy.count * abs(one.confidence - one.accuracy.value) for one in bins) / max(total, 1)


def by_length(margins: Sequence[float], differences: Sequence[int]) -> list[Bucket]:
    """Accuracy by how many tokens the chosen answer is longer; empty buckets are left out."""
    bounds = (-math.inf, *_LENGTHS, math.inf)
    found = []
    for low, high in zip(bounds, bounds[1:], strict=False):
        inside = [m for m, d in zip(margins, differences, strict=True) if low < d <= high]
        if inside:
            found.append(Bucket(low, high, accuracy(inside)))
    return found


def draw(bins: Sequence[Bin], buckets: Sequence[Bucket], folder: Path, title: str) -> None:
    """Write calibration.svg and calibration.png: the reliability diagram, and accuracy by length."""
    figure, (left, right) = panels(2)
    left.plot([0.5, 1], [0.5, 1], "--", color="grey", label="perfectly calibrated")
    _points(left, [one.confidence for one in bins], [one.accuracy for one in bins])
    left.set(xlabel="confidence: sigmoid(|margin|)", ylabel="right in", title=title)
    places = list(range(len(buckets)))
    _points(right, places, [one.accuracy for one in buckets])
    right.set_xticks(places, [one.name for one in buckets], rotation=30, ha="right")
    right.axhline(0.5, linestyle="--", color="grey")
    right.set(xlabel="tokens by which the chosen answer is longer", ylim=(0, 1))
    write(figure, folder, "calibration")


def _points(axes: Any, places: Sequence[float], found: Sequence[Interval]) -> None:
    """Shares with their 95% intervals."""
    values = [one.value for one in found]
    below = [max(0.0, one.value - one.low) for one in found]  # rounding may exceed a share of 0 or 1
    above = [max(0.0, one.high - one.value) for one in found]
    axes.errorbar(places, values, yerr=(below, above), fmt="o-", capsize=3, label="held-out pairs")


def _sure(margin: float) -> float:
    return 1 / (1 + math.exp(-min(abs(margin), 700)))

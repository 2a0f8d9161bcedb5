"""Greedy dedup of unit vectors, exactly: a text is admitted iff its cosine to every admitted one is small.

Blocks of texts are multiplied with blocks of admitted ones, so memory is that of one block product and no
N x N matrix ever exists. A product only proposes pairs. It may be wrong by rounding, by at most `slack`;
every pair above `threshold - slack` is computed again in float64 and decided there, so decisions depend
neither on the block size nor on the precision of the products:

    cosine = the float64 sum of the float32 vectors' products (each is exact in float64), rounded to float32

It is compared with the threshold rounded to float32, the precision that vectors are given in: a tie is a tie.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from pipeline.engines.device import native_bf16

BLOCK = 2048  # texts decided at a time, and admitted ones that they are multiplied with at a time
_PAIRS = 8192  # pairs computed in float64 at a time
_LARGE = 8192  # texts from which on it pays to import torch for bf16
_UNIT32, _UNIT16 = 2.0**-24, 2.0**-9  # largest relative error of rounding to float32 and to bf16

Pairs = tuple[np.ndarray, np.ndarray]


class Rows:
    """The vectors `against` (M, D), numbered from 0, and after them `vectors` (N, D), numbered from M."""

    def __init__(self, vectors: np.ndarray, against: np.ndarray | None = None) -> None:
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        empty = np.zeros((0, self.vectors.shape[1]), dtype=np.float32)
        self.against = empty if against is None else np.ascontiguousarray(against, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.against) + len(self.vectors)

    def __getitem__(self, numbers: np.ndarray) -> np.ndarray:
        """The rows of numbers (K,), as (K, D)."""
        first = len(self.against)
        if not first:
            return self.vectors[numbers]
        late, found = numbers >= first, np.empty((len(numbers), self.vectors.shape[1]), dtype=np.float32)
        found[late], found[~late] = self.vectors[numbers[late] - first], self.against[numbers[~late]]
        return found

    def cosines(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The cosines of pairs (K,) in float32; `left` and `right` (K,) are row numbers."""
        found = np.empty(len(left), dtype=np.float32)
        for begin in range(0, len(left), _PAIRS):
            part = slice(begin, begin + _PAIRS)
            products = self[left[part]].astype(np.float64) * self[right[part]]
            found[part] = np.clip(products.sum(axis=1), -1, 1)
        return found


class Products:
    """Proposes pairs by matrix products, in bf16 where the processor multiplies that in hardware."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._bf16 = len(rows) >= _LARGE and native_bf16()
        # For unit vectors a and b, |fl(a.b) - a.b| <= D u |a||b|, with u of float32; twice that leaves room
        # for vectors that are of unit length to within rounding, and for rounding cosine and threshold.
        self.slack = 2 * (rows.vectors.shape[1] + 4) * _UNIT32
        if self._bf16:  # rounding a, b, the sum and the bound to bf16: (1 + u)^4 - 1, with u of bf16
            self.slack += 4.1 * _UNIT16

    def take(self, numbers: np.ndarray) -> Any:
        """The rows of numbers (K,) in the precision of the products, as (K, D)."""
        if not self._bf16:
            return self._rows[numbers]
        import torch

        return torch.from_numpy(self._rows[numbers]).bfloat16()

    def pairs(self, left: Any, right: Any, threshold: float) -> Pairs:
        """Places (i, j), ascending, with all pairs of rows (I, D), (J, D) whose cosine is above `threshold`.

        A few more are among them, with cosines just below it.
        """
        above = left @ right.T > threshold - self.slack
        i, j = np.divmod(np.flatnonzero(above), max(1, len(right)))
        return i, j


class Search(Protocol):
    """Looks among the admitted texts for those that are too like new ones."""

    def admit(self, numbers: np.ndarray) -> None:
        """Take in rows (K,), which come after all that were admitted before."""

    def matches(self, numbers: np.ndarray, threshold: float) -> Pairs:
        """The first admitted text that each row (K,) is too like, or -1, and its cosine, or 0."""


class Exact:
    """Compares with every admitted text."""

    def __init__(self, rows: Rows, products: Products, block: int) -> None:
        self._rows, self._products, self._block = rows, products, block
        self._admitted = np.empty(len(rows), dtype=np.int64)
        self._count = 0

    def admit(self, numbers: np.ndarray) -> None:
        """Take in rows (K,), which come after all that were admitted before."""
        self._admitted[self._count : self._count + len(numbers)] = numbers
        self._count += len(numbers)

    def matches(self, numbers: np.ndarray, threshold: float) -> Pairs:
        """The first admitted text that each row (K,) is too like, or -1, and its cosine, or 0."""
        found, scores = np.full(len(numbers), -1), np.zeros(len(numbers))
        open_, mine = np.arange(len(numbers)), self._products.take(numbers)
        for begin in range(0, self._count, self._block):
            others = self._admitted[begin : min(begin + self._block, self._count)]
            pairs = self._products.pairs(mine, self._products.take(others), threshold)
            places, firsts, cosines = first_above(self._rows, numbers[open_], others, pairs, threshold)
            if len(places):
                found[open_[places]], scores[open_[places]] = firsts, cosines
                left = found[open_] < 0
                open_, mine = open_[left], mine[left]
        return found, scores


def greedy(
    vectors: np.ndarray,
    threshold: float,
    against: np.ndarray | None = None,
    *,
    search: Callable[[Rows], Search] | None = None,
    block: int = BLOCK,
) -> Pairs:
    """Decide `vectors` (N, D) in order; `against` (M, D) are admitted before them without being asked.

    Returns for each text the number (see `Rows`) of the first admitted one that it is too like, or -1, and
    its cosine, or 0, both (N,). A text that is not admitted is compared with nothing.
    """
    rows = Rows(vectors, against)
    neighbours, scores = np.full(len(vectors), -1), np.zeros(len(vectors))
    if threshold >= 1:  # no cosine is above it
        return neighbours, scores
    products, first = Products(rows), len(rows.against)
    admitted = search(rows) if search else Exact(rows, products, block)
    admitted.admit(np.arange(first))
    for begin in range(0, len(vectors), block):
        part = slice(begin, begin + block)
        numbers = first + np.arange(len(vectors))[part]
        found, cosines = admitted.matches(numbers, threshold)
        free = np.flatnonzero(found < 0)
        found[free], cosines[free] = _among(rows, products, numbers[free], threshold)
        neighbours[part], scores[part] = found, cosines
        admitted.admit(numbers[found < 0])
    return neighbours, scores


def first_above(
    rows: Rows, left: np.ndarray, right: np.ndarray, pairs: Pairs, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each row of `left`, its first pair that really is above the threshold.

    `pairs` are places (i, j) in `left` and `right`, ascending. Returns places in `left` (K,), the numbers of
    their neighbours (K,) and the cosines (K,). A row's first pair mostly decides it, so these are looked at
    first and the others only where they must be.
    """
    i, j = pairs
    is_first = np.diff(i, prepend=-1) > 0
    hits: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    decided = np.zeros(len(left), dtype=bool)
    for chosen in (is_first, ~is_first):
        at = np.flatnonzero(chosen & ~decided[i])
        cosines = rows.cosines(left[i[at]], right[j[at]])
        above = cosines > np.float32(threshold)
        places, firsts = np.unique(i[at][above], return_index=True)
        hits.append((places, right[j[at][above][firsts]], cosines[above][firsts]))
        decided[places] = True
    places, numbers, found = (np.concatenate(parts) for parts in zip(*hits, strict=True))
    return places, numbers, found


def _among(rows: Rows, products: Products, numbers: np.ndarray, threshold: float) -> Pairs:
    """Decide the rows of one block (K,) among themselves, in order; as `Search.matches`."""
    found, scores = np.full(len(numbers), -1), np.zeros(len(numbers))
    mine = products.take(numbers)
    i, j = products.pairs(mine, mine, threshold)
    i, j = i[j < i], j[j < i]
    edges = np.append(np.flatnonzero(np.diff(i, prepend=-1)), len(i))
    for start, end in pairwise(edges.tolist()):
        earlier = j[start:end][found[j[start:end]] < 0]  # those that were admitted
        cosines = rows.cosines(np.full(len(earlier), numbers[i[start]]), numbers[earlier])
        above = np.flatnonzero(cosines > np.float32(threshold))
        if len(above):
            found[i[start]], scores[i[start]] = numbers[earlier[above[0]]], cosines[above[0]]
    return found, scores

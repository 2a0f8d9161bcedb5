"""Search for near vectors through FAISS's HNSW graph, for pools beyond exact search (a million and more).

A graph finds most neighbours, not all: what it proposes is decided exactly, so nothing is dropped wrongly,
but some near duplicates stay. `recall` says how many, on a sample. FAISS is an extra: pip install .[faiss]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.dedup.cosine import BLOCK, Pairs, Products, Rows, first_above
from pipeline.errors import PipelineError

_LINKS, _BUILD, _LOOK = 32, 80, 64  # links of a node; candidates held while adding, and while searching
_NEAREST = 8  # neighbours asked for


class Graph:
    """The admitted texts in an HNSW graph; a `cosine.Search`."""

    def __init__(self, rows: Rows) -> None:
        try:
            import faiss
        except ModuleNotFoundError as error:
            fix = "Run: pip install faiss-cpu (or pip install .[faiss]), or search exactly."
            raise PipelineError("search by faiss", f"package {error.name} is not installed", fix) from None
        self._rows = rows
        self._index: Any = faiss.IndexHNSWFlat(rows.vectors.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction, self._index.hnsw.efSearch = _BUILD, _LOOK
        self._admitted = np.empty(len(rows), dtype=np.int64)

    def admit(self, numbers: np.ndarray) -> None:
        """Take in rows (K,), which come after all that were admitted before."""
        count = self._index.ntotal
        self._admitted[count : count + len(numbers)] = numbers
        if len(numbers):
            self._index.add(self._rows[numbers])

    def matches(self, numbers: np.ndarray, threshold: float) -> Pairs:
        """As `Exact.matches`, among the eight nearest that the graph finds."""
        found, scores = np.full(len(numbers), -1), np.zeros(len(numbers))
        if not self._index.ntotal:
            return found, scores
        near, places = self._index.search(self._rows[numbers], _NEAREST)
        ordered = np.argsort(places, axis=1)  # first admitted, first asked
        near, places = (np.take_along_axis(part, ordered, axis=1) for part in (near, places))
        i, k = np.nonzero((places >= 0) & (near > threshold - 1e-3))
        others = self._admitted[: self._index.ntotal]
        at, firsts, cosines = first_above(self._rows, numbers, others, (i, places[i, k]), threshold)
        found[at], scores[at] = firsts, cosines
        return found, scores


@dataclass(frozen=True)
class Recall:
    """Of `num_sampled` texts, how many are too like one kept before: those dropped, and those missed."""

    num_sampled: int
    num_found: int
    num_missed: int

    @property
    def share(self) -> float:
        """Found among all that exact search finds beside the same kept texts; 1 where there are none."""
        total = self.num_found + self.num_missed
        return self.num_found / total if total else 1.0


def recall(
    vectors: np.ndarray,
    neighbours: np.ndarray,
    threshold: float,
    against: np.ndarray | None = None,
    *,
    sample: int = 1000,
    seed: int = 0,
) -> Recall:
    """Compare `sample` texts, drawn by `seed`, exactly with everything that was kept before them.

    `vectors` (N, D) and `against` (M, D) are what was filtered, `neighbours` (N,) are the verdicts'.
    """
    rows = Rows(vectors, against)
    first, count = len(rows.against), len(vectors)
    kept = neighbours < 0
    drawn = np.random.default_rng(seed).choice(count, min(sample, count), replace=False)
    asked = first + np.sort(drawn[kept[drawn]])
    admitted = np.concatenate([np.arange(first), first + np.flatnonzero(kept)])
    products, missed = Products(rows), np.zeros(len(asked), dtype=bool)
    mine = products.take(asked)
    for begin in range(0, len(admitted), BLOCK):
        others = admitted[begin : begin + BLOCK]
        i, j = products.pairs(mine, products.take(others), threshold)
        before = others[j] < asked[i]
        places, _, _ = first_above(rows, asked, others, (i[before], j[before]), threshold)
        missed[places] = True
    return Recall(len(drawn), len(drawn) - len(asked), int(missed.sum()))

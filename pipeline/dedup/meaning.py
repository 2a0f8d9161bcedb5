"""The embedding index as the rows of a data set use it: blocks of rows against all that was admitted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.dedup.embedding import EmbeddingIndex
from pipeline.dedup.encoder import Encoder
from pipeline.dedup.verdicts import Neighbour
from pipeline.stages.text import cjk_share

_CHUNK = 2048  # admitted texts compared at a time
_MARGIN = 1e-4  # a block's products and a single one differ by less
_CHINESE = 0.3  # share of Chinese from which a text counts as Chinese


class Meaning:
    """Texts compared by the cosine of their embeddings; only scores above `threshold` are neighbours."""

    def __init__(self, threshold: float, encoder: Encoder | None = None) -> None:
        self.threshold = threshold
        self._index = EmbeddingIndex(threshold, encoder)
        self._index.encoder.check()  # a model that is not there is refused before anything is read

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D); zeros, which are like nothing, for texts that the model cannot read."""
        vectors = np.array(self._index.encode(list(texts)))
        for i, text in enumerate(texts):
            if not self._index.covers("zh" if cjk_share(text) >= _CHINESE else "en"):
                vectors[i] = 0
        return vectors

    def insert(self, keys: Sequence[str], texts: Sequence[str], vectors: np.ndarray) -> None:
        """Admit texts with their vectors (N, D)."""
        for key, text, vector in zip(keys, texts, vectors, strict=True):
            self._index.insert(key, text, vector)

    def near(self, vectors: np.ndarray) -> np.ndarray:
        """Which vectors (N, D) may have an admitted neighbour (N,); the others have none."""
        pool, near = self._index.vectors, np.zeros(len(vectors), bool)
        for begin in range(0, len(pool), _CHUNK):
            near |= alike(vectors, pool[begin : begin + _CHUNK], self.threshold).any(axis=1)
        return near

    def nearest(self, vector: np.ndarray) -> Neighbour | None:
        """The admitted text with the highest cosine to `vector` (D,) if that is above the threshold."""
        found = self._index.nearest(vector)
        return found if found and found.score > self.threshold else None

    def find(self, vectors: np.ndarray) -> dict[int, Neighbour]:
        """The nearest admitted text of each vector (N, D), by its number, if it is above the threshold."""
        near = ((i, self.nearest(vectors[i])) for i in np.flatnonzero(self.near(vectors)).tolist())
        return {i: neighbour for i, neighbour in near if neighbour}


def alike(vectors: np.ndarray, others: np.ndarray, threshold: float) -> np.ndarray:
    """Which of (N, D) and (M, D) may have a cosine above the threshold (N, M)."""
    return vectors @ others.T > threshold - _MARGIN

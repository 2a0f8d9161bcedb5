"""Near duplicates in meaning: cosines of sentence embeddings, compared exactly.

A text is admitted iff its cosine to every text admitted before is at most the threshold. One index compares
texts as they come (`nearest` and `insert`, or `add` for a batch); `filter_vectors` decides a whole corpus.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.dedup.cosine import greedy
from pipeline.dedup.encoder import Encoder, SentenceEncoder
from pipeline.dedup.verdicts import Neighbour, Verdicts
from pipeline.errors import PipelineError

SEARCHES = ("exact", "faiss")


class EmbeddingIndex:
    """Unit vectors of the admitted texts; `threshold` is the highest cosine that admits, 1 admits all."""

    def __init__(self, threshold: float, encoder: Encoder | None = None) -> None:
        self.threshold, self.encoder = threshold, encoder or SentenceEncoder()
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._vectors = np.zeros((0, 0), dtype=np.float32)
        self._ahead: dict[str, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def covers(self, language: str) -> bool:
        """Whether the model can be trusted with this language."""
        return self.encoder.covers(language)

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode texts together, for calls of `encode` to come; what was prepared before is forgotten.

        One by one short texts take a model several times as long.
        """
        distinct = list(dict.fromkeys(texts))
        self._ahead = dict(zip(distinct, self.encoder.encode(distinct), strict=True)) if distinct else {}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D) in float32."""
        if texts and all(text in self._ahead for text in texts):
            return np.stack([self._ahead[text] for text in texts])
        return self.encoder.encode(texts)

    def nearest(self, vector: np.ndarray, besides: str = "") -> Neighbour | None:
        """The admitted text with the highest cosine to `vector` (D,); None if there is none.

        The text of the key `besides` does not count.
        """
        scores = self.vectors @ vector if self._keys else np.zeros(0)
        if besides:
            scores[self._keys.index(besides)] = -np.inf
        if not np.isfinite(scores).any():
            return None
        best = int(np.argmax(scores))
        return self._neighbour(best, float(scores[best]))

    def add(self, keys: Sequence[str], texts: Sequence[str]) -> Verdicts:
        """Admit, in order, each text that is like none admitted before.

        The verdicts' neighbours (N,) number the admitted texts in order of admission.
        """
        vectors, before = self.encode(texts), len(self)
        neighbours, scores = greedy(vectors, self.threshold, self.vectors if before else None)
        kept = neighbours < 0
        for i in np.flatnonzero(kept).tolist():
            self.insert(keys[i], texts[i], vectors[i])
        ours = neighbours >= before  # numbered among all texts of the batch so far
        neighbours[ours] = before + (np.cumsum(kept) - 1)[neighbours[ours] - before]
        return Verdicts(neighbours, scores)

    def neighbour(self, verdicts: Verdicts, i: int) -> Neighbour | None:
        """The admitted text that the i-th was dropped for; None if it was kept."""
        number = int(verdicts.neighbours[i])
        return None if number < 0 else self._neighbour(number, float(verdicts.scores[i]))

    @property
    def keys(self) -> list[str]:
        """The keys of the admitted texts, in order."""
        return self._keys

    @property
    def texts(self) -> list[str]:
        """The admitted texts, in order."""
        return self._texts

    @property
    def vectors(self) -> np.ndarray:
        """The admitted texts' vectors (N, D)."""
        return self._vectors[: len(self._keys)]

    def restore(self, keys: list[str], texts: list[str], vectors: np.ndarray) -> None:
        """Take over admitted texts with their vectors (N, D)."""
        self._keys, self._texts, self._vectors = keys, texts, vectors

    def insert(self, key: str, text: str, vector: np.ndarray) -> None:
        """Admit a text with its vector (D,)."""
        count = len(self._keys)
        if count == len(self._vectors):
            grown = np.zeros((max(256, 2 * count), len(vector)), dtype=np.float32)
            grown[:count] = self._vectors[:count] if count else 0
            self._vectors = grown
        self._vectors[count] = vector
        self._keys.append(key)
        self._texts.append(text)

    def _neighbour(self, number: int, score: float) -> Neighbour:
        return Neighbour(self._keys[number], self._texts[number], score)


def filter_vectors(
    vectors: np.ndarray, threshold: float, against: np.ndarray | None = None, *, search: str = "exact"
) -> Verdicts:
    """Decide a corpus of unit vectors (N, D) in order.

    A text is kept iff its cosine with every kept earlier text, and with every row of `against` (M, D), is at
    most `threshold`; a dropped text is compared with nothing. Neighbours (N,) are the first text that
    decides: the rows of `against` are numbered from 0, those of `vectors` from M. `search` is "exact",
    or "faiss", which misses some neighbours (see `approximate.recall`). Raises PipelineError.
    """
    if search not in SEARCHES:
        problem = f"got '{search}', expected one of {', '.join(SEARCHES)}"
        raise PipelineError("search", problem, "Choose one of them.")
    if search == "exact":
        return Verdicts(*greedy(vectors, threshold, against))
    from pipeline.dedup.approximate import Graph

    return Verdicts(*greedy(vectors, threshold, against, search=Graph))

"""Near duplicates among the rows of a data set: a row is compared with the rows kept before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.dedup.contamination import COSINE, ROUGE, Finding, finding, neighbours
from pipeline.dedup.meaning import Meaning, alike
from pipeline.dedup.rouge import RougeIndex
from pipeline.dedup.tokens import WORDS

NEAR_DUPLICATE, SAME_MEANING = "near_duplicate", "same_meaning"
_BLOCK = 1024  # rows whose embeddings are compared with each other at a time


class Duplicates:
    """The rows kept so far, by their texts.

    `rouge` is the highest F-measure that admits (1: off); `meaning` compares embeddings too (None: off).
    """

    def __init__(self, rouge: float, meaning: Meaning | None = None, *, cjk: str = WORDS) -> None:
        self._rouge = RougeIndex(rouge, cjk=cjk) if rouge < 1 else None
        self._meaning = meaning

    def add(
        self, keys: Sequence[str], texts: Sequence[str], vectors: np.ndarray | None = None
    ) -> dict[int, tuple[str, Finding]]:
        """Admit texts in order; reason and finding of those that were not, by their number.

        `vectors` (N, D) are the texts' embeddings, wanted where meaning is compared.
        """
        if self._meaning and vectors is not None:
            return self._with_meaning(self._meaning, keys, texts, vectors)
        if self._rouge is None:
            return {}
        near = neighbours(self._rouge, self._rouge.add(keys, texts))
        return {i: (NEAR_DUPLICATE, finding(ROUGE, found)) for i, found in near.items()}

    def _with_meaning(
        self, meaning: Meaning, keys: Sequence[str], texts: Sequence[str], vectors: np.ndarray
    ) -> dict[int, tuple[str, Finding]]:
        """One by one, for a row is admitted only if both measures let it pass."""
        dropped = {}
        for begin in range(0, len(texts), _BLOCK):
            block = vectors[begin : begin + _BLOCK]
            near, pairs = meaning.near(block), alike(block, block, meaning.threshold)
            admitted = np.zeros(len(block), bool)
            for i, vector in enumerate(block):
                key, text = [keys[begin + i]], [texts[begin + i]]
                reason = self._worded_alike(text)
                if (
                    not reason
                    and (near[i] or (pairs[i] & admitted).any())
                    and (found := meaning.nearest(vector))
                ):
                    reason = SAME_MEANING, finding(COSINE, found)
                if reason:
                    dropped[begin + i] = reason
                    continue
                admitted[i] = True
                meaning.insert(key, text, vector[None])
                if self._rouge is not None:
                    self._rouge.insert(key, text)
        return dropped

    def _worded_alike(self, text: list[str]) -> tuple[str, Finding] | None:
        found = self._rouge.neighbour(self._rouge.compare(text), 0) if self._rouge is not None else None
        return (NEAR_DUPLICATE, finding(ROUGE, found)) if found else None

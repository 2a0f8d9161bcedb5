"""Near duplicates in meaning.

Cosine similarity of sentence embeddings (all-MiniLM-L6-v2 unless told otherwise).

The default model reads English only; it sees most Chinese characters as unknown and calls different
sentences equal. Chinese texts are therefore left to ROUGE-L unless a multilingual model is named.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.dedup.verdicts import Neighbour
from pipeline.engines.models import quiet, sentence_model
from pipeline.errors import PipelineError


class EmbeddingIndex:
    """Unit vectors of the admitted texts, compared exactly."""

    def __init__(self, threshold: float, model: str = "") -> None:
        self.threshold, self.multilingual = threshold, bool(model)
        self._model_name = model
        self._encoder: Any = None
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._vectors = np.zeros((0, 0), dtype=np.float32)

    def covers(self, language: str) -> bool:
        """Whether the model can be trusted with this language."""
        return self.multilingual or language == "en"

    def encode(self, texts: list[str]) -> np.ndarray:
        """Unit vectors (N, D) in float32."""
        if self._encoder is None:
            from sentence_transformers import SentenceTransformer

            quiet()
            folder = sentence_model(self._model_name)
            try:
                self._encoder = SentenceTransformer(folder, device="cpu")
            except Exception as error:  # of many unrelated types; all mean that the files do not do
                said = (str(error).strip() or "no reason given").splitlines()[0][:200].rstrip(".")
                raise PipelineError(
                    f"model {folder}",
                    f"cannot be loaded ({type(error).__name__}: {said})",
                    "Give a sentence-transformers model.",
                ) from error
        return self._encoder.encode(texts, normalize_embeddings=True, show_progress_bar=False, batch_size=16)

    def nearest(self, vector: np.ndarray) -> Neighbour | None:
        """The admitted text with the highest cosine to `vector` (D,); None for an empty pool."""
        if not self._keys:
            return None
        scores = self._vectors[: len(self._keys)] @ vector
        best = int(np.argmax(scores))
        return Neighbour(self._keys[best], self._texts[best], float(scores[best]))

    @property
    def keys(self) -> list[str]:
        """The keys of the admitted texts, in order."""
        return self._keys

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

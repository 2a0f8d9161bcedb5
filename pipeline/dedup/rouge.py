"""Self-Instruct's rule: admit a text iff its ROUGE-L F against every admitted one is at most the threshold.

Exact: the same float comparison as rouge_score, ties included, with rapidfuzz's bit-parallel LCS over the
whole pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.dedup.tokens import tokenize


@dataclass(frozen=True)
class Neighbour:
    """The admitted text most like a candidate; `score` is ROUGE-L F or cosine, in [0, 1]."""

    key: str
    text: str
    score: float


class RougeIndex:
    """The admitted texts, as strings with one code point per token."""

    def __init__(self, threshold: float = 0.7) -> None:
        self.threshold = threshold
        self._ids: dict[str, int] = {}
        self._keys: list[str] = []
        self._texts: list[str] = []
        self._codes: list[str] = []
        self._lengths: list[int] = []

    def __len__(self) -> int:
        return len(self._keys)

    def nearest(self, text: str) -> Neighbour | None:
        """The admitted text with the highest F-measure (the earliest of equals); None for an empty pool."""
        from rapidfuzz import process
        from rapidfuzz.distance import LCSseq

        if not self._keys:
            return None
        code = self._encode(text)
        common = process.cdist([code], self._codes, scorer=LCSseq.similarity, dtype=np.int32)[0]
        best = int(np.argmax(scores := f_measure(common, len(code), np.asarray(self._lengths))))
        return Neighbour(self._keys[best], self._texts[best], float(scores[best]))

    def insert(self, key: str, text: str) -> None:
        """Admit a text without asking."""
        code = self._encode(text)
        self._keys.append(key)
        self._texts.append(text)
        self._codes.append(code)
        self._lengths.append(len(code))

    def add(self, key: str, text: str) -> Neighbour | None:
        """Admit a text unless it is too like an admitted one, which is then returned."""
        nearest = self.nearest(text)
        if nearest and nearest.score > self.threshold:
            return nearest
        self.insert(key, text)
        return None

    def state(self) -> dict[str, list[str]]:
        """All of it, as JSON can hold it."""
        return {"keys": self._keys, "texts": self._texts, "codes": self._codes, "tokens": list(self._ids)}

    def restore(self, state: dict[str, list[str]]) -> None:
        """Take over what `state` gave."""
        self._keys, self._texts, self._codes = state["keys"], state["texts"], state["codes"]
        self._ids = {token: number for number, token in enumerate(state["tokens"])}
        self._lengths = list(map(len, self._codes))

    def _encode(self, text: str) -> str:
        points = (0x100 + self._ids.setdefault(token, len(self._ids)) for token in tokenize(text))
        return "".join(chr(p if p < 0xD800 else p + 0x800) for p in points)  # jump over the surrogates


def f_measure(common: np.ndarray, candidate: int, admitted: np.ndarray) -> np.ndarray:
    """ROUGE-L F of LCS lengths `common` (N,), by rouge_score's own operations so that ties fall alike."""
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = common / candidate if candidate else common * 0.0, common / admitted
        scores = 2 * precision * recall / (precision + recall)
    return np.nan_to_num(scores)

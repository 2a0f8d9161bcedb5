"""What a deduplication says of each text: kept, or dropped by which admitted one and with which score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NO_MATCH = -1


@dataclass(frozen=True)
class Neighbour:
    """The admitted text most like a candidate; `score` is ROUGE-L F or cosine, in [0, 1]."""

    key: str
    text: str
    score: float


@dataclass(frozen=True)
class Verdicts:
    """What became of N texts: `neighbours` (N,) numbers the first admitted text that is too like each, or -1.

    `scores` (N,) is the ROUGE-L F against it; `kept` (N,) is true where there is none.
    """

    neighbours: np.ndarray
    scores: np.ndarray

    @property
    def kept(self) -> np.ndarray:
        """Which texts were admitted."""
        return self.neighbours == NO_MATCH

"""Held-out texts and the rows that give them away: by word n-grams, by ROUGE-L, by meaning.

A row is contaminated if any of the measures that are switched on says so; every finding names the held-out
text, the score and, for n-grams, the shared passages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.dedup.meaning import Meaning
from pipeline.dedup.ngrams import NgramIndex
from pipeline.dedup.rouge import RougeIndex
from pipeline.dedup.tokens import WORDS
from pipeline.dedup.verdicts import Neighbour, Verdicts

ROUGE, COSINE = "ROUGE-L", "cosine"
_QUOTED = 160  # characters of a text that a finding quotes


@dataclass(frozen=True)
class Finding:
    """A text that a row is too like: `where` it stands, its beginning, and by which measure it was found.

    `score` is ROUGE-L F, cosine, or the share of the held-out text that shared n-grams cover; all in [0, 1].
    `spans` holds the shared passages as the row has them, for n-grams only.
    """

    measure: str
    score: float
    where: str
    text: str
    spans: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The fields that say something, the score rounded to four digits."""
        spans = {"spans": list(self.spans)} if self.spans else {}
        score = round(self.score, 4)
        return {"measure": self.measure, "score": score, "where": self.where, "text": self.text, **spans}

    def sentence(self) -> str:
        """The finding on one line, for people."""
        what = " ... ".join(self.spans) or self.text
        said = f"{self.measure} {self.score:.3f} with {self.where}: {what}"
        return " ".join(said.split())[:_QUOTED]


def finding(measure: str, near: Neighbour) -> Finding:
    """What an index says of a neighbour, as a finding."""
    return Finding(measure, near.score, near.key, near.text[:_QUOTED])


def neighbours(index: RougeIndex, verdicts: Verdicts) -> dict[int, Neighbour]:
    """The admitted text that decided each text that was not kept, by its number."""
    found = ((i, index.neighbour(verdicts, i)) for i in np.flatnonzero(~verdicts.kept).tolist())
    return {i: near for i, near in found if near}


@dataclass(frozen=True)
class HeldOut:
    """Held-out texts by number: where each stands and what it says."""

    where: Sequence[str]
    texts: Sequence[str]


class Contamination:
    """Finds what rows share with held-out texts.

    `ngram` is a size in tokens (0: off), `rouge` the highest F-measure that is no finding (1: off), `meaning`
    holds the held-out texts' vectors (None: off).
    """

    def __init__(
        self, held: HeldOut, *, ngram: int, rouge: float, meaning: Meaning | None = None, cjk: str = WORDS
    ) -> None:
        self.held, self._meaning = held, meaning
        self._ngrams = NgramIndex(held.texts, ngram, cjk=cjk) if ngram else None
        self._rouge = RougeIndex(rouge, cjk=cjk) if rouge < 1 else None
        if self._rouge is not None:
            self._rouge.insert(held.where, held.texts)

    def find(self, texts: Sequence[str], vectors: np.ndarray | None = None) -> dict[int, list[Finding]]:
        """What gives held-out texts away in each text, by its number; clean texts are left out.

        `vectors` (N, D) are the texts' embeddings; without them meaning is not looked at.
        """
        found: dict[int, list[Finding]] = {}
        if self._ngrams is not None:
            for row, overlap in self._ngrams.find(texts).items():
                where, text = self.held.where[overlap.held], self.held.texts[overlap.held]
                measure = f"{self._ngrams.size}-gram"
                found.setdefault(row, []).append(
                    Finding(measure, overlap.share, where, text[:_QUOTED], overlap.spans)
                )
        if self._rouge is not None:
            for row, near in neighbours(self._rouge, self._rouge.compare(texts)).items():
                found.setdefault(row, []).append(finding(ROUGE, near))
        if self._meaning and vectors is not None:
            for row, near in self._meaning.find(vectors).items():
                found.setdefault(row, []).append(finding(COSINE, near))
        return found

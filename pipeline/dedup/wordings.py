"""The exact ROUGE-L index, asked without admitting: held-out texts, and rows that other measures decide too."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.dedup import search
from pipeline.dedup.lcs import Texts
from pipeline.dedup.rouge import NO_MATCH, Neighbour, RougeIndex

_PARALLEL = 1024  # texts from which on a search is worth several threads


class Wordings(RougeIndex):
    """A `RougeIndex` that can also be searched only."""

    def find(self, texts: Sequence[str]) -> dict[int, Neighbour]:
        """The first admitted text above the threshold of each text, by its number, if there is one."""
        tokens, starts = self._vocabulary.encode(texts)
        self._make_room(0, 0)
        new = Texts(tokens, starts, self._pool.bits, self._pool.hidden)  # signed when searched for
        matches, commons = np.full(len(texts), NO_MATCH, np.int64), np.zeros(len(texts), np.int64)
        if len(texts) < _PARALLEL:
            index = (self._rank, self._pool, self._lists, self._scratch[0], self._longest, self.threshold)
            search.match(new, 0, len(texts), *index, matches, commons)
        else:
            with ThreadPoolExecutor(self._threads) as workers:
                self._match(workers, new, matches, commons)
        verdicts = self._verdicts(matches, commons, np.diff(starts))
        near = ((i, self.neighbour(verdicts, i)) for i in np.flatnonzero(~verdicts.kept).tolist())
        return {i: neighbour for i, neighbour in near if neighbour}

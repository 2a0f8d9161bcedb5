"""Self-Instruct's rule: admit a text iff its ROUGE-L F against every admitted one is at most the threshold.

Exact at any size: the decisions are those of rouge_score's floats, ties included, found through an inverted
index (`lcs.py` gives the bounds). One index has two faces: a corpus at once, `filter(texts)`, and batch after
batch, `index.add(keys, texts)`. Texts are taken in order of arrival; a dropped one counts for nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pipeline.dedup import batches
from pipeline.dedup.lcs import CLASSES, Postings, Ranked, Texts
from pipeline.dedup.search import Scratch
from pipeline.dedup.tokens import WORDS
from pipeline.dedup.verdicts import NO_MATCH as NO_MATCH
from pipeline.dedup.verdicts import Neighbour as Neighbour
from pipeline.dedup.verdicts import Verdicts as Verdicts
from pipeline.dedup.vocabulary import Vocabulary

_BLOCK, _SHARE = 4096, 64  # texts of a block: at least so many, or the pool's size over that
_PARALLEL = 1024  # texts from which on a search is worth several threads
_FREQUENT = 1024  # occurrences from which on a token's texts are listed by class of lengths


class RougeIndex:
    """The admitted texts with their keys; `threshold` in [0, 1] is the highest F-measure that admits."""

    def __init__(self, threshold: float = 0.7, *, cjk: str = WORDS, threads: int = 0) -> None:
        self.threshold = threshold
        self.keys: list[str] = []
        self.texts: list[str] = []
        self._threads = threads or min(8, os.cpu_count() or 1)
        self._vocabulary = Vocabulary(cjk)
        self._pool = Texts(_zeros(0, np.int32), _zeros(1), _zeros((0, 2), np.uint64), _zeros(0, np.int32))
        self._ranks = _zeros(0, np.int32)  # (V,), the smaller the rarer a token
        self._num_ranked = 0  # tokens counted for the ranks
        self._lists = Postings(_zeros(1), _zeros((0, 3)), _zeros(1), _zeros((3, 0), np.uint64))
        self._scratch = [Scratch(_zeros(0, np.uint64), _zeros(0, np.int32)) for _ in range(self._threads)]
        self._longest = 0

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, keys: Sequence[str], texts: Sequence[str]) -> Verdicts:
        """Admit, in order, each text that is like none admitted before."""
        return self._take(keys, texts, always=False)

    def insert(self, keys: Sequence[str], texts: Sequence[str]) -> None:
        """Admit all texts without asking."""
        self._take(keys, texts, always=True)

    def compare(self, texts: Sequence[str]) -> Verdicts:
        """What `add` would say of each text alone, admitting none."""
        tokens, starts = self._vocabulary.encode(texts)
        self._make_room(0, 0)
        matches, scores = np.full(len(texts), NO_MATCH, np.int64), np.zeros(len(texts))
        self._search(Texts(tokens, starts, self._pool.bits, self._pool.hidden), matches, scores)
        return Verdicts(matches, scores)

    def neighbour(self, verdicts: Verdicts, i: int) -> Neighbour | None:
        """The admitted text that dropped the i-th; None if it was kept."""
        number = int(verdicts.neighbours[i])
        if number == NO_MATCH:
            return None
        return Neighbour(self.keys[number], self.texts[number], float(verdicts.scores[i]))

    def most_similar(self, text: str, k: int = 1) -> list[Neighbour]:
        """The k admitted texts with the highest F-measure, the earliest of equals first."""
        tokens, _ = self._vocabulary.encode([text])
        self._make_room(0, 0)
        found = batches.most_similar(tokens, self._pool, len(self), self._scratch[0].slots, k)
        return [
            Neighbour(self.keys[i], self.texts[i], score)
            for i, score in zip(found[0].tolist(), found[1].tolist(), strict=True)
        ]

    def _take(self, keys: Sequence[str], texts: Sequence[str], always: bool) -> Verdicts:
        tokens, starts = self._vocabulary.encode(texts)
        new = Texts(tokens, starts, self._pool.bits, self._pool.hidden)  # signed when searched for
        self._longest = max(self._longest, int(np.diff(starts).max(initial=0)))
        self._make_room(len(texts), len(tokens))
        self._rank_tokens(new, len(texts))
        matches, scores = np.full(len(texts), NO_MATCH, np.int64), np.zeros(len(texts))
        begin = 0
        while begin < len(texts):
            end = min(len(texts), begin + max(_BLOCK, len(self) // _SHARE))
            block = new._replace(starts=starts[begin : end + 1])
            found, score = matches[begin:end], scores[begin:end]
            ranked = self._search(block, found, score, always)
            self._admit(block, ranked, always, found, score)
            kept = (np.flatnonzero(found == NO_MATCH) + begin).tolist()
            self.keys += [keys[i] for i in kept]
            self.texts += [texts[i] for i in kept]
            begin = end
        return Verdicts(matches, scores)

    def _search(self, block: Texts, matches: np.ndarray, scores: np.ndarray, always: bool = False) -> Ranked:
        """Rank the tokens of a block's texts and search for them, unless they are admitted always."""
        size, count = int(block.starts[len(matches)] - block.starts[0]), len(matches)
        tokens, before = np.empty(size, np.int32), np.empty(size, np.int32)
        bits = np.empty((count, 2), np.uint64)
        ranked = Ranked(tokens, before, np.empty(count, np.int32), bits, np.empty(count, np.int32))

        def part(begin: int, end: int, own: Scratch) -> None:
            """One thread's texts."""
            batches.rank(block, begin, end, self._ranks, ranked)
            if not always:
                index = (self._pool, self._lists, own, self._longest, self.threshold)
                batches.match(block, ranked, begin, end, *index, matches, scores)

        self._in_threads(part, count)
        return ranked

    def _in_threads(self, part: Callable[[int, int, Scratch], None], count: int) -> None:
        """Do `part` of so many texts, by several threads if they are many."""
        threads = self._threads if count >= _PARALLEL else 1
        edges = np.linspace(0, count, threads + 1).astype(int).tolist()
        if threads == 1:
            return part(0, count, self._scratch[0])
        with ThreadPoolExecutor(threads) as workers:
            list(workers.map(part, edges[:-1], edges[1:], self._scratch))

    def _admit(
        self, block: Texts, ranked: Ranked, always: bool, matches: np.ndarray, scores: np.ndarray
    ) -> None:
        index = (self._pool, len(self), self._lists, self._scratch[0], self._longest, self.threshold)
        self._lists = batches.admit(block, ranked, len(matches), *index, always, matches, scores)

    def _make_room(self, texts: int, tokens: int) -> None:
        """Make room for that many more texts and tokens, and for all words of the vocabulary."""
        pool, count, words = self._pool, len(self), len(self._vocabulary)
        held = int(pool.starts[count])
        self._pool = Texts(
            _grown(pool.tokens, held + tokens),
            _grown(pool.starts, count + texts + 1),
            _grown(pool.bits, count + texts),
            _grown(pool.hidden, count + texts),
        )
        known = len(self._ranks)
        if words > known:  # a new token is rarer than all others, and has one list
            self._ranks = np.concatenate([self._ranks, -np.arange(known, words, dtype=np.int32)])
            base = self._lists.base
            base = np.concatenate([base, base[-1] + np.arange(1, words - known + 1)])
            self._lists = self._lists._replace(base=base, heads=_grown(self._lists.heads, int(base[-1])))
        self._make_scratch()

    def _make_scratch(self) -> None:
        words, lists = len(self._ranks), len(self._lists.heads)
        self._scratch = [Scratch(_grown(own.slots, words), _grown(own.first, lists)) for own in self._scratch]

    def _rank_tokens(self, new: Texts, count: int) -> None:
        """Rank the tokens by frequency whenever the texts have doubled, and list the admitted ones anew."""
        held, words = int(self._pool.starts[len(self)]), len(self._vocabulary)
        total = held + len(new.tokens)
        if total < 2 * self._num_ranked or not total:
            return
        self._num_ranked = total
        counts = np.bincount(self._pool.tokens[:held], minlength=words)
        counts += np.bincount(new.tokens, minlength=words)
        self._ranks = np.empty(words, np.int32)
        self._ranks[np.argsort(counts, kind="stable")] = np.arange(words, dtype=np.int32)
        base = np.zeros(words + 1, np.int64)
        np.cumsum(np.where(counts >= _FREQUENT, 2 * CLASSES, 1), out=base[1:])
        rooms = [_zeros(int(base[-1]))]

        def part(texts: Texts, begin: int, end: int) -> None:
            """Count the entries of one thread's texts."""
            room = _zeros(int(base[-1]))
            batches.count_entries(texts, begin, end, self._ranks, base, self._longest, self.threshold, room)
            rooms.append(room)

        self._in_threads(lambda begin, end, own: part(self._pool, begin, end), len(self))
        self._in_threads(lambda begin, end, own: part(new, begin, end), count)
        room = np.sum(rooms, axis=0)
        room += room // 8 + (room > 0)  # an entry for which there is no room moves its list
        total, none = int(room.sum()), np.zeros_like(room)
        heads = np.stack([np.cumsum(room) - room, none, room], axis=1)
        lists = Postings(base, heads, np.array([total]), np.empty((3, 2 * total), np.uint64))
        index = (self._ranks, lists, self._longest, self.threshold)
        self._lists = batches.list_all(self._pool, len(self), *index)
        self._make_scratch()


def filter(texts: Sequence[str], threshold: float = 0.7, *, cjk: str = WORDS, threads: int = 0) -> Verdicts:
    """Decide a whole corpus in order; `neighbours` number the texts of the corpus."""
    index = RougeIndex(threshold, cjk=cjk, threads=threads)
    verdicts = index.add(range(len(texts)), texts)  # type: ignore[arg-type]
    dropped = ~verdicts.kept
    verdicts.neighbours[dropped] = np.asarray(index.keys)[verdicts.neighbours[dropped]]
    return verdicts


def _zeros(shape: int | tuple[int, int], dtype: type = np.int64) -> np.ndarray:
    return np.zeros(shape, dtype)


def _grown(array: np.ndarray, length: int) -> np.ndarray:
    """The array with room for `length` rows and half as many again; what nobody writes takes no memory."""
    if length <= len(array):
        return array
    grown = np.zeros((length * 3 // 2, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown

"""Draw from a growing list so that the draw hardly depends on what else is in the list.

Every item has a hash; draw k takes the items whose hashes, mixed with k, are smallest (rendezvous hashing,
Thaler & Ravishankar 1998). Adding or removing one item changes only the draws that it wins. So a run whose
filters were changed a little shows its model nearly the same instructions, and finds its answers in the
request cache.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


class SteadySample:
    """A list of texts to draw from; 8 bytes each."""

    def __init__(self) -> None:
        self._hashes = np.empty(64, np.uint64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, text: str) -> None:
        """Take in one more item; its index is the number of items before it."""
        if self._size == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[self._size] = stable_hash(text)
        self._size += 1

    def draw(self, key: str, count: int) -> list[int]:
        """The indices of `count` items (of all, if there are fewer), in the order of the draw."""
        mixed = _mix(self._hashes[: self._size] ^ np.uint64(stable_hash(key)))
        count = min(count, self._size)
        if not count:
            return []
        best = np.argpartition(mixed, count - 1)[:count]
        return [int(i) for i in best[np.lexsort((best, mixed[best]))]]


def stable_hash(text: str) -> int:
    """64 bits of the text, the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser (Steele et al. 2014): every input bit moves every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))

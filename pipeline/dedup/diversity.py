"""How diverse texts are, from their unit vectors: coverage of the seeds, nearest neighbours, clusters.

Everything is counted exactly and comes out the same each time; k-means runs in one thread, for threads would
add up in any order.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

BINS = 20  # of the histogram, from cosine 0 to 1
_MOST = 20_000  # texts that are compared; of more, so many are drawn
_MAX_CLUSTERS = 50
_BLOCK = 512  # texts compared at a time


@dataclass(frozen=True)
class Cluster:
    """Texts that lie together: how many, and the most central one."""

    size: int
    key: str
    text: str


@dataclass(frozen=True)
class Diversity:
    """What `measure` finds.

    `seeds` holds (key, texts nearest to it) of every seed, most first. `even_seeds` is the number of seeds
    over which the texts would spread as widely if all had the same share (the exponential of the entropy).
    `histogram` counts texts by the cosine to their nearest other text, in bins of equal width from 0 to 1;
    what is below 0 counts as 0. `mean_nearest` is the mean of these cosines.
    """

    num_texts: int
    num_compared: int
    seeds: tuple[tuple[str, int], ...]
    seeds_covered: int
    even_seeds: float
    histogram: tuple[int, ...]
    mean_nearest: float
    clusters: tuple[Cluster, ...]


def measure(
    keys: Sequence[str],
    texts: Sequence[str],
    vectors: np.ndarray,
    seed_keys: Sequence[str],
    seed_vectors: np.ndarray,
    *,
    seed: int = 0,
) -> Diversity:
    """Measure texts with unit `vectors` (N, D) against seeds with `seed_vectors` (S, D); N may be 0, S not.

    `seed` is that of what is drawn: 20,000 of more texts, and the beginnings of k-means.
    """
    drawn = _drawn(len(keys), seed)
    vectors = vectors[drawn]
    counts = nearest_seeds(vectors, seed_vectors)
    nearest = nearest_cosines(vectors)
    bins = np.minimum((np.clip(nearest, 0, 1) * BINS).astype(np.int64), BINS - 1)
    clusters = [
        Cluster(size, keys[drawn[central]], texts[drawn[central]])
        for size, central in cluster(vectors, seed=seed)
    ]
    ranked = sorted(zip(seed_keys, counts.tolist(), strict=True), key=lambda pair: -pair[1])
    return Diversity(
        num_texts=len(keys),
        num_compared=len(drawn),
        seeds=tuple(ranked),
        seeds_covered=int((counts > 0).sum()),
        even_seeds=round(even(counts), 1),
        histogram=tuple(np.bincount(bins, minlength=BINS).tolist()),
        mean_nearest=round(float(nearest.mean()), 4) if len(nearest) else 0.0,
        clusters=tuple(clusters),
    )


def nearest_seeds(vectors: np.ndarray, seeds: np.ndarray) -> np.ndarray:
    """How many of `vectors` (N, D) are nearest to each of `seeds` (S, D), the first of equals: (S,)."""
    counts = np.zeros(len(seeds), dtype=np.int64)
    for _, block in _blocks(vectors):
        counts += np.bincount((block @ seeds.T).argmax(axis=1), minlength=len(seeds))
    return counts


def nearest_cosines(vectors: np.ndarray) -> np.ndarray:
    """The highest cosine of each vector (N, D) to any other: (N,), empty where there is no other."""
    found = np.empty(len(vectors), dtype=np.float32)
    if len(vectors) < 2:
        return found[:0]
    for begin, block in _blocks(vectors):
        cosines = block @ vectors.T
        here = np.arange(len(block))
        cosines[here, begin + here] = -np.inf  # not with itself
        found[begin : begin + len(block)] = cosines.max(axis=1)
    return found


def even(counts: np.ndarray) -> float:
    """How many equal shares are spread as widely as `counts` (S,): exp of the entropy; 0 of nothing."""
    shares = counts[counts > 0] / max(1, counts.sum())
    return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0


def cluster(vectors: np.ndarray, *, seed: int = 0) -> list[tuple[int, int]]:
    """(size, number of the most central vector) of each cluster of `vectors` (N, D), the largest first.

    k-means with k = sqrt(N / 2), at most 50; fewer where vectors are equal.
    """
    if not len(vectors):
        return []
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    k = min(_MAX_CLUSTERS, max(1, round((len(vectors) / 2) ** 0.5)))
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different vectors than k
        means = KMeans(k, n_init=2, random_state=seed).fit(vectors)
    found = []
    for label in range(k):
        members = np.flatnonzero(means.labels_ == label)
        if len(members):
            cosines = vectors[members] @ means.cluster_centers_[label]
            found.append((len(members), int(members[np.argmax(cosines)])))
    return sorted(found, key=lambda pair: (-pair[0], pair[1]))


def _drawn(count: int, seed: int) -> np.ndarray:
    if count <= _MOST:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, _MOST, replace=False))


def _blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for begin in range(0, len(vectors), _BLOCK):
        yield begin, vectors[begin : begin + _BLOCK]

"""Exact greedy decisions on unit vectors, whatever the block size and the precision of the products."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup import cosine
from pipeline.dedup.cosine import Rows, greedy


def naive(vectors: np.ndarray, threshold: float, against: np.ndarray) -> tuple[list[int], list[float]]:
    """The definition, one pair after another."""
    every, first = [*against, *vectors], len(against)
    admitted, neighbours, scores = list(range(first)), [], []
    for number in range(first, len(every)):
        neighbour, score = -1, 0.0
        for other in admitted:
            product = (every[number].astype(np.float64) * every[other].astype(np.float64)).sum()
            if np.float32(np.clip(product, -1, 1)) > np.float32(threshold):
                neighbour, score = other, float(np.float32(np.clip(product, -1, 1)))
                break
        neighbours.append(neighbour)
        scores.append(score)
        if neighbour < 0:
            admitted.append(number)
    return neighbours, scores


@st.composite
def corpora(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, float]:
    """Vectors, those against them, and a threshold: few directions, hence equal vectors and equal cosines."""
    dimensions = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    high = draw(st.sampled_from([1, 2, 50]))
    points = rng.integers(-high, high + 1, (draw(st.integers(1, 40)), dimensions)).astype(np.float64)
    points[~points.any(axis=1), 0] = 1
    every = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    i, j = rng.integers(0, len(every), 2)
    tie = float(np.float32((every[i].astype(np.float64) * every[j]).sum()))
    threshold = draw(st.sampled_from([-0.5, 0.0, 0.5, 0.7, 0.9, 0.99, min(tie, 0.999)]))
    split = draw(st.integers(0, min(5, len(every))))
    return every[split:], every[:split], threshold


@settings(deadline=None, max_examples=300)
@given(corpora(), st.integers(1, 9))
def test_decisions_are_those_of_the_definition(
    corpus: tuple[np.ndarray, np.ndarray, float], block: int
) -> None:
    vectors, against, threshold = corpus
    neighbours, scores = greedy(vectors, threshold, against, block=block)
    expected = naive(vectors, threshold, against)
    assert (neighbours.tolist(), scores.tolist()) == expected


@settings(deadline=None, max_examples=100)
@given(corpora(), st.integers(1, 9))
def test_products_in_bf16_change_nothing(corpus: tuple[np.ndarray, np.ndarray, float], block: int) -> None:
    vectors, against, threshold = corpus
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cosine, "native_bf16", lambda: True)
        patch.setattr(cosine, "_LARGE", 0)
        neighbours, scores = greedy(vectors, threshold, against, block=block)
    assert (neighbours.tolist(), scores.tolist()) == naive(vectors, threshold, against)


@pytest.mark.parametrize("bf16", [False, True])
def test_many_random_vectors_near_the_threshold(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # pairs whose cosines lie within 0.01 of the threshold: bf16 alone, wrong by up to 0.006, would err
    monkeypatch.setattr(cosine, "native_bf16", lambda: bf16)
    monkeypatch.setattr(cosine, "_LARGE", 0)
    rng, count, dimensions = np.random.default_rng(0), 300, 64
    bases = rng.normal(size=(count, dimensions))
    bases /= np.linalg.norm(bases, axis=1, keepdims=True)
    others = rng.normal(size=(count, dimensions))
    others -= (others * bases).sum(axis=1, keepdims=True) * bases
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    wanted = rng.uniform(0.89, 0.91, (count, 1))
    pairs = np.concatenate([bases, wanted * bases + np.sqrt(1 - wanted**2) * others]).astype(np.float32)
    neighbours, scores = greedy(pairs, 0.9, block=50)
    assert (neighbours.tolist(), scores.tolist()) == naive(pairs, 0.9, pairs[:0])
    assert 100 < (neighbours >= 0).sum() < 200


def test_a_tie_is_kept_and_the_next_number_above_it_is_not() -> None:
    vectors = np.array([[1, 0], [0.8, 0.6]], dtype=np.float32)  # cosine 0.8 to 32 bits
    assert greedy(vectors, 0.8)[0].tolist() == [-1, -1]
    below = float(np.nextafter(np.float32(0.8), np.float32(0)))
    assert greedy(vectors, below)[0].tolist() == [-1, 0]


def test_at_threshold_1_even_equal_texts_are_kept() -> None:
    assert greedy(np.ones((3, 1), dtype=np.float32), 1.0)[0].tolist() == [-1, -1, -1]


def test_a_thousand_copies_fall_to_the_first() -> None:
    vectors = np.tile(np.array([[0.6, 0.8]], dtype=np.float32), (1000, 1))
    neighbours, scores = greedy(vectors, 0.9, block=128)
    assert neighbours.tolist() == [-1] + [0] * 999
    assert scores[1:] == pytest.approx(1)


def test_nothing_against_nothing() -> None:
    none = np.zeros((0, 4), dtype=np.float32)
    assert greedy(none, 0.9, none)[0].tolist() == []


def test_rows_are_numbered_against_first() -> None:
    rows = Rows(np.array([[3.0], [4.0]]), np.array([[1.0], [2.0]]))
    assert len(rows) == 4
    assert rows[np.array([3, 0, 2, 1])].ravel().tolist() == [4, 1, 3, 2]

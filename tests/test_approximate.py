"""Search through FAISS: what it drops is rightly dropped, and what it misses is counted."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

from pipeline.dedup.approximate import Recall, recall
from pipeline.dedup.embedding import filter_vectors
from pipeline.errors import PipelineError

has_faiss = pytest.mark.skipif(
    importlib.util.find_spec("faiss") is None, reason="an extra: pip install .[faiss]"
)


def clumps(count: int, dimensions: int = 32) -> np.ndarray:
    """Unit vectors of which most have near ones."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count // 4, dimensions))[rng.integers(0, count // 4, count)]
    points += 0.1 * rng.normal(size=points.shape)
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


@has_faiss
def test_what_the_graph_drops_is_too_like_a_kept_text() -> None:
    vectors = clumps(6000)  # in three blocks, so that the graph is asked
    against, vectors = vectors[:500], vectors[500:]
    verdicts = filter_vectors(vectors, 0.95, against, search="faiss")
    dropped = np.flatnonzero(~verdicts.kept)
    every = np.concatenate([against, vectors])
    cosines = (vectors[dropped] * every[verdicts.neighbours[dropped]]).sum(axis=1)
    assert len(dropped) > 2000
    assert cosines == pytest.approx(verdicts.scores[dropped], abs=1e-5) and (cosines > 0.95).all()
    ours = verdicts.neighbours[dropped] - 500
    assert verdicts.kept[ours[ours >= 0]].all() and (ours < dropped).all()
    found = recall(vectors, verdicts.neighbours, 0.95, against)
    assert found.num_sampled == 1000 and found.share > 0.95


@has_faiss
def test_an_empty_corpus_is_no_trouble_to_the_graph() -> None:
    assert filter_vectors(np.zeros((0, 4), np.float32), 0.9, search="faiss").kept.tolist() == []


def test_recall_counts_what_was_missed() -> None:
    # along x, x, y, x, y: exact search drops 1, 3 and 4; here 3 was missed, and then stays for others to meet
    vectors = np.array([[1, 0], [1, 0], [0, 1], [1, 0], [0, 1]], dtype=np.float32)
    found = recall(vectors, np.array([-1, 0, -1, -1, 2]), 0.9)
    assert found == Recall(num_sampled=5, num_found=2, num_missed=1)
    assert found.share == pytest.approx(2 / 3)
    # against x nothing along x may stay: 0 and 3 are missed
    found = recall(vectors, np.array([-1, 0, -1, -1, 3]), 0.9, vectors[:1])
    assert found == Recall(num_sampled=5, num_found=2, num_missed=2)


def test_of_exact_decisions_nothing_is_missed() -> None:
    vectors = clumps(3000)
    found = recall(vectors, filter_vectors(vectors, 0.95).neighbours, 0.95, sample=3000)
    assert found.num_missed == 0 and found.num_found > 1000 and found.share == 1


def test_where_nothing_is_alike_recall_is_whole() -> None:
    assert Recall(10, 0, 0).share == 1 and Recall(10, 0, 3).share == 0


def test_without_faiss_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(PipelineError, match=r"package faiss is not installed\. Run: pip install faiss-cpu"):
        filter_vectors(clumps(8), 0.9, search="faiss")

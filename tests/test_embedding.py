"""Near duplicates by meaning: exact cosines; the embedded model is trusted with English only."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.dedup.embedding import EmbeddingIndex, filter_vectors
from pipeline.dedup.encoder import NoEncoder
from pipeline.engines.models import SENTENCE_WHEEL
from pipeline.errors import PipelineError

has_model = pytest.mark.skipif(
    importlib.util.find_spec(SENTENCE_WHEEL[0]) is None,
    reason=f"the wheel {SENTENCE_WHEEL[1]} is not installed",
)


def unit(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


class Angles(NoEncoder):
    """Reads a text as an angle in degrees: its vector lies at that angle in the plane."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# ---- one by one ----


def test_an_empty_index_has_no_nearest() -> None:
    assert EmbeddingIndex(0.9).nearest(unit(1, 0)) is None


def test_the_nearest_is_the_one_with_the_highest_cosine() -> None:
    index = EmbeddingIndex(0.9)
    index.insert("x", "along x", unit(1, 0))
    index.insert("y", "along y", unit(0, 1))
    # (0.6, 0.8) . (1, 0) = 0.6 and . (0, 1) = 0.8
    nearest = index.nearest(unit(0.6, 0.8))
    assert nearest is not None
    assert (nearest.key, nearest.text) == ("y", "along y")
    assert nearest.score == pytest.approx(0.8)


def test_the_earliest_of_equals_is_returned() -> None:
    index = EmbeddingIndex(0.9)
    for key in ("first", "second"):
        index.insert(key, key, unit(0, 1))
    nearest = index.nearest(unit(0, 1))
    assert nearest is not None and nearest.key == "first"


def test_opposite_vectors_win_over_the_unused_rows_of_the_buffer() -> None:
    index = EmbeddingIndex(0.9)
    index.insert("x", "x", unit(1, 0))
    nearest = index.nearest(unit(-1, 0))  # an unused row of zeros would score 0
    assert nearest is not None and (nearest.key, nearest.score) == ("x", -1.0)


def test_every_vector_survives_the_growth_of_the_buffer() -> None:
    index, count = EmbeddingIndex(0.9), 600  # 256 rows at first, then 512, then 1024
    angles = np.linspace(0, np.pi, count)
    for number, angle in enumerate(angles):
        index.insert(str(number), "", unit(np.cos(angle), np.sin(angle)))
    for number in (0, 255, 256, 511, 512, 599):
        nearest = index.nearest(unit(np.cos(angles[number]), np.sin(angles[number])))
        assert nearest is not None and nearest.key == str(number)


# ---- in batches ----


def test_a_batch_is_decided_in_order_against_the_pool_and_against_itself() -> None:
    index = EmbeddingIndex(0.9, Angles())  # cos 25 = 0.906 > 0.9 > 0.891 = cos 27
    assert index.add(["a", "b"], ["0", "90"]).kept.all()
    # 25 falls to 0; 45 stays; 63 falls to 45 (90 is 27 away); 66 is 21 from 45 and 24 from 90, which is older
    verdicts = index.add(["c", "d", "e", "f", "g"], ["25", "45", "63", "66", "91"])
    assert verdicts.neighbours.tolist() == [0, -1, 2, 1, 1]
    assert index.keys == ["a", "b", "d"] and index.texts == ["0", "90", "45"]
    found = [index.neighbour(verdicts, i) for i in range(5)]
    assert [neighbour and neighbour.key for neighbour in found] == ["a", None, "d", "b", "b"]
    assert verdicts.scores == pytest.approx(np.cos(np.radians([25, 90, 18, 24, 1])) * [1, 0, 1, 1, 1])


def test_batches_of_any_size_decide_as_one() -> None:
    angles = [str(a * 37 % 360) for a in range(200)]
    whole, pieces = EmbeddingIndex(0.98, Angles()), EmbeddingIndex(0.98, Angles())
    whole.add(angles, angles)
    for begin in range(0, 200, 7):
        pieces.add(angles[begin : begin + 7], angles[begin : begin + 7])
    assert whole.keys == pieces.keys and 10 < len(whole) < 40
    assert np.array_equal(whole.vectors, pieces.vectors)


def test_an_index_that_was_restored_goes_on_as_before() -> None:
    angles = [str(a * 37 % 360) for a in range(100)]
    straight, halves = EmbeddingIndex(0.98, Angles()), EmbeddingIndex(0.98, Angles())
    straight.add(angles, angles)
    halves.add(angles[:40], angles[:40])
    restored = EmbeddingIndex(0.98, Angles())
    restored.restore(list(halves.keys), list(halves.texts), halves.vectors.copy())
    restored.add(angles[40:], angles[40:])
    assert restored.keys == straight.keys and np.array_equal(restored.vectors, straight.vectors)


def test_prepared_texts_are_encoded_once_and_together_and_give_the_same() -> None:
    class Counting(Angles):
        calls: list[list[str]] = []

        def encode(self, texts: Sequence[str]) -> np.ndarray:
            self.calls.append(list(texts))
            return super().encode(texts)

    encoder = Counting()
    index = EmbeddingIndex(0.9, encoder)
    index.prepare(["10", "20", "10", "30"])
    assert encoder.calls == [["10", "20", "30"]]
    np.testing.assert_array_equal(index.encode(["30", "10"]), Angles().encode(["30", "10"]))
    assert len(encoder.calls) == 1
    assert index.encode(["10", "40"]).shape == (2, 2)  # not all of them were prepared
    assert encoder.calls[1:] == [["10", "40"]]
    index.prepare([])
    index.encode(["10"])
    assert encoder.calls[2:] == [["10"]]


def test_an_empty_batch_is_no_trouble() -> None:
    assert EmbeddingIndex(0.9, Angles()).add([], []).kept.tolist() == []


# ---- a corpus ----


def test_a_corpus_names_the_first_kept_text_that_decides() -> None:
    vectors = Angles().encode(["0", "10", "20", "30", "0"])
    # at 0.95 (18.2 degrees): 10 falls to 0; 20 stays, for the 10 that is nearer was dropped; 30 falls to 20
    verdicts = filter_vectors(vectors, 0.95)
    assert verdicts.neighbours.tolist() == [-1, 0, -1, 2, 0]
    assert verdicts.kept.tolist() == [True, False, True, False, False]
    # against 25 and 5: their numbers come first, so those of the corpus begin at 2
    verdicts = filter_vectors(vectors, 0.95, Angles().encode(["25", "-15"]))
    assert verdicts.neighbours.tolist() == [1, 0, 0, 0, 1]


def test_an_unknown_search_is_refused() -> None:
    with pytest.raises(PipelineError, match="got 'annoy', expected one of exact, faiss"):
        filter_vectors(unit(1, 0)[None], 0.9, search="annoy")


# ---- what the default model can do ----


@pytest.fixture(scope="module")
def index() -> EmbeddingIndex:
    return EmbeddingIndex(0.9)


@has_model
@pytest.mark.parametrize(
    ("text", "paraphrase", "other"),
    [
        ("Give me tips for falling asleep.", "How can I get to sleep more easily?", "List the planets."),
        (
            "Shorten the paragraph below.",
            "Make the following paragraph more concise.",
            "Describe a volcano to a child.",
        ),
    ],
)
def test_paraphrases_are_nearer_than_other_tasks(
    index: EmbeddingIndex, text: str, paraphrase: str, other: str
) -> None:
    asked, same, different = index.encode([text, paraphrase, other])
    assert asked @ same > 0.6 > 0.3 > asked @ different


@has_model
def test_the_default_model_takes_different_chinese_tasks_for_alike(index: EmbeddingIndex) -> None:
    # why covers("zh") is False: unrelated requests score as English near duplicates do
    soup, law = index.encode(["请介绍番茄汤的做法。", "解释劳动合同的条款。"])
    poem, planets = index.encode(["Write a poem.", "List the planets."])
    assert soup @ law > poem @ planets + 0.2

"""Near duplicates by meaning: exact cosines; the embedded model is trusted with English only."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from pipeline.dedup.embedding import EmbeddingIndex
from pipeline.engines.models import SENTENCE_WHEEL
from pipeline.errors import PipelineError

has_model = pytest.mark.skipif(
    importlib.util.find_spec(SENTENCE_WHEEL[0]) is None,
    reason=f"the wheel {SENTENCE_WHEEL[1]} is not installed",
)


def unit(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


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


def test_chinese_is_covered_only_by_a_named_model() -> None:
    assert EmbeddingIndex(0.9).covers("en") and not EmbeddingIndex(0.9).covers("zh")
    named = EmbeddingIndex(0.9, "owner/multilingual")
    assert named.covers("en") and named.covers("zh")


def test_a_model_that_is_not_there_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such directory and not a hub id"):
        EmbeddingIndex(0.9, str(tmp_path / "gone")).encode(["a"])


@pytest.fixture(scope="module")
def index() -> EmbeddingIndex:
    return EmbeddingIndex(0.9)


@has_model
def test_the_model_gives_unit_vectors_in_order(index: EmbeddingIndex) -> None:
    texts = ["Write a poem.", "Explain gravity.", "Write a poem."]
    vectors = index.encode(texts)
    assert vectors.shape == (3, 384) and vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert vectors[0] @ vectors[2] == pytest.approx(1, abs=1e-5)
    assert index.encode(texts[1:2])[0] == pytest.approx(vectors[1], abs=1e-5)


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

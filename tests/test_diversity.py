"""Diversity of texts: coverage of seeds, nearest neighbours and clusters, on vectors made by hand."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scripted
from fault_server import FaultServer

from pipeline.dedup import diversity as module
from pipeline.dedup.diversity import BINS, Cluster, cluster, even, measure, nearest_cosines, nearest_seeds
from pipeline.dedup.embedding import EmbeddingIndex
from pipeline.dedup.encoder import NoEncoder, SentenceEncoder
from pipeline.stages.diversity import diversity

SEEDS = np.eye(3, dtype=np.float32)  # x, y and z
TEXTS = ["一首诗", "two", "three", "four"]
KEYS = ["zh-1", "en-2", "en-3", "en-4"]
VECTORS = np.array([[1, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0.6, 0.8, 0]], dtype=np.float32)
# cosines: 1-2 0.8, 1-3 0, 1-4 0.6, 2-3 0.6, 2-4 0.48 + 0.48 = 0.96, 3-4 0.8


def test_each_text_counts_for_its_nearest_seed() -> None:
    assert nearest_seeds(VECTORS, SEEDS).tolist() == [2, 2, 0]  # the first two lean to x, the others to y


def test_the_first_of_equally_near_seeds_counts() -> None:
    assert nearest_seeds(VECTORS, np.concatenate([SEEDS[1:], SEEDS])).tolist() == [2, 0, 2, 0, 0]


def test_the_nearest_cosine_is_to_another_text_never_to_itself() -> None:
    assert nearest_cosines(VECTORS) == pytest.approx([0.8, 0.96, 0.8, 0.96])
    assert nearest_cosines(np.concatenate([VECTORS, VECTORS[:1]]))[[0, 4]] == pytest.approx([1, 1])
    assert nearest_cosines(VECTORS[:1]).tolist() == nearest_cosines(VECTORS[:0]).tolist() == []


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = nearest_cosines(vectors), nearest_seeds(vectors, vectors[:7])
    monkeypatch.setattr(module, "_BLOCK", 3)
    assert nearest_cosines(vectors) == pytest.approx(whole[0])
    assert nearest_seeds(vectors, vectors[:7]).tolist() == whole[1].tolist()
    products = vectors @ vectors.T - 2 * np.eye(50)
    assert whole[0] == pytest.approx(products.max(axis=1), abs=1e-6)


def test_the_spread_is_the_number_of_equal_shares() -> None:
    assert even(np.array([5, 5, 0, 5, 5])) == pytest.approx(4)
    assert even(np.array([7, 0])) == pytest.approx(1)
    # shares 3/4 and 1/4: entropy 0.75 ln(4/3) + 0.25 ln 4 = 0.2158 + 0.3466 = 0.5623, exp 1.755
    assert even(np.array([3, 1])) == pytest.approx(1.755, abs=1e-3)
    assert even(np.array([0, 0])) == 0


def test_clusters_come_by_size_with_their_most_central_text() -> None:
    # four texts around x, three around y; 7 texts make round(sqrt(7 / 2)) = 2 clusters
    around_x = [[0.96, -0.28, 0], [0.96, 0, 0.28], [0.96, 0, -0.28], [1, 0, 0]]
    around_y = [[0, 0.96, 0.28], [0, 1, 0], [0, 0.96, -0.28]]
    vectors = np.array(around_y + around_x, dtype=np.float32)
    # the mean around y lies along y, which is the second text. That around x is (0.97, -0.07, 0): its product
    # with (1, 0, 0) is 0.97, with (0.96, -0.28, 0) 0.951, with the others 0.931
    assert cluster(vectors) == [(4, 6), (3, 1)]
    assert cluster(vectors[:1]) == [(1, 0)] and cluster(vectors[:0]) == []


def test_equal_texts_make_fewer_clusters() -> None:
    assert cluster(np.tile(SEEDS[:1], (32, 1))) == [(32, 0)]


def test_all_numbers_together() -> None:
    found = measure(KEYS, TEXTS, VECTORS, ["s1", "s2", "s3"], SEEDS)
    assert (found.num_texts, found.num_compared) == (4, 4)
    assert found.seeds == (("s1", 2), ("s2", 2), ("s3", 0))
    assert (found.seeds_covered, found.even_seeds) == (2, 2.0)
    # bins of 0.05: 0.8 begins the 17th, 0.96 lies in the 20th
    assert {place: count for place, count in enumerate(found.histogram) if count} == {16: 2, 19: 2}
    assert len(found.histogram) == BINS and found.mean_nearest == 0.88
    assert [c.size for c in found.clusters] == [4]
    assert measure(KEYS, TEXTS, VECTORS, ["s1", "s2", "s3"], SEEDS) == found


def test_no_text_and_one_text_are_no_trouble() -> None:
    nothing = measure([], [], VECTORS[:0], ["s1"], SEEDS[:1])
    assert (nothing.seeds_covered, nothing.even_seeds, sum(nothing.histogram), nothing.clusters) == (
        0,
        0,
        0,
        (),
    )
    one = measure(KEYS[:1], TEXTS[:1], VECTORS[:1], ["s1"], SEEDS[:1])
    assert one.clusters == (Cluster(1, "zh-1", "一首诗"),) and sum(one.histogram) == 0


def test_of_very_many_texts_some_are_drawn_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST", 3)
    found = measure(KEYS, TEXTS, VECTORS, ["s1", "s2", "s3"], SEEDS)
    assert (found.num_texts, found.num_compared, sum(found.histogram)) == (4, 3, 3)
    assert measure(KEYS, TEXTS, VECTORS, ["s1", "s2", "s3"], SEEDS) == found


# ---- of a run ----


def pool(language: str, index: EmbeddingIndex, threshold: float = 0.9) -> Any:
    embeds = threshold < 1 and index.covers(language)
    seeds = [SimpleNamespace(id=f"{language}-seed-{n}") for n in range(3)]
    plan = SimpleNamespace(embedding_threshold=threshold, seed=0)
    return SimpleNamespace(language=language, embedding=index, embeds=embeds, seeds=seeds, plan=plan)


def test_a_run_is_measured_by_language_and_chinese_is_left_out_by_the_default_model() -> None:
    index = EmbeddingIndex(0.9, SentenceEncoder())
    for number, vector in enumerate(SEEDS):
        index.insert(f"en-seed-{number}", "seed", vector)
    for key, text, vector in zip(["en-7-0", "en-8-0", "en-9-0", "en-9-1"], TEXTS, VECTORS, strict=True):
        index.insert(key, text, vector)
    pools = [pool("en", index), pool("zh", EmbeddingIndex(0.9, SentenceEncoder()))]
    # two examples of the first task, one of the last; the second and third tasks were not kept
    kept = [{"id": key, "language": "en"} for key in ("en-7-0-0", "en-7-0-1", "en-9-1-0")]
    found = diversity(pools, [*kept, {"id": "zh-1-0-0", "language": "zh"}])
    assert (found["en"]["num_examples"], found["en"]["num_texts"]) == (3, 2)
    assert found["en"]["seeds"] == (("en-seed-0", 1), ("en-seed-1", 1), ("en-seed-2", 0))
    assert found["en"]["model"] == "all-MiniLM-L6-v2" and found["en"]["mean_nearest"] == 0.6
    assert list(found["zh"]) == ["left_out"]
    assert "all-MiniLM-L6-v2 does not read this language" in found["zh"]["left_out"]


def test_what_was_switched_off_is_left_out_with_the_reason() -> None:
    pools = [
        pool("en", EmbeddingIndex(1, SentenceEncoder()), 1.0),
        pool("zh", EmbeddingIndex(0.9, NoEncoder())),
    ]
    found = diversity(pools, [])
    assert "--embedding-threshold 1" in found["en"]["left_out"]
    assert "--embedding-model off" in found["zh"]["left_out"]


def test_a_whole_run_with_a_server_s_vectors_ends_in_the_report(call: Any, tmp_path: Path) -> None:
    with FaultServer() as server:
        words = ("--embedding-threshold", 0.9999, "--embedding-model", "openai:smol")
        ended = call(
            *scripted.ARGS, *words, "--embedding-base-url", server.url, "--run", "r", "--num-examples", 12
        )
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "r" / "diversity.json").read_text(encoding="utf-8"))["en"]
    assert found["num_examples"] == 12 and found["model"] == "smol"
    assert sum(found["histogram"]) == found["num_texts"] == sum(count for _, count in found["seeds"])
    assert sum(c["size"] for c in found["clusters"]) == found["num_texts"] > 1
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert page.count("<rect ") == BINS and found["clusters"][0]["text"] in page
    config = (tmp_path / "r" / "config.yaml").read_text(encoding="utf-8")
    assert server.url in config and "embedding_model: openai:smol" in config

"""Rows that give held-out texts away, by n-grams, wording and meaning, and near duplicates among rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from pipeline.dedup.contamination import Contamination, Finding, HeldOut
from pipeline.dedup.duplicates import Duplicates
from pipeline.dedup.meaning import Meaning

EN = "List three reasons why people in small towns prefer to walk to the market on Sunday mornings."
ZH = "请列出三个理由，说明为什么小镇上的居民更愿意在星期天早上步行去市场买菜。"
EN_LIKE = "List three reasons why people in small towns like to walk to the market on Sunday evenings."
ZH_LIKE = "请列出三个理由，说明为什么小镇上的居民更喜欢在星期六早上步行去市场买菜。"
CLEAN = ["Write a poem about the sea.", "写一首关于大海的诗。"]
HELD = HeldOut(["test.jsonl:1", "test.jsonl:2 (id zh-1)"], [EN, ZH])
SCORER = RougeScorer(["rougeL"], use_stemmer=False)


class Angles:
    """A stand-in for the model: a text ends in the degrees of its unit vector, Chinese is not read."""

    def __init__(self, threshold: float) -> None:
        self.meaning = Meaning(threshold)
        self.meaning._index.encode = self.encode  # type: ignore[method-assign]

    @staticmethod
    def encode(texts: Sequence[str]) -> np.ndarray:
        angles = np.radians([float(text.split()[-1]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.mark.parametrize(("row", "number"), [(f"Now: {EN} Thanks.", 0), (f"题目：{ZH}谢谢。", 1)])
def test_a_quoted_held_out_text_is_found_by_its_ngrams(row: str, number: int) -> None:
    (found,) = Contamination(HELD, ngram=13, rouge=1).find([*CLEAN, row])[2]
    assert (found.measure, found.score, found.where) == ("13-gram", 1.0, HELD.where[number])
    assert found.text == HELD.texts[number] and found.spans[0] in row
    assert found.as_json()["spans"] == list(found.spans)


@pytest.mark.parametrize(("row", "number"), [(EN_LIKE, 0), (ZH_LIKE, 1)])
def test_a_reworded_held_out_text_is_found_by_rouge(row: str, number: int) -> None:
    (found,) = Contamination(HELD, ngram=0, rouge=0.7).find([*CLEAN, row])[2]
    assert (found.measure, found.where, found.text) == ("ROUGE-L", HELD.where[number], HELD.texts[number])
    assert 0.7 < found.score < 1 and "spans" not in found.as_json()


def test_scores_are_those_of_rouge_score() -> None:
    found = Contamination(HELD, ngram=0, rouge=0.7).find([EN_LIKE])[0][0]
    assert found.score == SCORER.score(EN, EN_LIKE)["rougeL"].fmeasure


def test_rows_are_compared_with_held_out_texts_only_and_not_admitted() -> None:
    held_out = Contamination(HELD, ngram=13, rouge=0.7)
    assert held_out.find([CLEAN[0], CLEAN[0]]) == held_out.find(CLEAN) == {}


def test_every_measure_that_fires_is_a_finding() -> None:
    angles = Angles(0.9)
    texts = ["a b c d 10", "e f g h 90"]
    angles.meaning.insert(["x:1", "x:2"], texts, angles.encode(texts))
    held_out = Contamination(HeldOut(["x:1", "x:2"], texts), ngram=3, rouge=0.5, meaning=angles.meaning)
    rows = ["a b c d 10", "q r s t 85", "m n o p 45"]
    found = held_out.find(rows, angles.encode(rows))
    assert {i: [f.measure for f in fs] for i, fs in found.items()} == {
        0: ["3-gram", "ROUGE-L", "cosine"],
        1: ["cosine"],
    }
    assert found[1][0].where == "x:2" and found[1][0].score == pytest.approx(np.cos(np.radians(5)), abs=1e-6)


def test_many_rows_are_searched_by_all_threads_and_found_all_the_same() -> None:
    rows = [EN_LIKE if i % 100 == 7 else f"row number {i} says nothing like it" for i in range(3000)]
    assert sorted(Contamination(HELD, ngram=13, rouge=0.7).find(rows)) == list(range(7, 3000, 100))


@pytest.mark.parametrize("text", [EN, ZH])
def test_no_held_out_texts_find_nothing(text: str) -> None:
    assert Contamination(HeldOut([], []), ngram=13, rouge=0.7).find([text]) == {}


def test_a_finding_is_one_line_for_people() -> None:
    said = Finding("13-gram", 0.5, "a.jsonl:3", "whole", ("one\ntwo", "three")).sentence()
    assert said == "13-gram 0.500 with a.jsonl:3: one two ... three"


def test_chinese_is_not_compared_by_a_model_that_cannot_read_it() -> None:
    angles = Angles(0.9)
    vectors = angles.meaning.encode(["水 10", "water 10"])
    assert not vectors[0].any() and vectors[1].any()
    assert (
        Duplicates(1, angles.meaning).add(["a", "b"], ["水 10", "火 10"], np.zeros((2, 2), np.float32)) == {}
    )


# ---- near duplicates ----


@pytest.mark.parametrize(("first", "second"), [(EN, EN_LIKE), (ZH, ZH_LIKE)])
def test_the_first_of_two_near_duplicates_stays(first: str, second: str) -> None:
    (reason, found) = Duplicates(0.7).add(["a:1", "a:2", "a:3"], [first, CLEAN[0], second])[2]
    assert (reason, found.measure, found.where, found.text) == ("near_duplicate", "ROUGE-L", "a:1", first)


def test_rows_of_later_batches_are_compared_with_earlier_ones() -> None:
    duplicates = Duplicates(0.7)
    assert duplicates.add(["a:1"], [EN]) == {}
    assert duplicates.add(["b:1"], [EN_LIKE])[0][1].where == "a:1"


def test_a_threshold_of_one_switches_rouge_off() -> None:
    assert Duplicates(1).add(["a:1", "a:2"], [EN, EN]) == {}


ROW = st.tuples(st.lists(st.sampled_from("abcd"), min_size=1, max_size=6).map(" ".join), st.integers(0, 18))


@given(st.lists(ROW, max_size=12), st.sampled_from([0.5, 0.7, 1.0]))
@settings(max_examples=60, deadline=None)
def test_with_both_measures_a_row_is_compared_with_kept_rows_only(
    rows: list[tuple[str, int]], threshold: float
) -> None:
    texts = [f"{words} {10 * step}" for words, step in rows]
    angles = Angles(0.95)  # 18.2 degrees: neighbours on the scale of tens are alike
    vectors = angles.encode(texts)
    got: dict[int, str] = {}
    duplicates = Duplicates(threshold, angles.meaning)
    for begin in range(0, len(texts), 5):
        part = slice(begin, begin + 5)
        keys = [f"k{i}" for i in range(len(texts))][part]
        dropped = duplicates.add(keys, texts[part], vectors[part])
        got |= {begin + i: reason for i, (reason, _) in dropped.items()}
    kept: list[int] = []
    for i, text in enumerate(texts):
        words = any(SCORER.score(texts[j], text)["rougeL"].fmeasure > threshold for j in kept)
        meaning = any(abs(rows[j][1] - rows[i][1]) <= 1 for j in kept)
        assert got.get(i) == ("near_duplicate" if words else "same_meaning" if meaning else None)
        if not (words or meaning):
            kept.append(i)


@pytest.mark.parametrize("text", ["Name a colour.", "写一首诗。"])
def test_held_out_texts_that_are_all_shorter_than_an_ngram_are_found(text: str) -> None:
    (found,) = Contamination(HeldOut(["x:1"], [text]), ngram=13, rouge=1).find([text])[0]
    assert (found.measure, found.where, found.spans) == ("13-gram", "x:1", (text,))

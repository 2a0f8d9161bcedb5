"""Near duplicates by words: rouge_score's numbers for Latin script, words where it sees none in Chinese."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from pipeline.dedup.rouge import RougeIndex, f_measure
from pipeline.dedup.tokens import tokenize

SCORER = RougeScorer(["rougeL"], use_stemmer=False)
TOKENS = st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join)
POOLS = st.lists(TOKENS, min_size=1, max_size=6)


def reference(admitted: str, candidate: str) -> float:
    return float(SCORER.score(admitted, candidate)["rougeL"].fmeasure)


def index(*texts: str, threshold: float = 0.7) -> RougeIndex:
    found = RougeIndex(threshold)
    for number, text in enumerate(texts):
        found.insert(f"k{number}", text)
    return found


def score(admitted: str, candidate: str) -> float:
    nearest = index(admitted).nearest(candidate)
    assert nearest is not None
    return nearest.score


@given(TOKENS, TOKENS)
@settings(max_examples=200)
def test_scores_are_bit_for_bit_those_of_rouge_score(admitted: str, candidate: str) -> None:
    assert score(admitted, candidate) == reference(admitted, candidate)


@given(POOLS, TOKENS)
def test_the_nearest_is_the_earliest_of_the_highest(pool: list[str], candidate: str) -> None:
    scores = [reference(admitted, candidate) for admitted in pool]
    nearest = index(*pool).nearest(candidate)
    assert nearest is not None
    assert nearest.score == max(scores)
    assert (nearest.key, nearest.text) == (f"k{scores.index(max(scores))}", pool[scores.index(max(scores))])


@given(st.lists(TOKENS, max_size=8), st.sampled_from([0.0, 0.5, 2 / 3, 0.7, 0.75, 0.8, 1.0]))
def test_a_text_is_admitted_as_self_instruct_would(texts: list[str], threshold: float) -> None:
    ours, theirs = RougeIndex(threshold), list[str]()
    for number, text in enumerate(texts):
        admitted = all(reference(other, text) <= threshold for other in theirs)
        assert (ours.add(str(number), text) is None) == admitted
        theirs += [text] if admitted else []
    assert len(ours) == len(theirs)


def test_ties_at_the_threshold_fall_as_in_rouge_score() -> None:
    shared = "a b c d e f g"
    # lengths 9 and 11, 7 in common: 2 * 7 / 20 is 0.7, but floats give a hair more
    nine, eleven = f"{shared} h i", f"{shared} p q r s"
    assert score(nine, eleven) == reference(nine, eleven) == 0.7000000000000001
    dropped = index(nine).add("new", eleven)
    assert dropped is not None and dropped.key == "k0"
    # lengths 10 and 10, 7 in common: exactly 0.7, which is not above 0.7
    ten, other = f"{shared} h i j", f"{shared} p q r"
    assert score(ten, other) == reference(ten, other) == 0.7
    assert index(ten).add("new", other) is None


def test_f_measure_by_hand_with_empty_sides() -> None:
    # precision 2/4, recall 2/8: 2 * 1/8 / 3/4 = 1/3; nothing in common and empty texts give 0
    measured = f_measure(np.array([2, 0, 0]), 4, np.array([8, 3, 0]))
    assert measured.tolist() == [pytest.approx(1 / 3), 0.0, 0.0]
    assert f_measure(np.array([0, 0]), 0, np.array([3, 0])).tolist() == [0.0, 0.0]


def test_an_empty_pool_has_no_nearest_and_an_empty_text_is_like_nothing() -> None:
    assert RougeIndex().nearest("a b") is None
    assert RougeIndex().add("k", "") is None
    for text in ("", "?!"):
        nearest = index("", "a b").nearest(text)
        assert nearest is not None and (nearest.key, nearest.score) == ("k0", 0.0)


def test_a_rejected_text_is_not_admitted() -> None:
    found = index("write a poem about rain")
    for _ in range(2):
        dropped = found.add("again", "Write a poem about rain!")
        assert dropped is not None and (dropped.key, dropped.score) == ("k0", 1.0)
    assert len(found) == 1


@given(st.text(st.sampled_from("aZ0É _-'.\n\u0130ß"), max_size=20))
def test_latin_text_has_the_tokens_of_rouge_score(text: str) -> None:
    assert tokenize(text) == DefaultTokenizer(use_stemmer=False).tokenize(text)


POEM, SOUP = "写一首关于春天的诗。", "请介绍番茄鸡蛋汤的做法。"


def test_rouge_score_takes_all_chinese_for_empty_and_we_do_not() -> None:
    naive = DefaultTokenizer(use_stemmer=False).tokenize
    assert naive(POEM) == naive(SOUP) == []
    assert tokenize(POEM) != tokenize(SOUP)
    assert "".join(tokenize(POEM)) == POEM.rstrip("。")
    assert score(POEM, SOUP) < 0.3 and score(POEM, POEM) == 1.0
    assert score(POEM, "写一首关于秋天的诗。") > score(POEM, SOUP)


def test_chinese_near_duplicates_are_found_and_different_tasks_admitted() -> None:
    found = index(POEM)
    assert found.add("soup", SOUP) is None
    dropped = found.add("again", "请写一首关于春天的诗。")
    assert dropped is not None and dropped.key == "k0" and len(found) == 2


def test_mixed_text_keeps_both_kinds_of_tokens_in_order() -> None:
    tokens = tokenize("用Python 3写排序，sort it!")
    assert [t for t in tokens if t.isascii()] == ["python", "3", "sort", "it"]
    assert "".join(tokens) == "用python3写排序sortit"
    assert tokens.index("用") < tokens.index("python") < tokens.index("写")


def test_tokens_beyond_the_surrogates_get_code_points_of_their_own() -> None:
    found, last = RougeIndex(), 0xD800 - 0x100 - 1  # the last number below the surrogates
    found._ids = {"before": last - 1, "at": last, "after": last + 1, **{f"x{i}": i for i in range(last - 1)}}
    found.insert("a", "before at after new")
    # 0x100 + number, and from 0xD800 on 0x800 more: past U+DFFF
    assert [ord(c) for c in found._codes[0]] == [0xD7FE, 0xD7FF, 0xE000, 0xE001]
    found._codes[0].encode("utf-8")  # surrogates would be refused
    nearest = found.nearest("before at after new")
    assert nearest is not None and nearest.score == 1.0
    # 2 of 4 tokens in common: 2 * 1/2 * 1/2 / 1
    half = found.nearest("at after x1 x2")
    assert half is not None and half.score == 0.5

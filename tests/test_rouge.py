"""Near duplicates by words: rouge_score's numbers for Latin script, words where it sees none in Chinese."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import DefaultTokenizer

from pipeline.dedup import bounds, rouge
from pipeline.dedup.rouge import Neighbour, RougeIndex
from pipeline.dedup.tokens import CHARACTERS, tokenize
from pipeline.dedup.vocabulary import Vocabulary

settings.register_profile("compiling", deadline=None)  # the first call compiles
settings.load_profile("compiling")
SCORER = RougeScorer(["rougeL"], use_stemmer=False)
THRESHOLDS = st.sampled_from([0.01, 0.3, 0.5, 2 / 3, 0.7, 0.75, 0.8, 0.99, 1.0])
FREQUENT = st.sampled_from([0, 3, rouge._FREQUENT])  # 0: every token has a list for each length
WORDS = st.lists(st.sampled_from("abcd"), max_size=14).map(" ".join)
TEXTS = st.one_of(
    WORDS,
    st.lists(st.sampled_from([f"w{i}" for i in range(40)]), max_size=200).map(" ".join),
    st.text(
        st.characters(max_codepoint=0x10FF), max_size=20
    ),  # below the scripts that rouge_score is blind to
    st.text(st.sampled_from("aé0 \U0001f600\u0130ß\x00\u212a"), max_size=12),
)


def reference(admitted: str, candidate: str) -> float:
    return float(SCORER.score(admitted, candidate)["rougeL"].fmeasure)


def index(*texts: str, threshold: float = 0.7) -> RougeIndex:
    found = RougeIndex(threshold)
    found.insert([f"k{number}" for number in range(len(texts))], texts)
    return found


def score(admitted: str, candidate: str) -> float:
    return index(admitted).most_similar(candidate)[0].score


def verdict(found: RougeIndex, text: str) -> Neighbour | None:
    return found.neighbour(found.add(["new"], [text]), 0)


def naive(texts: list[str], threshold: float) -> tuple[list[int], list[float]]:
    """Self-Instruct's loop by rouge_score itself: the first admitted text above the threshold, its score."""
    admitted, neighbours, scores = list[int](), list[int](), list[float]()
    for number, text in enumerate(texts):
        like = ((other, f) for other in admitted if (f := reference(texts[other], text)) > threshold)
        neighbour, found = next(like, (-1, 0.0))
        admitted += [number] if neighbour < 0 else []
        neighbours.append(neighbour)
        scores.append(found)
    return neighbours, scores


@given(WORDS, WORDS)
@settings(max_examples=200)
def test_scores_are_bit_for_bit_those_of_rouge_score(admitted: str, candidate: str) -> None:
    assert score(admitted, candidate) == reference(admitted, candidate)


@given(st.lists(WORDS, min_size=1, max_size=6), WORDS, st.integers(1, 7))
def test_the_most_similar_come_by_score_and_the_earliest_of_equals_first(
    pool: list[str], candidate: str, k: int
) -> None:
    scores = [reference(admitted, candidate) for admitted in pool]
    best = sorted(range(len(pool)), key=lambda i: -scores[i])[:k]
    wanted = [Neighbour(f"k{i}", pool[i], scores[i]) for i in best]
    assert index(*pool).most_similar(candidate, k) == wanted


@given(st.lists(TEXTS, max_size=12), THRESHOLDS, FREQUENT)
@settings(max_examples=500)
def test_a_corpus_is_decided_as_self_instruct_would(
    texts: list[str], threshold: float, frequent: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rouge, "_FREQUENT", frequent)
        found = rouge.filter(texts, threshold)
    assert (found.neighbours.tolist(), found.scores.tolist()) == naive(texts, threshold)


@given(st.lists(WORDS, max_size=24), THRESHOLDS, st.integers(1, 9), FREQUENT)
@settings(max_examples=200)
def test_batches_are_decided_as_the_corpus_at_once(
    texts: list[str], threshold: float, size: int, frequent: int
) -> None:
    online, neighbours = RougeIndex(threshold), list[int]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rouge, "_FREQUENT", frequent)
        for begin in range(0, len(texts), size):
            batch = texts[begin : begin + size]
            found = online.add([str(begin + i) for i in range(len(batch))], batch)
            neighbours += [int(online.keys[n]) if n >= 0 else -1 for n in found.neighbours]
    assert neighbours == naive(texts, threshold)[0]


@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), max_size=60), THRESHOLDS, st.data()
)
@settings(max_examples=60)
def test_blocks_and_threads_change_no_verdict(
    texts: list[str], threshold: float, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rouge, "_BLOCK", data.draw(st.integers(1, 9)))
        patch.setattr(rouge, "_PARALLEL", 2)
        patch.setattr(rouge, "_FREQUENT", data.draw(FREQUENT))
        found = rouge.filter(texts, threshold, threads=3)
    assert (found.neighbours.tolist(), found.scores.tolist()) == naive(texts, threshold)


@pytest.mark.parametrize("frequent", [0, rouge._FREQUENT])
def test_long_texts_need_masks_of_many_words(frequent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, words = random.Random(0), [f"w{i}" for i in range(300)]
    texts = [" ".join(rng.choices("abcdefgh", k=k)) for k in (63, 64, 65, 128, 129, 1000, 1000)]
    texts += [" ".join(rng.choices(words, k=k)) for k in (254, 300)]  # an entry's lengths end at 255
    texts += [" ".join(w for w in text.split() if rng.random() < 0.8) for text in texts]
    monkeypatch.setattr(rouge, "_FREQUENT", frequent)
    for threshold in (0.6, 0.7, 0.88):
        found = rouge.filter(texts, threshold)
        assert (found.neighbours.tolist(), found.scores.tolist()) == naive(texts, threshold)


def test_texts_too_long_for_a_list_of_their_own_find_each_other() -> None:
    rng = random.Random(1)
    words, texts = [f"w{i}" for i in range(150)], list[str]()
    for m in (40, 55, 62, 63, 64, 65, 66, 80, 100) * 4:
        text = rng.sample(words, m)
        texts += [" ".join(text), " ".join(w for w in text if rng.random() < 0.7)]
        texts.append(" ".join(text + rng.sample(words, m // 3)))
    rng.shuffle(texts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rouge, "_FREQUENT", 0)
        found = rouge.filter(texts)
    assert (found.neighbours.tolist(), found.scores.tolist()) == naive(texts, 0.7)
    assert 20 < found.kept.sum() < 90


@given(st.integers(1, 300), st.integers(1, 300), THRESHOLDS)
def test_the_needed_lcs_is_the_smallest_whose_float_exceeds_the_threshold(
    m: int, n: int, threshold: float
) -> None:
    most = min(m, n)
    above = [common for common in range(1, most + 1) if bounds.f_measure(common, m, n) > threshold]
    assert bounds.need(m, n, threshold) == (above[0] if above else most + 1)


def test_ties_at_the_threshold_fall_as_in_rouge_score() -> None:
    shared = "a b c d e f g"
    # lengths 9 and 11, 7 in common: 2 * 7 / 20 is 0.7, but floats give a hair more
    nine, eleven = f"{shared} h i", f"{shared} p q r s"
    assert score(nine, eleven) == reference(nine, eleven) == 0.7000000000000001
    dropped = verdict(index(nine), eleven)
    assert dropped is not None and dropped.key == "k0"
    # lengths 10 and 10, 7 in common: exactly 0.7, which is not above 0.7
    ten, other = f"{shared} h i j", f"{shared} p q r"
    assert score(ten, other) == reference(ten, other) == 0.7
    assert verdict(index(ten), other) is None


def test_f_measure_by_hand_with_empty_sides() -> None:
    # precision 2/4, recall 2/8: 2 * 1/8 / 3/4 = 1/3; nothing in common gives 0
    assert bounds.f_measure(2, 4, 8) == pytest.approx(1 / 3)
    assert bounds.f_measure(0, 4, 3) == 0.0


def test_an_empty_pool_has_nothing_similar_and_an_empty_text_is_like_nothing() -> None:
    assert RougeIndex().most_similar("a b") == []
    assert rouge.filter([]).kept.tolist() == []
    assert rouge.filter(["", "?!", ""]).kept.tolist() == [True, True, True]
    for text in ("", "?!"):
        assert index("", "a b").most_similar(text) == [Neighbour("k0", "", 0.0)]


def test_a_rejected_text_is_not_admitted() -> None:
    found = index("write a poem about rain")
    for _ in range(2):
        dropped = verdict(found, "Write a poem about rain!")
        assert dropped == Neighbour("k0", "write a poem about rain", 1.0)
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
    assert verdict(found, SOUP) is None
    dropped = verdict(found, "请写一首关于春天的诗。")
    assert dropped is not None and dropped.key == "k0" and len(found) == 2


def test_mixed_text_keeps_both_kinds_of_tokens_in_order() -> None:
    tokens = tokenize("用Python 3写排序，sort it!")
    assert [t for t in tokens if t.isascii()] == ["python", "3", "sort", "it"]
    assert "".join(tokens) == "用python3写排序sortit"
    assert tokens.index("用") < tokens.index("python") < tokens.index("写")


def test_japanese_and_korean_are_not_empty() -> None:
    assert tokenize("猫について書いて", CHARACTERS) == list("猫について書いて")
    assert tokenize("고양이 cat") == ["고", "양", "이", "cat"]
    assert rouge.filter(
        ["猫について詩を書いて", "猫について詩を書いて。", "犬の名前を三つ挙げて"]
    ).kept.tolist() == [True, False, True]


def test_chinese_may_be_cut_into_characters() -> None:
    assert tokenize("写一首诗abc", CHARACTERS) == ["写", "一", "首", "诗", "abc"]
    pair = [POEM, "写一首关于秋天的诗。"]
    # nine characters each, eight in common: 8/9; of the words fewer
    assert rouge.filter(pair, 0.88, cjk=CHARACTERS).scores.tolist() == [0.0, pytest.approx(8 / 9)]
    assert rouge.filter(pair, 0.88).kept.all()


@given(st.lists(st.one_of(TEXTS, st.text(st.sampled_from("写诗a 1か가\U00020bb7"), max_size=9)), max_size=8))
def test_texts_encoded_together_have_the_tokens_of_each_alone(texts: list[str]) -> None:
    vocabulary = Vocabulary()
    together, starts = vocabulary.encode(texts)
    alone = [tokenize(text) for text in texts]
    assert np.diff(starts).tolist() == [len(tokens) for tokens in alone]
    assert [vocabulary.tokens[number] for number in together] == [t for tokens in alone for t in tokens]

"""Shared n-grams: the same answers as sets of tuples give, in English and Chinese, whatever the hash does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup import ngrams
from pipeline.dedup.ngrams import NgramIndex
from pipeline.dedup.tokens import CHARACTERS, WORDS, tokenize

WORD = st.sampled_from(["a", "b", "c", "Don't", "天气", "很好", "我们", "テ", "한", "İs", "…", "𠀀", "x9"])
TEXT = st.lists(WORD, max_size=14).map(" ".join)
EN = "The quick brown fox jumps over the lazy dog while seven wizards watch from the old stone bridge."
ZH = "请根据下面这段材料，概括作者对城市交通问题的主要看法，并说明他提出了哪些具体的解决办法。"


def grams(text: str, size: int, cjk: str = WORDS) -> list[tuple[str, ...]]:
    """The n-grams of a text; a shorter text is one by itself, marked as such."""
    tokens = tokenize(text, cjk)
    if len(tokens) < size:
        return [("whole", *tokens)] if tokens else []
    return [tuple(tokens[i : i + size]) for i in range(len(tokens) - size + 1)]


def naive(held: Sequence[str], texts: Sequence[str], size: int, cjk: str) -> dict[int, set[int]]:
    """For each text that shares an n-gram, the held-out texts with which it does."""
    sets = [set(grams(text, size, cjk)) for text in held]
    found = {}
    for row, text in enumerate(texts):
        ours = set(grams(text, size, cjk))
        if owners := {number for number, theirs in enumerate(sets) if ours & theirs}:
            found[row] = owners
    return found


@pytest.mark.parametrize("collide", [False, True], ids=["hashed", "all hashes equal"])
@given(
    st.lists(TEXT, max_size=6),
    st.lists(TEXT, max_size=6),
    st.integers(1, 5),
    st.sampled_from([WORDS, CHARACTERS]),
)
@settings(max_examples=150, deadline=None)
def test_what_is_found_is_what_sets_of_tuples_find(
    collide: bool, held: list[str], texts: list[str], size: int, cjk: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if collide:
            true = ngrams._hashes
            patch.setattr(ngrams, "_hashes", lambda tokens, size: true(tokens, size) * np.uint64(0))
        found = NgramIndex(held, size, cjk=cjk).find(texts)
    expected = naive(held, texts, size, cjk)
    assert set(found) == set(expected)
    for row, overlap in found.items():
        assert overlap.held in expected[row]
        assert 0 < overlap.share <= 1


@given(TEXT, st.lists(TEXT, max_size=4), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_spans_are_maximal_and_lie_in_the_text(text: str, held: list[str], size: int) -> None:
    overlap = NgramIndex(held, size).find([text]).get(0)
    if overlap is None:
        return
    known = set(grams(held[overlap.held], size))
    if len(tokenize(text)) < size:
        assert overlap.spans == (text.strip(),)
        return
    shown = text if len(text.lower()) == len(text) else text.lower()
    assert all(span in shown for span in overlap.spans)
    covered = [i for i, gram in enumerate(grams(text, size)) if gram in known]
    tokens = {j for i in covered for j in range(i, i + size)}  # tokens of the text inside shared n-grams
    assert sum(len(tokenize(span)) for span in overlap.spans) == len(tokens)
    breaks = sum(j + 1 not in tokens for j in tokens)
    assert len(overlap.spans) == breaks


@pytest.mark.parametrize("size", [8, 13])
@pytest.mark.parametrize(
    ("held", "before", "after"), [(EN, "Tell me: ", " Why?"), (ZH, "题目：", "谢谢你的帮助。")]
)
def test_a_held_out_text_inside_another_is_found_whole(held: str, before: str, after: str, size: int) -> None:
    overlap = NgramIndex(["Nothing of this. 没有关系。", held], size).find(
        ["A clean row. 干净。", before + held + after]
    )[1]
    assert (overlap.held, overlap.share) == (1, 1.0)
    assert overlap.spans == (held.rstrip(".。"),)


@pytest.mark.parametrize(("text", "cut"), [(EN, " "), (ZH, "")])
def test_one_word_less_than_the_size_is_not_enough(text: str, cut: str) -> None:
    tokens = tokenize(text)
    held = (
        cut.join(tokens[:13]) + "。 Unrelated words of some length follow this passage 这里还有别的内容不同"
    )
    assert tokenize(held)[:13] == tokens[:13]
    row = "Something else begins 完全不同的开头。" + cut.join(tokens[:12]) + "。 zzz 结尾又不一样了吧"
    assert NgramIndex([held], 13).find([row]) == {}
    assert NgramIndex([held], 12).find([row])[0].spans == (cut.join(tokens[:12]),)


def test_two_shared_passages_are_two_spans_and_their_share_is_of_the_held_out_text() -> None:
    held = "one two three four five six seven eight nine ten"  # 10 tokens
    row = "Well, one two three FOUR! And then seven, eight, nine."
    overlap = NgramIndex([held], 3).find([row])[0]
    assert overlap.spans == ("one two three FOUR", "seven, eight, nine")
    assert overlap.share == 0.7  # four and three of the ten tokens


def test_the_text_with_most_shared_ngrams_is_named_the_first_of_equals() -> None:
    held = ["a b c d", "a b c x y z", "a b c d"]
    found = NgramIndex(held, 3).find(["a b c d", "b c x y z", "b c d"])
    assert [found[i].held for i in range(3)] == [0, 1, 0]


@pytest.mark.parametrize(
    ("text", "other"), [("Name a colour.", "Name a colour now."), ("写一首诗。", "写一首长诗。")]
)
def test_short_texts_are_compared_whole(text: str, other: str) -> None:
    index = NgramIndex([text, "", "!!!"], 13)
    found = index.find([text.upper(), other, "", "???", f"{text} {other}"])
    assert {row: overlap.spans for row, overlap in found.items()} == {0: (text.upper(),)}
    assert len(index) == 0


def test_ngrams_do_not_run_from_one_text_into_the_next() -> None:
    index = NgramIndex(["a b c", "d e f"], 3)
    assert len(index) == 2
    assert set(index.find(["b c d", "a b c", "c d e", "d e f"])) == {1, 3}


def test_repeated_ngrams_are_stored_once() -> None:
    assert len(NgramIndex(["a b a b a b", "a b a"], 2)) == 2


def test_characters_can_be_counted_instead_of_words() -> None:
    held, row = "今天天气很好", "我说今天天气不坏"  # four characters in common, two jieba words
    assert 0 not in NgramIndex([held], 4).find([row])
    assert NgramIndex([held], 4, cjk=CHARACTERS).find([row])[0].spans == ("今天天气",)

"""The hash table that numbers tokens: the same numbers as a dict gives, collisions included."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dedup.tokens import CHARACTERS, WORDS, tokenize
from pipeline.dedup.vocabulary import Vocabulary

MIX, ALL = 0x9E3779B97F4A7C15, (1 << 64) - 1
TEXTS = st.lists(
    st.one_of(
        st.text(alphabet="ab9 .,\0\nÉΣ猫坐かナ한😀", max_size=40),
        st.text(alphabet="ab", min_size=7, max_size=50),
        st.text(max_size=30),
    ),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, max_size=3), st.sampled_from([WORDS, CHARACTERS]))
def test_numbers_are_those_of_a_dict(batches: list[list[str]], cjk: str) -> None:
    vocabulary, known = Vocabulary(cjk), dict[str, int]()
    for texts in batches:
        numbers, starts = vocabulary.encode(texts)
        expected = [[known.setdefault(t, len(known)) for t in tokenize(text, cjk)] for text in texts]
        assert starts.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
        assert numbers.tolist() == [number for text in expected for number in text]
    assert vocabulary.tokens == list(known) and len(vocabulary) == len(known)


def test_it_grows_in_tokens_and_in_letters_and_takes_many_texts() -> None:
    words = [f"{'x' * (i % 70)}{i}" for i in range(30_000)]
    vocabulary = Vocabulary()
    numbers, starts = vocabulary.encode([" ".join(words[:5000]), *words[5000:], "猫坐在垫子上"])
    assert numbers[:30_000].tolist() == list(range(30_000))
    assert starts[:3].tolist() == [0, 5000, 5001]
    assert vocabulary.tokens[:30_000] == words
    assert vocabulary.encode(words[::-1])[0].tolist() == list(range(29_999, -1, -1))


def mixed(word: int) -> int:
    return ((word ^ (word >> 32)) * MIX) & ALL


@pytest.mark.parametrize("short", [True, False])
def test_tokens_of_one_hash_stay_apart(short: bool) -> None:
    """Letters that no text has, made so that the hashes are equal."""
    first, second = (int.from_bytes(word, "little") for word in (b"instruct", b"evaluate"))
    other = int.from_bytes(b"language", "little")
    colliding = mixed(first) ^ (other if short else mixed(second) ^ other)
    one = b"instruct" + colliding.to_bytes(8, "little")
    two = b"language" if short else b"evaluatelanguage"
    text = one + two + one + two + b" " * 8
    ends = np.cumsum([len(one), len(two), len(one), len(two)])
    words = np.ndarray((len(text) - 7,), np.uint64, text, strides=(1,))
    vocabulary = Vocabulary()
    assert vocabulary._number(words, np.concatenate([[0], ends[:-1]]), ends).tolist() == [0, 1, 0, 1]
    assert vocabulary._hashes[0] == vocabulary._hashes[1]

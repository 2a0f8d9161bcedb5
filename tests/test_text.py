"""Units are words of alphabetic scripts and single Chinese characters, wherever they stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.text import CJK, cjk_share, collapse, length, units

LETTERS = st.text(st.sampled_from(list("aZ9é中㐀豈𠀀 ,。'-_的\n")), max_size=20)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Don't re-use it!", ["don't", "re-use", "it"]),
        ("它’s 3.5", ["它", "s", "3", "5"]),
        ("写一首诗。", ["写", "一", "首", "诗"]),
        ("用Python写", ["用", "python", "写"]),
        ("Python写code", ["python", "写", "code"]),
        ("a𠀀b豈c㐀d", ["a", "𠀀", "b", "豈", "c", "㐀", "d"]),
        ("naïve Übung", ["naïve", "übung"]),
        ("", []),
        ("…，。!? \n", []),
    ],
)
def test_words_and_characters_are_units(text: str, wanted: list[str]) -> None:
    assert units(text) == wanted
    assert length(text) == len(wanted)


def test_the_share_of_chinese_counts_units() -> None:
    assert cjk_share("写一首 poem") == 0.75  # three characters, one word
    assert cjk_share("a poem") == 0 == cjk_share("") == cjk_share("?!")
    assert cjk_share("诗") == 1


@given(LETTERS)
def test_every_chinese_character_is_a_unit_of_its_own(text: str) -> None:
    found = units(text)
    assert [u for u in found if CJK.search(u)] == CJK.findall(text)
    assert 0 <= cjk_share(text) <= 1


@given(LETTERS)
def test_collapsing_leaves_one_line_with_single_spaces_and_the_same_units(text: str) -> None:
    line = collapse(text)
    assert "\n" not in line and "  " not in line and line == line.strip() == collapse(line)
    assert units(line) == units(text)

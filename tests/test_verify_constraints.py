"""Every check has a passing and a failing answer, in English and in Chinese where it applies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.verify.checks import CHECKS
from pipeline.verify.counting import num_sentences, words
from pipeline.verify.verifier import Check, parse, verify

AT_LEAST, LESS = "at least", "less than"
Case = tuple[str, dict[str, Any], str, str]


def checked(name: str, arguments: dict[str, Any], answer: str) -> Check:
    verifier = parse({"kind": "constraints", "checks": [{"id": name, **arguments}]}, "here")
    (check,) = verify(verifier, answer).checks
    assert check.id == name and check.evidence
    return check


# (check, arguments, an answer that passes, one that fails)
ENGLISH: list[Case] = [
    # a keyword may stand inside of a word ("cat" in "Category")
    ("keywords:existence", {"keywords": ["cat", "dog"]}, "Category: DOG.", "A cat."),
    (
        "keywords:frequency",
        {"relation": AT_LEAST, "keyword": "row", "frequency": 3},
        "Row, row, row!",
        "Row row",
    ),
    ("keywords:frequency", {"relation": LESS, "keyword": "row", "frequency": 2}, "Row on.", "Row, row."),
    ("keywords:forbidden_words", {"forbidden_words": ["game"]}, "Two gamers play.", "It is a GAME."),
    ("keywords:forbidden_words", {"forbidden_words": ["C++"]}, "I like C.", "I like C++ a lot."),
    (
        "keywords:letter_frequency",
        {"let_relation": AT_LEAST, "letter": "S", "let_frequency": 3},
        "Ssss",
        "Sea s",
    ),
    ("keywords:letter_frequency", {"let_relation": LESS, "letter": "q", "let_frequency": 1}, "none", "Quite"),
    (
        "language:response_language",
        {"language": "es"},
        "Me gusta mucho el color azul porque es el color del mar y del cielo.",
        "I like the colour blue because it is the colour of the sea.",
    ),
    (
        "language:response_language",
        {"language": "en"},
        "This is what you asked for and it is in English.",
        "Das ist ein deutscher Satz, der sehr eindeutig auf Deutsch geschrieben wurde.",
    ),
    (
        "length_constraints:number_sentences",
        {"relation": LESS, "num_sentences": 3},
        "One. Two.",
        "A. b! c? d",
    ),
    ("length_constraints:number_sentences", {"relation": "exactly", "num_sentences": 2}, "One! two?", "One"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n\n***\n\nTwo.", "One.\n\nTwo."),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        "***\nOne\n***\nTwo\n***",
        "One\n***\n***\nTwo",
    ),
    # don't: two words, as IFEval counts; so 4 and 5
    (
        "length_constraints:number_words",
        {"relation": "at most", "num_words": 4},
        "I don't know.",
        "I don't know it.",
    ),
    ("length_constraints:number_words", {"relation": AT_LEAST, "num_words": 3}, "one two three", "one two"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "but"},
        'It was fine.\n\n"But, then" it rained.',
        "It was fine. But then\n\nit rained.",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": "Once"},
        "Once, there was a fox.",
        "Once there was\n\na fox.",  # two paragraphs
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [date]", "Dear [name]"),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        "Bye!\np. s. Call me",
        "Bye! PS call me",
    ),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P.P.S more", "P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b\n**c**", "* a\n- b\n- c"),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2, "relation": AT_LEAST},
        "- a\n  - b\n- c",
        "- a",
    ),
    ("detectable_format:constrained_response", {}, "Well. My answer is no.", "My answer is No"),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        "*a* and **b**",
        "**a** ** ** *b",
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        "Section one\na\nSection 2",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', '{"a": 1} is the JSON'),
    ("detectable_format:title", {}, "<<Fog>>\nGrey.", "<< >>\n<Fog>"),
    ("combination:two_responses", {}, "Red.\n******\nBlue.", "Red.\n******\nRed."),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Why? "}, "why? Because.", "You ask: Why? Because."),
    ("startend:end_checker", {"end_phrase": "The end."}, 'So it was. the END."', "The end. Or not"),
    ("startend:quotation", {}, ' "All of it." ', 'He said "this".'),
    # NASA and U.S. are in capitals, and so is A
    (
        "change_case:capital_word_frequency",
        {"capital_relation": AT_LEAST, "capital_frequency": 3},
        "A NASA probe of the U.S.",
        "A Nasa probe of the U.S.",
    ),
    ("change_case:english_capital", {}, "THIS IS WHAT THE SEA IS.", "THIS is what the sea is."),
    ("change_case:english_lowercase", {}, "this is what the sea is.", "This is what the sea is."),
    ("punctuation:no_comma", {}, "Red and blue", "Red, blue"),
]
CHINESE: list[Case] = [
    ("keywords:existence", {"keywords": ["春天"]}, "春天来了。", "夏天来了。"),
    (
        "keywords:frequency",
        {"relation": AT_LEAST, "keyword": "努力", "frequency": 2},
        "努力，再努力。",
        "努力。",
    ),
    ("keywords:forbidden_words", {"forbidden_words": ["因为"]}, "所以下雨。", "他说因为下雨。"),
    ("keywords:forbidden_words", {"forbidden_words": ["Go"]}, "我们去Google吧", "大家说Go吧"),
    (
        "keywords:letter_frequency",
        {"let_relation": AT_LEAST, "letter": "水", "let_frequency": 2},
        "水水",
        "水",
    ),
    ("language:response_language", {"language": "zh"}, "这是中文。", "This is English text."),
    ("language:response_language", {"language": "en"}, "This is what I wrote to you.", "这是中文。"),
    (
        "length_constraints:number_sentences",
        {"relation": "exactly", "num_sentences": 2},
        "花开了。“真美！”",
        "花。",
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "甲。\n***\n乙。", "甲。\n\n乙。"),
    # three characters and one word of letters: 4; five and one: 6
    (
        "length_constraints:number_words",
        {"relation": "at most", "num_words": 5},
        "我会用Python。",
        "我很会用Python写",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "然而"},
        "夜市好。\n\n“然而”太吵。",
        "夜市好。\n\n可是然而太吵。",
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        "【姓名】和[日期]",
        "（姓名）和[日期]",
    ),
    ("detectable_content:postscript", {"postscript_marker": "附言"}, "再见。\n附言：带伞。", "再见。带伞。"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "• 早睡\n• 早起", "早睡、早起"),
    ("detectable_format:constrained_response", {}, "我的答案是:否。", "我觉得是。"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "这是**重点**。", "这是重点。"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "部分", "num_sections": 2},
        "第一部分：东。第2部分：西。",
        "第一部分：东。",
    ),
    ("detectable_format:json_format", {}, '{"书名": "围城"}', "书名：围城"),
    ("detectable_format:title", {}, "《《山》》\n青。", "《山》\n青。"),
    ("combination:two_responses", {}, "红\n******\n蓝", "红\n***\n蓝"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "为什么？"}, "为什么？因为。", "因为。"),
    ("startend:end_checker", {"end_phrase": "祝好！"}, "保重。“祝好！”", "祝好！再见。"),
    ("startend:quotation", {}, "“都在里面。”", "“不都”在里面。"),
    ("startend:quotation", {}, "「都在里面。」", "「不都在里面。"),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": AT_LEAST, "capital_frequency": 1},
        "来吧GO吧",
        "来吧go吧",
    ),
    ("change_case:english_capital", {}, "THE SEA IS WHAT IT IS.", "这是中文。"),
    ("change_case:english_lowercase", {}, "the sea is what it is.", "这是中文。"),
    # the mark that lists things is no comma
    ("punctuation:no_comma", {}, "红、蓝和绿。", "红，蓝。"),
]


@pytest.mark.parametrize(("name", "arguments", "passing", "failing"), [*ENGLISH, *CHINESE])
def test_each_check_tells_a_passing_from_a_failing_answer(
    name: str, arguments: dict[str, Any], passing: str, failing: str
) -> None:
    good, bad = checked(name, arguments, passing), checked(name, arguments, failing)
    assert good.passed, good.evidence
    assert not bad.passed, bad.evidence


def test_every_check_is_tried_in_both_languages() -> None:
    assert len(CHECKS) == 25
    assert {case[0] for case in ENGLISH} == set(CHECKS)
    assert {case[0] for case in CHINESE} == set(CHECKS)


@pytest.mark.parametrize(("name", "arguments"), [case[:2] for case in ENGLISH])
def test_an_empty_answer_passes_nothing(name: str, arguments: dict[str, Any]) -> None:
    check = checked(name, arguments, " \n")
    assert (check.passed, check.evidence) == (False, "the answer is empty")


@pytest.mark.parametrize(
    ("relation", "passes"),
    [
        ("less than", "yes no no"),
        ("at most", "yes yes no"),
        ("at least", "no yes yes"),
        ("exactly", "no yes no"),
    ],
)
def test_a_relation_holds_below_at_and_above_the_number(relation: str, passes: str) -> None:
    arguments = {"relation": relation, "num_words": 2}
    found = [
        checked("length_constraints:number_words", arguments, text).passed for text in ("a", "a b", "a b c")
    ]
    assert ["yes" if passed else "no" for passed in found] == passes.split()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Dr. Lee paid 2.50 at 5 p.m. for it.", 1),  # a title, a decimal, an abbreviation that goes on
        ("He left at 5 p.m. She stayed.", 2),  # the same abbreviation at an end
        (
            "1. Wash it. 2. Dry it.",
            3,
        ),  # "2." in a line is a sentence to punkt too; at a line's start it is none
        ("1. Wash it.\n2. Dry it.", 2),
        ("all small. no capitals! none", 3),  # the case of what follows does not count
        ("Wait... what? Yes.", 2),
        ("第一句。第二句！“第三句？”", 3),
        ("没有句号", 1),
        ("...", 0),
    ],
)
def test_sentences_are_counted(text: str, number: int) -> None:
    assert num_sentences(text) == number


def test_words_are_letters_and_digits_in_english_and_characters_in_chinese() -> None:
    assert words("It's 3.5 km") == ["It", "s", "3", "5", "km"]
    assert words("我用Python3写") == ["我", "用", "Python3", "写"]


@pytest.mark.parametrize(
    ("code", "text", "passes"),
    [
        ("hi", "यह एक वाक्य है", True),
        ("hi", "This is a sentence", False),
        ("fi", "Tämä on suomenkielinen lause, joka kertoo kevään tulosta ja järvistä.", True),
        ("fi", "This is an English sentence about the lakes and the spring of the year.", False),
        ("ru", "Это предложение на русском языке.", True),
        ("fr", "The cat sat on the mat today.", False),
    ],
)
def test_languages_beyond_english_and_chinese_are_told(code: str, text: str, passes: bool) -> None:
    assert checked("language:response_language", {"language": code}, text).passed is passes


@given(st.text(max_size=60))
def test_no_answer_makes_a_check_raise(answer: str) -> None:
    for name, arguments, _, _ in [*ENGLISH, *CHINESE]:
        if "language" not in name and "english" not in name:  # lingua is slow, and is tested by itself
            assert isinstance(checked(name, arguments, answer).passed, bool)

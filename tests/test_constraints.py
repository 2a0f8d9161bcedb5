"""Limits that can be counted are met and missed, in English and in Chinese, and our seeds keep theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.stages.constraints import num_items, sentences, unmet_constraint
from pipeline.stages.numbers import value
from pipeline.stages.seeds import load_seeds
from pipeline.stages.words import EVIDENCE

ROOT = Path(__file__).resolve().parents[1]
LONG = "The sun rises in the east and it sets in the west every single day of the year without fail."  # 20
FOUR = "The sun is hot. The moon is cold. The stars are far away. Rain falls."
LANG = "春天来了，花都开了，小河解冻了，人们走出家门去郊外踏青，孩子们放着风筝，欢声笑语传遍田野。"  # 39


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        ("What is love? Respond with a question.", "Love is kind."),
        ("Turn the sentence into a question.", "He is old."),
        ("Describe the sun in 5 words.", LONG),
        ("Describe the sun in exactly six words.", LONG),
        ("Describe the sun in at most ten words.", LONG),
        ("Summarize it in under 10 words.", LONG),
        ("Explain the sky in 10 words or less.", LONG),
        ("Write a story of at least 100 words.", LONG),
        ("Write an essay with more than 200 words about the sun.", LONG),
        ("Describe the sun in 50 to 70 words.", LONG),
        ("Describe the sky in one sentence.", FOUR),
        ("Explain the sky in exactly two sentences.", FOUR),
        ("Write at least five sentences about rain.", LONG),
        ("List five fruits.", "apple and pear"),
        ("Name 3 rivers.", "The Nile"),
        ("Give me ten tips for sleeping well.", "1. Sleep early.\n2. Read."),
        ("Suggest three good names for a dog.", "Rex"),
        ("Could you list three big cities?", "Paris"),
        ("Name three things that can only be found on a mountain.", "1. The Great Barrier Reef"),
        ("用问句回答：天为什么蓝？", "因为散射。"),
        ("把句子改成反问句。", "他是好人。"),
        ("用五个字形容春天。", LANG),
        ("恰好用十个字介绍春天。", LANG),
        ("描写春天，不超过十字。", LANG),
        ("二十字以内介绍春天。", LANG),
        ("写一篇至少200字的作文。", LANG),
        ("写一段五十字左右的介绍。", "长江很长。"),
        ("写一段60到90字的介绍。", LANG),
        ("用一句话形容春天。", "春天来了。花开了。天暖了。"),
        ("至少写五句话介绍春天。", "春天来了。"),
        ("恰好三句话介绍春天。", "春天来了。"),
        ("列出5条建议。", "1. 早睡\n2. 早起"),
        ("列举三个水果。", "苹果"),
        ("请说出三种颜色。", "红色"),
    ],
)
def test_an_unmet_limit_is_a_drop_with_evidence(instruction: str, output: str) -> None:
    drop = unmet_constraint(instruction, output)
    assert drop is not None and drop.reason == "unmet_constraint"
    assert drop.evidence and len(drop.evidence) <= EVIDENCE
    assert unmet_constraint(instruction, output, is_classification=True) is None


@pytest.mark.parametrize(
    ("instruction", "output"),
    [
        # met, or nearly
        ("What is love? Respond with a question.", "What would we be without it?"),
        ("Turn the sentence into a question.", "Is he old?"),
        ("Describe the sun in 5 words.", "Hot, bright, round, far, golden star"),
        ("Describe the sun in exactly 19 words.", LONG),
        ("Describe the sun in at most 18 words.", LONG),
        ("Write at least 22 words.", LONG),
        ("Describe the sky in one sentence.", "Dr. Smith said at 5 p.m. the sky is, e.g., blue."),
        ("List five fruits.", "apple, pear, plum, fig and kiwi"),
        ("List ten animals.", "dog, cat, cow, pig, hen, goat, ox, ass"),
        ("Name two people.", "Ann and Bob"),
        ("Write two or three names.", "Ann, Bob"),
        ("Give three reasons why we sleep.", "Sleep restores the body, helps memory, and lifts our mood."),
        ("Give two examples of irony.", "A fire station burns. A pilot fears heights."),
        ("Find two numbers whose sum is 10.", "4 and 6"),
        ("用五个字形容春天。", "春暖花开呀"),
        ("二十字以内介绍春天。", "春天来了，花都开了。"),
        ("列举三个水果。", "苹果、梨和桃"),
        ("列出三种颜色。", "1. 红\n2. 黄\n3. 蓝"),
        ("用问句回答：天为什么蓝？", "难道不是散射吗？"),
        ("恰好三句话介绍春天。", "春天来了。花开了。天暖了。"),
        # a limit for a part, or none at all
        ("Describe it in your own words.", LONG),
        ("List three animals and describe each in 5 words.", f"1. Dog: {LONG}\n2. Cat\n3. Cow"),
        ("Explain the rule, and give an example in one sentence.", FOUR),
        ("Write a story with a title of at most 3 words.", FOUR),
        ("Which word has more than 10 letters?", "Encyclopedia"),
        ("Name the three-time champion.", "Ali"),
        ("Give a 5 minute speech.", "Hello."),
        ('Explain the advice "list three things".', "Ask for a list."),
        ("Translate the text: describe it in 3 words", LONG),
        ("Return a list of at least 100 words as JSON.", '["a", "b"]'),
        ("用三个词语造句。", "我爱春天。"),
        ("给三个孩子写一封信。", "你们好！"),
        ("写一首诗，每行七个字。", LANG),
        ("说出两个月里发生的事。", "下雨了。"),
        ("“用五个字回答”是什么意思？", LANG),
        ("解释这四个字的意思。", LANG),
    ],
)
def test_a_limit_that_is_met_or_not_clear_drops_nothing(instruction: str, output: str) -> None:
    assert unmet_constraint(instruction, output) is None


@pytest.mark.parametrize("language", ["en", "zh"])
def test_our_seeds_keep_their_limits(language: str) -> None:
    seeds = [s for s in load_seeds([str(ROOT / "seeds")]) if s.language == language]
    assert seeds
    for seed in seeds:
        for instance in seed.instances:
            assert unmet_constraint(seed.instruction, instance.output) is None, seed.id


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("1,200", 1200),
        ("twelve", 12),
        ("十", 10),
        ("十二", 12),
        ("两百", 200),
        ("一百二十", 120),
        ("x", 0),
    ],
)
def test_numbers_are_read_in_digits_english_and_chinese(text: str, number: int) -> None:
    assert value(text) == number


def test_items_and_sentences_are_counted_generously() -> None:
    assert num_items("1. The Great Barrier Reef") == 1
    assert num_items("- one\n- two\n- three") == 3
    assert num_items("1. red 2. blue 3. green") == 3
    assert num_items("red, blue and green") == 3
    assert num_items("红、黄和蓝") == 3
    assert sentences("Mr. Lee paid 2.50. He left.") == (2, 3)  # surely two; the point of 2.50 may be an end
    assert sentences("花开了。天暖了！") == (2, 2)
    assert sentences("") == (1, 1)


@pytest.mark.parametrize(
    ("instruction", "output", "dropped"),
    [
        ("Is the following review positive or negative?", "Your product is too expensive.", True),
        ("Is the following review positive or negative?", "It sounds negative.", False),
        (
            "Classify the following review as good or bad: The sentence is too long.",
            "It is 15 words long.",
            True,
        ),
        ("Decide whether the message is polite or rude.", "He is 32 years old.", True),
        ("Decide whether the message is polite or rude.", "Politely put.", False),
        ("Is tea or coffee better in the morning, and why?", "Both wake you up.", False),
        ("判断这条评论是好评还是差评。", "这家店在街角。", True),
        ("判断这条评论是好评还是差评。", "这是一条差评。", False),
    ],
)
def test_a_choice_between_two_words_is_answered_by_one(instruction: str, output: str, dropped: bool) -> None:
    drop = unmet_constraint(instruction, output)
    assert (drop is not None) is dropped
    assert drop is None or drop.evidence.startswith("neither ")


@pytest.mark.parametrize(
    ("instruction", "output", "problem"),
    [
        ("Give three reasons to read.", "1. Joy\n2. Calm\n3. Words\n4. Sleep", "4 of 3 items"),
        ("List two fruits.", "1. apple 2. pear 3. plum", "3 of 2 items"),
        ("列出两条河流。", "1、长江\n2、黄河\n3、珠江", "3 of 2 items"),
        ("Give three reasons to read.", "1. Joy\n2. Calm\n3. Words", None),
        ("Give at least three reasons to read.", "1. Joy\n2. Calm\n3. Words\n4. Sleep", None),
        ("至少列出两条河流。", "1、长江\n2、黄河\n3、珠江", None),
        ("List two years.", "1. In 1998, when 4. May was hot.\n2. In 2003.", None),
        ("What are two ways to rest?", "Try this:\n\n- Sleep\n- Read\n- Walk", "3 of 2 items"),
        ("Name two ways to rest.", "Try this:\n\n* Sleep\n* Read\n* Walk", "3 of 2 items"),
        ("说出两种水果。", "• 苹果\n• 梨\n• 桃", "3 of 2 items"),
        ("Share two tips.", "Sleep:\n- early\n- long\n\nEat:\n- fruit\n- bread", None),
    ],
)
def test_more_listed_items_than_were_asked_for_are_too_many(
    instruction: str, output: str, problem: str | None
) -> None:
    drop = unmet_constraint(instruction, output)
    assert (drop.evidence.startswith(problem) if drop and problem else drop) == (True if problem else None)

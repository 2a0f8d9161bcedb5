"""What points at something that is not there, in English and in Chinese, and what only looks like it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.stages.references import lacks_second_text, refers_to_input
from pipeline.stages.seeds import load_seeds
from pipeline.stages.words import load_words

ROOT = Path(__file__).resolve().parents[1]
WORDS = {language: load_words(ROOT / "prompts" / language / "words.yaml") for language in ("en", "zh")}


@pytest.mark.parametrize(
    ("language", "instruction"),
    [
        ("en", "Create a recipe for this dish."),
        ("en", 'What does the word "world" mean in this context?'),
        ("en", "Create a slogan for the national anthem of the country where this is from."),
        ("en", "Does the following sentence have the same grammatical structure as the previous sentence?"),
        ("en", "Write a title for these phrases."),
        ("en", "You are a chef. Create a recipe for this dish."),
        ("en", "As a doctor, how would you treat this patient?"),
        ("en", "Which headline fits this news paragraph? At most eight words."),
        ("en", "Can you make this more concise? It should keep every single fact."),
        ("en", "Is this sentence correct? Rewrite the whole sentence in the past tense."),
        ("en", "Given a sentence and a number, shorten the sentence to it."),
        ("zh", "写出这道菜的做法。"),
        ("zh", "“世界”在这个语境中是什么意思？"),
        ("zh", "请解释这些短语。"),
        ("zh", "你是一位厨师。请写出这道菜的做法。"),
        ("zh", "此句有无语病？答有或无。"),
        ("zh", "下面的句子和上一句结构相同吗？"),
        ("zh", "这句话通顺吗？请把它改成一句更地道的中文。"),
    ],
)
def test_a_pointer_at_nothing_needs_an_input(language: str, instruction: str) -> None:
    assert refers_to_input(instruction, WORDS[language])


@pytest.mark.parametrize(
    ("language", "instruction"),
    [
        # time, the world, pronouns
        ("en", "Who won the most medals this year?"),
        ("en", "What should I cook this coming weekend for six friends?"),
        ("en", "What is the best way to live in this world?"),
        ("en", "How did those who lived in caves cook?"),
        ("en", "How does this affect sleep?"),
        ("zh", "这个周末做什么好？"),
        ("zh", "如何让这个世界变得更好？"),
        ("zh", "这段时间怎样保持健康？"),
        ("zh", "这么热的天该喝什么？"),
        # said before
        ("en", "Describe a dish from Italy and explain how to cook this dish."),
        ("en", "I have a cat that hates cars. How do I make this trip easy?"),
        ("en", "Write a sentence about rain, then translate this sentence into French."),
        ("en", 'What does "break a leg" mean, and where does this phrase come from?'),
        ("en", "You are the mayor of a small town that was flooded last night. How do you meet this crisis?"),
        ("en", "If rice turns sticky, what causes this problem?"),
        ("en", "Why do so many tourists visit Paris during this festival?"),
        ("en", "Write a poem in which each line begins with the last word of the previous line."),
        ("zh", "我家的猫怕坐车，这个问题怎么解决？"),
        ("zh", "春节这个节日是怎么来的？"),
        ("zh", "写一道菜的菜谱，并说明这道菜的来历。"),
        # said behind
        ("en", "Create a recipe for this dish: ratatouille."),
        ("en", "Can you make this more concise? The food business is growing fast in our town."),
        ("en", "Can you make this text more formal? I cannot come today because I am ill."),
        ("en", "Fix this sentence. The dogs has ran home yesterday."),
        ("en", "Convert this equation 7x^2 + 2x = 0 into another form."),
        ("zh", "这句话通顺吗？我昨天去公园看见了很多好看的花。"),
        ("zh", "解释这个词语：守株待兔。"),
    ],
)
def test_what_is_known_or_said_needs_no_input(language: str, instruction: str) -> None:
    assert not refers_to_input(instruction, WORDS[language])


def test_two_texts_are_needed_where_a_previous_one_is_compared() -> None:
    both = "Does the following sentence have the same form as the previous sentence?"
    assert lacks_second_text(both, "The dog ran.")
    assert not lacks_second_text(both, "The dog ran. The cat sat.")
    assert not lacks_second_text("Shorten the following sentence.", "The dog ran.")
    assert lacks_second_text("下面的句子和上一句结构相同吗？", "小狗跑了。")
    assert not lacks_second_text("下面的句子和上一句结构相同吗？", "小狗跑了。小猫坐着。")
    assert not lacks_second_text("把下面的句子改短。", "小狗跑了。")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_seed_without_an_input_asks_for_one(language: str) -> None:
    seeds = [s for s in load_seeds([str(ROOT / "seeds")]) if s.language == language]
    alone = [s for s in seeds if not s.instances[0].input]
    assert alone and not [s.id for s in alone if refers_to_input(s.instruction, WORDS[language])]
    given = [s for s in seeds if s.instances[0].input]
    asks = sum(refers_to_input(s.instruction, WORDS[language]) for s in given)
    assert asks / len(given) > 0.5  # most point at their input; "Sort this organism" and the like do
    assert not [s.id for s in given for i in s.instances if lacks_second_text(s.instruction, i.input)]

"""Classification: both kinds shown, two ways to ask, and answers read by likelihood or by words."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from pipeline.engines.base import Response
from pipeline.records import Instance, SeedTask
from pipeline.stages.classify import (
    ask_request,
    classify_demonstrations,
    closed_question,
    compare_request,
    implausible,
    parse_classification,
    told_by_verb,
)
from pipeline.stages.prompts import Prompts
from pipeline.stages.seeds import load_seeds
from pipeline.stages.text import length
from pipeline.stages.words import load_words

ROOT = Path(__file__).resolve().parents[1]
SEEDS = load_seeds([str(ROOT / "seeds")])
WORDS = {language: load_words(ROOT / "prompts" / language / "words.yaml") for language in ("en", "zh")}
TASKS = {"en": "Is this review positive or negative?", "zh": "判断这条评论是正面还是负面。"}
SHOWN = {
    "en": [("Tell spam from ham.", True), ("Write a poem.", False)],
    "zh": [("判断对错。", True), ("写一首诗。", False)],
}


def says(text: str) -> Response:
    return Response(text, "stop", 1, 1)


def scores(*values: float) -> Response:
    return Response("", "score", 1, 0, values)


@pytest.mark.parametrize(
    "text",
    ["Yes", " yes.", '"Yes"', "YES, it is.", "**Yes**", "是", "是的。", "“是”", "是分类任务", "对", "对。"],
)
def test_a_yes_in_either_language_is_a_classification_task(text: str) -> None:
    assert parse_classification(says(text)) is True


@pytest.mark.parametrize(
    "text", ["No", " no.", "No, it is open.", "否", "否。", "不是", "不是的", "非分类任务"]
)
def test_a_no_in_either_language_is_another_task(text: str) -> None:
    assert parse_classification(says(text)) is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Maybe",
        "Yesterday",
        "Nothing",
        "Not sure",
        "It depends",
        "是否",
        "是不是",
        "对不起，我不知道",
        "非常难说",
        "也许",
    ],
)
def test_an_answer_that_is_neither_yes_nor_no_decides_nothing(text: str) -> None:
    assert parse_classification(says(text)) is None


def test_the_likelier_choice_wins_only_by_more_than_the_margin() -> None:
    # log p(yes) - log p(no) = -1 - (-3) = 2 nats
    assert parse_classification(scores(-1.0, -3.0)) is True
    assert parse_classification(scores(-1.0, -3.0), margin=1.9) is True
    assert parse_classification(scores(-1.0, -3.0), margin=2.0) is False
    assert parse_classification(scores(-3.0, -1.0)) is False
    assert parse_classification(scores(-1.0, -1.0)) is False


def test_likelihoods_are_used_before_the_text() -> None:
    assert parse_classification(Response("No", "score", 1, 1, (-1.0, -2.0))) is True


def test_an_instruction_unlikely_in_both_lists_is_implausible() -> None:
    # 7 words + 2, at best -45 nats: -5 nats a word
    asked = "is this review positive or negative please"
    drop = implausible(scores(-45.0, -70.0), asked, -4.0, math.inf)
    assert drop is not None
    assert (drop.reason, drop.evidence) == ("implausible", "-5.00 nats a unit < -4")
    assert implausible(scores(-70.0, -28.0), asked, -4.0, math.inf) is None
    # 4 characters + 2, at best -12 nats: -2 a character
    assert implausible(scores(-12.0, -13.0), "写一首诗", -4.0, math.inf) is None
    assert implausible(scores(-9.0, -9.0), "", -4.0, math.inf) is not None


def test_a_surprisal_over_the_limit_is_implausible() -> None:
    assert implausible(scores(-30.0, -70.0), TASKS["en"], 0.0, 30.0) is None
    drop = implausible(scores(-30.1, -70.0), TASKS["en"], 0.0, 30.0)
    assert drop is not None
    assert (drop.reason, drop.evidence) == ("implausible", "surprisal 30.1 nats > 30")


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.id)
def test_the_first_verb_never_says_what_a_seed_is_not(seed: SeedTask) -> None:
    assert told_by_verb(seed.instruction) in (None, seed.is_classification)


@pytest.mark.parametrize(
    ("instruction", "kind"),
    [
        ("Classify the following review as positive or negative.", True),
        ("Decide whether this message is spam.", True),
        ("Can you explain what this article is about?", False),
        ("Explain whether this is a question or a statement.", False),
        ("Is the following review positive or negative?", True),
        ("Is this true, and why or why not? Explain.", None),
        ("Name the colour of this car.", None),
        ("判断这句话的语气是正式还是随意。", True),
        ("请把下面的评论分类。", True),
        ("请解释什么是光合作用。", False),
        ("这句话是褒义还是贬义?", None),
    ],
)
def test_plain_first_words_tell_the_kind(instruction: str, kind: bool | None) -> None:
    assert told_by_verb(instruction) is kind


@pytest.mark.parametrize("language", ["en", "zh"])
def test_demonstrations_are_short_seeds_of_both_kinds_in_turn(language: str) -> None:
    seeds = [s for s in SEEDS if s.language == language]
    kind = {s.instruction: s.is_classification for s in seeds}
    shown = classify_demonstrations(random.Random(0), seeds, 20)
    assert [yes for _, yes in shown] == [True, False] * 4
    assert all(kind[text] is yes and length(text) <= 20 for text, yes in shown)
    assert shown == classify_demonstrations(random.Random(0), seeds, 20)


def test_demonstrations_stay_balanced_when_one_kind_is_rare() -> None:
    def seed(text: str, yes: bool) -> SeedTask:
        return SeedTask(text, text, (Instance("", "x"),), yes)

    seeds = [seed("only one", True), *(seed(f"open {i}", False) for i in range(9))]
    assert [yes for _, yes in classify_demonstrations(random.Random(0), seeds, 20)] == [True, False]
    assert classify_demonstrations(random.Random(0), seeds[1:], 20) == []


@pytest.mark.parametrize("language", ["en", "zh"])
def test_comparing_scores_the_task_as_the_next_item_of_either_list(language: str) -> None:
    task, shown = TASKS[language], SHOWN[language]
    request = compare_request(Prompts().get(language, "classify_list", "completion"), shown, task)
    assert request.prompt == ""
    (yes_list, yes_item), (no_list, no_item) = request.choices
    assert yes_item == no_item == f" {task}\n"
    assert yes_list.endswith(f"- {shown[0][0]}\n-") and shown[1][0] not in yes_list
    assert no_list.endswith(f"- {shown[1][0]}\n-") and shown[0][0] not in no_list


@pytest.mark.parametrize(
    ("language", "style", "choices"),
    [
        ("en", "chat", ("Yes", "No")),
        ("en", "completion", (" Yes", " No")),
        ("zh", "chat", ("是", "否")),
        ("zh", "completion", ("是", "否")),
    ],
)
def test_asking_offers_yes_first_and_a_space_only_where_words_have_one(
    language: str, style: str, choices: tuple[str, str]
) -> None:
    prompt = Prompts().get(language, "classify", style)
    scored = ask_request(prompt, SHOWN[language], TASKS[language], language, can_score=True)
    assert scored.choices == (("", choices[0]), ("", choices[1]))
    drawn = ask_request(prompt, SHOWN[language], TASKS[language], language, can_score=False)
    assert not drawn.choices and drawn.sampling.stop == ("\n",)
    assert TASKS[language] in drawn.prompt and SHOWN[language][0][0] in drawn.prompt


@pytest.mark.parametrize(
    ("language", "instruction"),
    [
        ("en", "Is the following statement true?"),
        ("en", "Does the following sentence have an idiomatic expression?"),
        ("en", "Can the following sentence be shortened?"),
        ("en", "In the following paragraph, is there a spelling mistake?"),
        ("en", "Does the following list name a city?"),
        ("en", "Isn't this sentence a metaphor?"),
        ("en", "Do these two sentences mean the same? Yes or No."),
        ("en", "Is this review positive or not?"),
        ("en", "Is the text below about cooking? Answer yes or no."),
        ("zh", "下面这句话是否有语病？"),
        ("zh", "这句话通顺吗？"),
        ("zh", "请判断下面的说法是否正确。"),
        ("zh", "以下两句话的意思是不是一样？"),
        ("zh", "下面的句子对不对？请回答是或否。"),
        ("zh", "此句有无语病？答有或无。"),
    ],
)
def test_a_yes_no_question_about_a_given_text_is_closed(language: str, instruction: str) -> None:
    assert closed_question(instruction, WORDS[language]) is True


@pytest.mark.parametrize(
    ("language", "instruction"),
    [
        ("en", "Is the earth round?"),  # about no text
        ("en", "Is the following statement true? The moon is made of old cheese."),  # the text is there
        ("en", "Is the following statement true? Explain."),
        ("en", "Is the following sentence correct, and why?"),
        ("en", "Is there a mistake in the following sentence? If so, fix it."),
        ("en", "Does the following code run? Rewrite it if it does not."),
        ("en", "Is this message formal or informal?"),  # asks for one of two labels
        ("en", "Is the following statement true, and which words show it?"),
        ("en", "Can you summarize the following article?"),
        ("en", "Could you shorten this sentence?"),
        ("en", "What is the topic of the following text?"),
        ("en", "Summarize the following article."),
        ("zh", "地球是圆的吗？"),
        ("zh", "下面这句话有语病吗？请修改。"),
        ("zh", "下面这句话是否正确，并说明理由。"),
        ("zh", "这句话是褒义还是贬义？"),
        ("zh", "能不能把下面的句子改短？"),
        ("zh", "你能概括下面的文章吗？"),
        ("zh", "能否概括下面的文章？"),
        ("zh", "下面这篇文章讲了什么？"),
        ("zh", "下面的说法对吗？为什么？"),
    ],
)
def test_other_requests_are_not_closed(language: str, instruction: str) -> None:
    assert closed_question(instruction, WORDS[language]) is False


def test_no_open_seed_is_a_closed_question() -> None:
    found = [s for s in SEEDS if closed_question(s.instruction, WORDS[s.language])]
    assert found and all(s.is_classification for s in found)

"""Inputs and labels are read out of what models write; requests stop where the next part begins."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pipeline.engines.base import Sampling
from pipeline.stages.instantiate import (
    InstanceDemonstrations,
    answer_request,
    input_request,
    instance_demonstrations,
    labelled_input_request,
    labels_request,
    named_labels,
    parse_input,
    parse_labels,
    whole_seeds,
)
from pipeline.stages.prompts import Prompts
from pipeline.stages.seeds import load_seeds
from pipeline.stages.text import length

SEEDS = load_seeds([str(Path(__file__).resolve().parents[1] / "seeds")])
DRAWN = Sampling(0.7, 0.9, max_tokens=50)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  \n",
        "none",
        "None.",
        "(none)",
        '"none"',
        "“none”",
        "N/A",
        "n/a.",
        "No input",
        "No input needed.",
        "No input is required.",
        "Not needed",
        "Not applicable.",
        "无",
        "无。",
        "（无）",
        "“无”",
        "「无」",
        "无需输入",
        "无需输入。",
        "不需要",
        "不需要输入。",
        "没有输入",
        "没有",
    ],
)
def test_a_model_that_says_that_no_input_is_needed_gives_the_empty_input(text: str) -> None:
    assert parse_input(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        "None of the shops were open.",
        "No way!",
        "North and south",
        "No input can make up for that loss.",
        "Naples",
        "无论如何都要去。",
        "没有人来过这里。",
        "不需要的东西请扔掉。",
        "无锡",
    ],
)
def test_an_input_that_only_begins_like_none_is_kept(text: str) -> None:
    assert parse_input(f" {text}\n") == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('"The cat sat."', "The cat sat."),
        ("“猫坐着。”", "猫坐着。"),
        ("「猫坐着。」", "猫坐着。"),
        ('"Yes", she said, "now."', '"Yes", she said, "now."'),
        ("“好”，他说，“走。”", "“好”，他说，“走。”"),
        ('She said "now".', 'She said "now".'),
        ('"', '"'),
        ("line one\nline two", "line one\nline two"),
    ],
)
def test_quotes_come_off_only_around_the_whole(text: str, wanted: str) -> None:
    assert parse_input(text) == wanted


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("positive, negative, neutral", ("positive", "negative", "neutral")),
        (" positive, negative or neutral.", ("positive", "negative", "neutral")),
        ("positive, negative, or neutral", ("positive", "negative", "neutral")),
        ("Spam or Ham", ("Spam", "Ham")),
        ("spam/ham", ("spam", "ham")),
        ("spam | ham; eggs", ("spam", "ham", "eggs")),
        ("order, disorder or vendor", ("order", "disorder", "vendor")),
        ("sand and island", ("sand", "island")),
        ('"yes", "no"', ("yes", "no")),
        ("**yes**, **no**", ("yes", "no")),
        ("Labels: yes, no", ("yes", "no")),
        ("yes, no\n\nThese labels say whether it holds.", ("yes", "no")),
        ("Yes, yes, No", ("Yes", "No")),
        ("1, 2, 3", ("1", "2", "3")),
        ("积极、消极或中性", ("积极", "消极", "中性")),
        ("积极、消极和中性。", ("积极", "消极", "中性")),
        ("积极，消极，中性", ("积极", "消极", "中性")),
        ("积极或者消极", ("积极", "消极")),
        ("“积极”、“消极”", ("积极", "消极")),
        ("标签：积极、消极", ("积极", "消极")),
        ("温和、激烈", ("温和", "激烈")),
        ("和平与发展、战争", ("和平与发展", "战争")),
        ("肯定、或许、否定", ("肯定", "或许", "否定")),
    ],
)
def test_labels_are_read_from_one_line_in_either_language(text: str, labels: tuple[str, ...]) -> None:
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    "text",
    [
        "",
        "positive",
        "Yes, yes",
        "积极",
        ", , ,",
        "The labels that fit this task best are positive, negative",
        "这个任务的答案可以是很多不同的标签、比如消极",
    ],
)
def test_a_line_without_two_short_labels_gives_none(text: str) -> None:
    assert parse_labels(text) == ()


def test_labels_are_cut_to_the_limit_and_long_ones_spoil_the_line() -> None:
    assert parse_labels("a, b, c, d", max_labels=2) == ("a", "b")
    assert parse_labels("one two three, four", max_length=2) == ()


@pytest.mark.parametrize(
    ("labels", "instruction", "named"),
    [
        (("sports", "politics", "art"), "Is this about sports or politics?", ("sports", "politics")),
        (("Sports", "Politics"), "Is this about sports or politics?", ("Sports", "Politics")),
        (("port", "pol"), "Is this about sports or politics?", ()),
        (("sports", "art"), "Is this about sports or politics?", ()),
        (("yes", "no"), "Does the sentence hold a verb?", ("yes", "no")),
        (("Positive", "Neutral"), "What is the tone?", ("Positive", "Neutral")),
        (("good", "fine"), "What is the tone?", ()),
        (("C++", "C#"), "Is this C++ or C#?", ("C++", "C#")),
        (("体育", "政治", "艺术"), "这是体育新闻还是政治新闻？", ("体育", "政治")),
        (("体育", "艺术"), "这是体育新闻还是政治新闻？", ()),
        (("是", "否"), "这句话有动词吗？", ("是", "否")),
        (("spam", "ham"), "判断是spam还是ham。", ("spam", "ham")),
        (("A", "B"), "从A、B、C中选一个。", ("A", "B")),
        ((), "Is this about sports or politics?", ()),
    ],
)
def test_only_labels_that_the_instruction_names_or_that_are_common_remain(
    labels: tuple[str, ...], instruction: str, named: tuple[str, ...]
) -> None:
    assert named_labels(labels, instruction) == named


def drawn(language: str, count: int = 6) -> InstanceDemonstrations:
    seeds = [s for s in SEEDS if s.language == language]
    return instance_demonstrations(random.Random(3), seeds, 20, count)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_demonstrations_are_whole_short_seeds_of_the_right_kind(language: str) -> None:
    shown, seeds = drawn(language), {s.instruction: s for s in SEEDS if s.language == language}
    assert shown == drawn(language)
    assert all(given and not seeds[text].is_classification for text, given in shown.inputs)
    assert {bool(given) for _, given in shown.maybe_inputs} == {True, False}
    assert all(seeds[text].is_classification and given for text, _, given in shown.labelled)
    assert all(len(set(labels)) == len(labels) >= 1 for _, labels in shown.labels)
    for text, given, output in shown.answers:
        assert length(text) <= 20 and length(given) <= 40 and length(output) <= 40
        assert (given, output) == (seeds[text].instances[0].input, seeds[text].instances[0].output)


def test_whole_seeds_hold_no_empty_line_which_would_end_a_completion() -> None:
    assert all("\n\n" not in s.instances[0].input + s.instances[0].output for s in whole_seeds(SEEDS, 50))
    assert whole_seeds(SEEDS, 0) == []


@pytest.mark.parametrize(
    ("language", "next_task", "next_part"), [("en", "\nTask:", "\nInput:"), ("zh", "\n任务：", "\n输入：")]
)
def test_completions_stop_where_the_next_demonstration_begins(
    language: str, next_task: str, next_part: str
) -> None:
    prompts, shown = Prompts(), drawn(language)
    asked = {
        "input": input_request(
            prompts.get(language, "input", "completion"), shown, "X", language, DRAWN, optional=False
        ),
        "labelled_input": labelled_input_request(
            prompts.get(language, "labelled_input", "completion"), shown, "X", "Y", language, DRAWN
        ),
        "answer": answer_request(
            prompts.get(language, "answer", "completion"), shown, "X", "Y", language, DRAWN
        ),
    }
    for stage, request in asked.items():
        assert {next_task, next_part} <= set(request.sampling.stop)
        # an answer may hold an empty line, an input may not
        assert ("\n\n" in request.sampling.stop) == (stage != "answer")
        assert request.sampling.max_tokens == 50 and not request.chat
    labels = labels_request(prompts.get(language, "labels", "completion"), shown, "X", DRAWN)
    assert labels.sampling.stop == ("\n",)


@pytest.mark.parametrize(("language", "none"), [("en", "none"), ("zh", "无")])
def test_a_chat_request_ends_by_itself_and_says_none_only_where_the_input_is_optional(
    language: str, none: str
) -> None:
    prompt, shown = Prompts().get(language, "input", "chat"), drawn(language)
    needed, optional = (
        input_request(prompt, shown, "X", language, DRAWN, optional=flag) for flag in (False, True)
    )
    assert needed.chat and needed.sampling == DRAWN
    assert f"{none}" in optional.prompt.splitlines()[-1] and none not in needed.prompt.splitlines()[-1]

"""Alpaca's variant: whole examples parsed out of one answer."""

from __future__ import annotations

import random

from pipeline.engines.base import Sampling
from pipeline.stages.alpaca import alpaca_request, parse_alpaca
from pipeline.stages.prompts import Prompts
from pipeline.stages.seeds import load_seeds


def parts(
    text: str, opener: str = "", *, chat: bool = False, reason: str = "stop"
) -> list[tuple[str, str, str, str]]:
    found = parse_alpaca(text, opener, chat=chat, finish_reason=reason)
    return [(p.instruction, p.input, p.output, p.drop.reason if p.drop else "") for p in found]


def test_the_first_example_carries_on_the_opener() -> None:
    assert parts(" a poem about rain.\nInput: none\nOutput: It falls,\nsoft.", "Write") == [
        ("Write a poem about rain.", "", "It falls,\nsoft.", "")
    ]


def test_several_examples_and_their_inputs_are_told_apart() -> None:
    text = "Task: Name the colour.\nInput: grass\nOutput: green\n\nTask: Add.\nInput: 2 and 3\nOutput: 5\n"
    assert parts(text, chat=True) == [
        ("Name the colour.", "grass", "green", ""),
        ("Add.", "2 and 3", "5", ""),
    ]


def test_chinese_labels_are_read() -> None:
    text = "任务：把句子改成问句。\n输入：今天下雨。\n答案：今天下雨吗？\n\n"
    text += "任务：给猫起个名字。\n输入：无\n答案：年糕"
    assert parts(text, chat=True) == [
        ("把句子改成问句。", "今天下雨。", "今天下雨吗？", ""),
        ("给猫起个名字。", "", "年糕", ""),
    ]


def test_a_list_in_an_output_opens_no_example() -> None:
    text = "Task: List two fruits.\nInput: none\nOutput: 1. apple\n2. pear"
    assert parts(text, chat=True) == [("List two fruits.", "", "1. apple\n2. pear", "")]


def test_an_example_without_output_or_cut_off_is_dropped_with_the_reason() -> None:
    assert parts(" Say hello.", "") == [("Say hello.", "", "", "no_output")]
    assert parts(" Say hello.\nOutput: Hel", "", reason="length") == [("Say hello.", "", "Hel", "cut_off")]
    assert parts("任务：问好。", chat=True) == [("问好。", "", "", "no_output")]


def test_the_prompts_of_both_languages_and_styles_show_whole_seeds() -> None:
    for language in ("en", "zh"):
        seeds = random.Random(0).sample([s for s in load_seeds(["seeds"]) if s.language == language], 3)
        for style in ("completion", "chat"):
            prompt = Prompts().get(language, "propose_alpaca", style)
            request = alpaca_request(prompt, seeds, "", 1, language, Sampling())
            assert all(
                s.instruction in request.prompt and s.instances[0].output in request.prompt for s in seeds
            )

"""The held-out prompts are sound: each verifier parses, prompts differ, checks are spread, answers exist."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.dedup import rouge
from pipeline.rows import read_rows
from pipeline.stages.text import cjk_share
from pipeline.verify.checks import CHECKS
from pipeline.verify.compose import wordings
from pipeline.verify.verifier import from_row, verify

FOLDER = Path(__file__).resolve().parents[1] / "prompts" / "constraints"
FEWEST = {"en": 220, "zh": 60}
LANGUAGES = list(FEWEST)

# an answer that a person wrote, for a prompt of every kind
ANSWERS = {
    "en-number-words-1": "Cold makes the starch in bread crystallise sooner, so it turns firm and dry.",
    "en-number-words-13": "A good neighbour says hello, keeps the noise down at night, lends you a ladder"
    " when you need one and waters your plants when you are away.",
    "en-number-sentences-4": "Two young people fall in love and both die because of a feud.",
    "en-number-sentences-10": "bees suck nectar from flowers. they carry it home. there it dries.",
    "en-existence-2": "Renewable energy comes from things like the sun and the wind that never run out.",
    "en-frequency-1": "Street light, window light and the light of passing cars.",
    "en-forbidden-words-2": "It grows on trees, is sweet and crisp, and keeps the doctor away.",
    "en-letter-frequency-1": "Six silly sailors sold soft socks.",
    "en-number-paragraphs-1": "A village is quiet.\n***\nA city never sleeps.",
    "en-nth-paragraph-first-word-3": "We would sail at dawn.\n\nBut the tide had other plans.",
    "en-number-placeholders-2": "I am away until [date]. Please write to [colleague].",
    "en-postscript-1": "Dear aunt, Rome is lovely.\nP.S. The ice cream is even better.",
    "en-number-bullet-lists-1": "- Plasters\n- Scissors\n- Gloves",
    "en-constrained-response-1": "My answer is yes.",
    "en-number-highlighted-sections-2": "It shows a **harmless part** of a germ to **the body**.",
    "en-multiple-sections-2": "Part 1\nThe map.\nPart 2\nThe cave.\nPart 3\nThe gold.",
    "en-json-format-1": '{"name": "Ada Holt", "age": 41, "job": "baker"}',
    "en-title-1": "<<The Snail>>\nSlow, slow,\nhe goes.\nNo haste,\nno woes.",
    "en-two-responses-1": "Salt: because the air tastes of it.\n******\nThe Anchor: because you will stay.",
    "en-repeat-prompt-1": "What is the tallest mountain on Earth? Mount Everest.",
    "en-end-checker-1": "Put a slice of cheese between two slices of bread. Bon appetit!",
    "en-quotation-1": '"Take what you need and plant another."',
    "en-capital-word-frequency-2": "Please pay the RENT by FRIDAY.",
    "en-english-capital-1": "A VOLCANO IS A MOUNTAIN FROM WHICH HOT ROCK AND GAS COME OUT.",
    "en-english-lowercase-3": "there was a hum and then the voices came through the crackle.",
    "en-no-comma-1": "They ate bread and porridge and now and then some meat.",
    "en-response-language-1": "Mi color favorito es el azul porque me recuerda al mar y a las vacaciones.",
    "zh-number-words-1": "二十四节气是古人按太阳位置划分的时令，用来指导农事。",
    "zh-number-sentences-2": "唐僧师徒四人历经磨难去西天取得真经。",
    "zh-existence-1": "春天里，燕子衔泥回来了。",
    "zh-forbidden-words-1": "清凉、多汁，咬一口就想起夏天。",
    "zh-nth-paragraph-first-word-2": "夜市灯火通明，什么都好吃。\n\n然而吵到半夜，谁也睡不着。",
    "zh-number-bullet-lists-1": "- 减速\n- 开灯\n- 拉开车距",
    "zh-multiple-sections-1": "第一部分 外朝有三大殿。第二部分 内廷是皇帝的家。",
    "zh-end-checker-1": "新馆有星空厅，也有机器人。敬请期待。",
    "zh-quotation-1": "“慢些走，我看着你。”",
    "zh-no-comma-1": "天刚亮。鱼在盆里跳。豆腐冒着热气。",
}


def rows(language: str) -> list[dict[str, Any]]:
    return [row.fields for row in read_rows(FOLDER / f"held_out_{language}.jsonl")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_prompt_has_a_verifier_that_parses(language: str) -> None:
    found = rows(language)
    assert len(found) >= FEWEST[language]
    for row in found:
        assert set(row) == {"id", "prompt", "language", "verifier"} and row["language"] == language
        verifier = from_row(row, row["id"])
        assert verifier is not None and verifier.as_json() == row["verifier"]


def test_ids_and_prompts_are_unique() -> None:
    both = [row for language in LANGUAGES for row in rows(language)]
    for name in ("id", "prompt"):
        assert max(Counter(row[name] for row in both).values()) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_prompts_are_alike(language: str) -> None:
    prompts = [row["prompt"] for row in rows(language)]
    kept = rouge.filter(prompts, 0.7).kept
    assert kept.all(), [prompt for prompt, fine in zip(prompts, kept, strict=True) if not fine]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_prompt_says_its_constraint_in_the_words_that_training_uses(language: str) -> None:
    phrasings = [
        phrasing for wording in wordings(language) for phrasing in wording.say if "{" not in phrasing
    ]
    said = [row["prompt"] for row in rows(language) for p in phrasings if p.rstrip(".。") in row["prompt"]]
    assert not said


@pytest.mark.parametrize(("language", "fewest"), [("en", 5), ("zh", 1)])
def test_every_check_is_asked_for_and_none_too_often(language: str, fewest: int) -> None:
    counts = Counter(check["id"] for row in rows(language) for check in row["verifier"]["checks"])
    assert set(counts) == set(CHECKS)
    assert min(counts.values()) >= fewest
    assert max(counts.values()) <= 0.2 * sum(counts.values())
    several = sum(len(row["verifier"]["checks"]) > 1 for row in rows(language))
    assert 0.2 <= several / len(rows(language)) <= 0.5


def test_chinese_prompts_are_in_chinese_and_english_ones_are_not() -> None:
    # one asks in English and wants Chinese; a few quote what is to be written in letters
    assert min(cjk_share(row["prompt"]) for row in rows("zh")) > 0.6
    assert max(cjk_share(row["prompt"]) for row in rows("en")) == 0


def test_a_person_can_meet_the_prompts() -> None:
    by_id = {row["id"]: row for language in LANGUAGES for row in rows(language)}
    tried = set()
    for name, answer in ANSWERS.items():
        verifier = from_row(by_id[name], name)
        assert verifier is not None
        verified = verify(verifier, answer)
        assert verified.all_passed, (name, verified.checks)
        tried |= {check.id for check in verifier.checks}
    assert tried == set(CHECKS)

"""Answers to the shipped chat prompts, English and Chinese, that depend on the request alone.

For a server that a whole run talks to over HTTP: every stage is passed, some proposals are poor.
"""

from __future__ import annotations

import random
from typing import Any

from rule_engine import BAD, CLOSED, LABELS, NOUNS, OPEN, SAID

_STAGES = {  # what the end of a prompt of the stage contains, English or Chinese
    "propose_classification": ("what is judged, the labels", "要写明有哪些标签"),
    "propose": ("A language model can do it", "只凭语言就能完成"),
    "classify": ("Is this a classification task?", "这是分类任务吗"),
    "labels": ("List the labels", "答案标签，用顿号隔开"),
    "input": ("Write a realistic input", "输入。", "不要替它作答"),
}


def stage_of(text: str) -> str:
    """Which stage asked; the answers' prompt has no mark of its own."""
    last = text.strip()[-400:]
    return next((stage for stage, marks in _STAGES.items() if any(m in last for m in marks)), "answer")


def answer(body: dict[str, Any]) -> tuple[str, str]:
    """The text and finish_reason of the answer to a chat request."""
    if "messages" not in body:
        return " well.", "stop"  # to a question whether text can be continued
    text = body["messages"][-1]["content"]
    language = "zh" if any("\u4e00" <= c <= "\u9fff" for c in text) else "en"
    rng = random.Random(f"{body.get('seed')} {text}")
    stage = stage_of(text)
    task = text.strip().splitlines()
    if stage.startswith("propose"):
        forms = [CLOSED[language]] if stage == "propose_classification" else OPEN[language]
        items = [rng.choice(forms).format(*rng.sample(NOUNS[language], 4)) for _ in range(3)]
        if rng.random() < 0.3:
            items[0] = rng.choice(BAD[language]).format(rng.choice(NOUNS[language]))
        return "\n".join(f"{n}. {item}" for n, item in enumerate(items, 9)), "stop"
    if stage == "classify":
        asked = [line for line in task if line.startswith(("Task:", "任务："))][-1]
        return {"en": ("No", "Yes"), "zh": ("否", "是")}[language][LABELS[language][0] in asked], "stop"
    if stage == "labels":
        return (", " if language == "en" else "、").join(LABELS[language]), "stop"
    return SAID[language].format(
        *rng.sample(NOUNS[language], 4)[:3]
    ), "length" if rng.random() < 0.03 else "stop"

"""Rewards for tests, as a user would write them."""

from __future__ import annotations

import time
from typing import Any


def letters(prompts: list[Any], answers: list[str]) -> list[float]:
    """The share of an answer's characters that are ASCII letters."""
    return [sum(c.isascii() and c.isalpha() for c in text) / max(1, len(text)) for text in answers]


def one(prompts: list[Any], answers: list[str]) -> list[float]:
    """The same for all."""
    return [1.0] * len(answers)


def sometimes(prompts: list[Any], answers: list[str]) -> list[float | None]:
    """Nothing for answers of an even length."""
    return [None if len(text) % 2 == 0 else float(len(text)) for text in answers]


def broken(prompts: list[Any], answers: list[str]) -> list[float]:
    """Fails."""
    return [1 / 0 for _ in answers]


def slow(prompts: list[Any], answers: list[str]) -> list[float]:
    """Letters, but slowly, so that a run can be killed in its midst."""
    time.sleep(0.2)
    return letters(prompts, answers)


def chinese(prompts: list[Any], answers: list[str]) -> list[float]:
    """1 for prompts in Chinese, whatever is answered."""
    return [float("请" in str(prompt)) for prompt in prompts]

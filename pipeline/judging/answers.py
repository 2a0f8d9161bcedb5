"""Answers to a prompt, and which of them can be paired at all.

A truncated, empty, broken or repeated answer is left out; a refusal stays, but is never chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.dedup import rouge
from pipeline.engines.base import Response
from pipeline.records import Drop
from pipeline.stages.screen import refusal, special_token
from pipeline.stages.validate import REFUSED_WITHIN
from pipeline.stages.words import Words, quote

REASONS = ("engine_error", "content_filter", "truncated", "empty", "special_token", "near_identical")


@dataclass
class Answer:
    """One answer; `scores` by judge, more is better, `checks` what a verifier found.

    `request` is the number of the request that drew it, -1 for one that came with its prompt.
    """

    id: str
    text: str
    model: str
    temperature: float | None = None
    request: int = -1
    refused: bool = False
    scores: dict[str, float] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)


def broken(response: Response) -> Drop | None:
    """Why an answer cannot be used for itself."""
    if response.error:
        reason = "content_filter" if response.finish_reason == "content_filter" else "engine_error"
        return Drop(reason, response.error)
    if response.finish_reason == "length":
        return Drop("truncated", f"{response.completion_tokens} tokens: {quote(response.text)}")
    if not response.text.strip():
        return Drop("empty", "no text")
    return special_token(response.text)


def near_identical(answers: Sequence[Answer], most: float) -> list[tuple[Answer, Drop]]:
    """The answers to one prompt that are too like an earlier one, by ROUGE-L F or to the letter."""
    found, first = [], dict[str, Answer]()
    verdicts = rouge.filter([answer.text for answer in answers], most, threads=1)
    rows = zip(answers, verdicts.neighbours.tolist(), verdicts.scores.tolist(), strict=True)
    for answer, neighbour, score in rows:
        earlier = answers[neighbour] if neighbour >= 0 else first.get(answer.text)
        first.setdefault(answer.text, answer)
        if earlier:
            same = f"{score if neighbour >= 0 else 1:.3f} to {earlier.id}: {quote(answer.text)}"
            found.append((answer, Drop("near_identical", same)))
    return found


def is_refusal(text: str, words: Words) -> bool:
    """Whether an answer turns the request down."""
    return refusal(text, words, within=REFUSED_WITHIN) is not None

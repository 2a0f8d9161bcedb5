"""What every engine speaks: requests in, responses out, errors as data.

An engine answers groups of `batch_size` requests. Servers take groups of one and many groups at a time; the
embedded engine takes one group whose make-up is fixed by request numbers, so its numbers never depend on
timing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.records import to_json


@dataclass(frozen=True)
class Sampling:
    """How to draw the answer: temperature 0 is greedy; `top_p` in (0, 1]; `max_tokens` counts new tokens.

    `frequency_penalty` is OpenAI's: it is taken off a token's logit for every time the answer has used it
    already.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Request:
    """One question to a model.

    `chat` sends `prompt` as a user message through the model's chat template, else as raw text to continue.
    With `choices`, pairs of (context, continuation), nothing is drawn: the engine returns the
    log-likelihood of each continuation after the prompt and its context.
    """

    prompt: str
    chat: bool = False
    system: str = ""  # system message; chat only
    sampling: Sampling = field(default_factory=Sampling)
    choices: tuple[tuple[str, str], ...] = ()
    role: str = "writer"  # or "judge", which may be another model

    @property
    def digest(self) -> str:
        """A hash of everything that decides the answer (the model apart)."""
        return hashlib.sha256(to_json(self).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Response:
    """One answer. `finish_reason`: "stop", "length" (cut off), "score" (choices were compared) or "error"."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    choice_logprobs: tuple[float, ...] = ()
    error: str = ""

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Response:
        """The response that `dataclasses.asdict` (as JSON) gave `row`."""
        return cls(**{**row, "choice_logprobs": tuple(row["choice_logprobs"])})


class Engine(Protocol):
    """A source of text."""

    model: str  # what the provenance names
    batch_size: int  # requests answered together as one group
    groups_in_flight: int  # groups it wants to work on at the same time
    can_score: bool  # whether `choices` are understood

    @property
    def has_chat(self) -> bool:
        """Whether `chat` requests are understood."""
        ...

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer up to `batch_size` requests, in order.

        A request that fails is a Response with `error`, not an exception.
        """
        ...

"""What every engine speaks: requests in, responses out, errors as data.

An engine answers groups of `batch_size` requests. Servers take groups of one and many groups at a time; the
embedded engine takes one group whose make-up is fixed by request numbers, so its numbers never depend on
timing.

Engines stack: a cache around a budget around an engine is an engine (`Layer`).
"""

from __future__ import annotations

import functools
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
    schema: str = ""  # JSON schema that the answer should follow; engines without `can_structure` ignore it

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Request:
        """The request that `dataclasses.asdict` (as JSON) gave `row`."""
        sampling = Sampling(**{**row["sampling"], "stop": tuple(row["sampling"]["stop"])})
        choices = tuple((context, continuation) for context, continuation in row["choices"])
        return cls(**{**row, "sampling": sampling, "choices": choices})

    @functools.cached_property
    def digest(self) -> str:
        """A hash of everything that decides the answer (the model apart)."""
        return hashlib.sha256(to_json(self).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Response:
    """One answer.

    `finish_reason`: "stop", "length" (cut off), "score" (choices were compared), "content_filter" or "error".
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    choice_logprobs: tuple[float, ...] = ()
    error: str = ""
    cached: bool = False  # it came from the request cache: nothing was asked and nothing paid
    retries: int = 0  # failed attempts before this answer

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Response:
        """The response that `dataclasses.asdict` (as JSON) gave `row`."""
        return cls(**{**row, "choice_logprobs": tuple(row["choice_logprobs"])})


class NotSent(Exception):
    """A request was not sent, because the engine was told to stop or a budget is used up (the message)."""


class Engine(Protocol):
    """A source of text."""

    @property
    def model(self) -> str:
        """What the provenance names."""
        ...

    @property
    def license(self) -> str:
        """The licence of the model, "unknown" where it cannot be told."""
        ...

    @property
    def precision(self) -> str:
        """What the numbers are computed in and where, for the log and the run's record."""
        ...

    @property
    def batch_size(self) -> int:
        """Requests answered together as one group."""
        ...

    @property
    def groups_in_flight(self) -> int:
        """Groups it wants to be given at the same time, those that wait for a free place included."""
        ...

    @property
    def can_score(self) -> bool:
        """Whether `choices` are understood."""
        ...

    @property
    def can_structure(self) -> bool:
        """Whether `schema` is followed."""
        ...

    @property
    def has_chat(self) -> bool:
        """Whether `chat` requests are understood."""
        ...

    @property
    def tokens_drawn(self) -> int:
        """Tokens sampled so far, those of requests in flight included where that is known."""
        ...

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer up to `batch_size` requests, in order.

        A request that fails is a Response with `error`, not an exception. Raises NotSent for a group that
        was still waiting when `stop` was called, PipelineError where no request can ever be answered.
        """
        ...

    def stop(self) -> None:
        """Send nothing more. Groups under way are finished, those that wait raise NotSent."""
        ...

    async def close(self) -> None:
        """Let go of connections and processes."""
        ...


class Layer:
    """An engine around another one: what it does not do itself, the inner one does."""

    def __init__(self, inner: Engine) -> None:
        self.inner = inner

    @property
    def model(self) -> str:
        """The inner engine's."""
        return self.inner.model

    @property
    def license(self) -> str:
        """The inner engine's."""
        return self.inner.license

    @property
    def precision(self) -> str:
        """The inner engine's."""
        return self.inner.precision

    @property
    def batch_size(self) -> int:
        """The inner engine's."""
        return self.inner.batch_size

    @property
    def groups_in_flight(self) -> int:
        """The inner engine's."""
        return self.inner.groups_in_flight

    @property
    def can_score(self) -> bool:
        """The inner engine's."""
        return self.inner.can_score

    @property
    def can_structure(self) -> bool:
        """The inner engine's."""
        return self.inner.can_structure

    @property
    def has_chat(self) -> bool:
        """The inner engine's."""
        return self.inner.has_chat

    @property
    def tokens_drawn(self) -> int:
        """The inner engine's."""
        return self.inner.tokens_drawn

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer a group through the inner engine."""
        return await self.inner.generate(requests)

    def stop(self) -> None:
        """Stop the inner engine."""
        self.inner.stop()

    async def close(self) -> None:
        """Close the inner engine."""
        await self.inner.close()

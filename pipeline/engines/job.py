"""What a scheduler drives: a job that asks and takes answers, and the count of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.engines.base import Request, Response


class Job(Protocol):
    """A pure state machine: what to ask next and what an answer means.

    All its randomness derives from numbers.
    """

    def next_request(self, number: int) -> Request | None:
        """Build request `number` from the state now; None while there is nothing to ask."""

    def prepare(self, first: int, responses: Sequence[Response]) -> None:
        """Do together what admitting the answers to a group's requests, from number `first` on, will need."""

    def admit(self, number: int, response: Response) -> None:
        """Take the answer to request `number`; called in order."""


@dataclass
class Tally:
    """What was asked and answered."""

    requests: int = 0
    replayed: int = 0
    cached: int = 0
    failed: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, response: Response, *, replayed: bool) -> None:
        """Count one answer."""
        self.requests += 1
        self.replayed += replayed
        self.cached += response.cached
        self.failed += bool(response.error)
        self.retries += response.retries
        self.prompt_tokens += response.prompt_tokens
        self.completion_tokens += response.completion_tokens

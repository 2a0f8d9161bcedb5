"""Keeps an engine busy and admits its answers in request order, so that the result does not depend on timing.

Requests are numbered. A group of `engine.batch_size` requests is built from the job's state after the group
`engine.groups_in_flight` before it was admitted; answers are written to the journal and then admitted in
order. Answers found in the journal take the same path without asking: that is all that resuming is.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.engines.base import Engine, Request, Response
from pipeline.engines.journal import Entry, Journal
from pipeline.errors import PipelineError, Stopped


class Job(Protocol):
    """A pure state machine: what to ask next and what an answer means.

    All its randomness derives from numbers.
    """

    def next_request(self, number: int) -> Request | None:
        """Build request `number` from the state now; None while there is nothing to ask."""

    def admit(self, number: int, response: Response) -> None:
        """Take the answer to request `number`; called in order."""


@dataclass
class Tally:
    """What was asked and answered."""

    requests: int = 0
    replayed: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, response: Response, *, replayed: bool) -> None:
        """Count one answer."""
        self.requests += 1
        self.replayed += replayed
        self.failed += bool(response.error)
        self.prompt_tokens += response.prompt_tokens
        self.completion_tokens += response.completion_tokens


@dataclass
class _Group:
    first: int
    requests: list[Request]
    replay: list[Entry] | None
    answer: asyncio.Task[list[Response]] | None = None


class Scheduler:
    """Drives one job over one engine."""

    def __init__(
        self,
        job: Job,
        engine: Engine,
        journal: Journal,
        *,
        max_failed: float = 0.5,
        on_admit: Callable[[Tally], None] = lambda tally: None,
        on_stop: Callable[[int], None] = lambda times: None,
    ) -> None:
        self.job, self.engine, self.journal, self.max_failed, self.on_admit = (
            job,
            engine,
            journal,
            max_failed,
            on_admit,
        )
        self.tally, self.on_stop = Tally(), on_stop
        self._next = self._groups = self._failed = 0
        self._stopping = False

    async def run(self) -> Tally:
        """Ask and admit until the job has nothing more to ask.

        Raises Stopped after Ctrl-C or SIGTERM, once the answers in flight are in; PipelineError if too many
        fail.
        """
        flight: deque[_Group] = deque()
        signals = self._listen()
        try:
            while True:
                while (
                    len(flight) < self.engine.groups_in_flight
                    and not self._stopping
                    and (group := self._take())
                ):
                    flight.append(group)
                if not flight:
                    break
                await self._admit(flight.popleft())
        finally:
            for name in signals:
                asyncio.get_running_loop().remove_signal_handler(name)
            for group in flight:
                if group.answer:
                    group.answer.cancel()
        if self._stopping:
            raise Stopped()
        return self.tally

    def _listen(self) -> list[signal.Signals]:
        """Turn Ctrl-C and SIGTERM into a graceful stop; return those that `run` must let go of again."""
        caught = []
        for name in (signal.SIGINT, signal.SIGTERM):
            try:
                asyncio.get_running_loop().add_signal_handler(name, self._stop)
            except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
                break
            caught.append(name)
        return caught

    def _stop(self) -> None:
        self.on_stop(2 if self._stopping else 1)
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stopping

    def _take(self) -> _Group | None:
        first, requests = self._next, list[Request]()
        while len(requests) < self.engine.batch_size and (request := self.job.next_request(self._next)):
            requests.append(request)
            self._next += 1
        if not requests:
            return None
        replay = self.journal.groups[self._groups] if self._groups < len(self.journal.groups) else None
        self._groups += 1
        group = _Group(first, requests, replay)
        if replay is None:
            group.answer = asyncio.create_task(self._ask(requests))
        elif [digest for digest, _ in replay] != [request.digest for request in requests]:
            raise PipelineError(
                "journal.jsonl",
                f"request {first} is not the one that was asked before",
                "The program or its prompts changed: start again with --overwrite.",
            )
        return group

    async def _ask(self, requests: list[Request]) -> list[Response]:
        try:
            return await self.engine.generate(requests)
        except PipelineError:
            raise
        except Exception as error:  # one failed call is a recorded failure, not the end of the run
            message = f"{type(error).__name__}: {error}"
            return [Response("", "error", 0, 0, error=message) for _ in requests]

    async def _admit(self, group: _Group) -> None:
        if group.replay is not None:
            responses = [response for _, response in group.replay]
        else:
            assert group.answer is not None
            responses = await group.answer
            self.journal.append(group.first, group.requests, responses)
        for i, response in enumerate(responses):
            self.job.admit(group.first + i, response)
            self.tally.add(response, replayed=group.replay is not None)
        self.on_admit(self.tally)
        if group.replay is None:
            self._check_failures(responses)

    def _check_failures(self, responses: list[Response]) -> None:
        """Stop when too many fail. Replayed failures do not count: --resume could never get past them."""
        self._failed += sum(bool(r.error) for r in responses)
        asked = self.tally.requests - self.tally.replayed
        if self._failed > max(20, self.max_failed * asked):
            last = next((r.error for r in reversed(responses) if r.error), "see the journal")
            raise PipelineError(
                f"engine {self.engine.model}",
                f"{self._failed} of {asked} requests failed, the last with: {last}",
                "Mend the cause, then run again with --resume.",
            )

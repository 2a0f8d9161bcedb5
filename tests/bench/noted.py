"""Passes for `saturation.py`: the pipeline's own command with every request noted, and the bare engine.

Both ask the same kind of engine, opened anew for each pass (an engine serves one event loop), through the
same `Noted` layer, so what is measured costs both the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.engines.base import Engine, Layer, NotSent, Request, Response
from pipeline.engines.budget import Budget, BudgetedEngine
from pipeline.errors import Stopped
from pipeline.stages import command, generate
from pipeline.stages.flow import SelfInstruct

Opener = Callable[[], Awaitable[Engine]]


@dataclass
class Sent:
    """One group: when it was handed over and answered (0: never), and the tokens of its answers."""

    requests: Sequence[Request]
    handed: float
    answered: float = 0.0
    tokens: int = 0
    failed: int = 0


class Noted(Layer):
    """An engine whose groups are noted; `seconds` after the first of them nothing is answered any more."""

    def __init__(self, inner: Engine, seconds: float = 0.0) -> None:
        super().__init__(inner)
        self.seconds, self.groups = seconds, list[Sent]()
        self._began, self.processor = 0.0, 0.0  # seconds of this process

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer a group. Raises NotSent when the time is up."""
        self._began = self._began or time.process_time()
        sent = Sent(list(requests), time.monotonic())
        self.groups.append(sent)
        left = self.groups[0].handed + self.seconds - sent.handed if self.seconds else None
        try:
            async with asyncio.timeout(left):
                answers = await self.inner.generate(requests)
        except TimeoutError:
            raise NotSent("the time is up") from None
        sent.answered, self.processor = time.monotonic(), time.process_time() - self._began
        sent.tokens = sum(answer.completion_tokens for answer in answers)
        sent.failed = sum(bool(answer.error) for answer in answers)
        return answers


class Watched(SelfInstruct):
    """The state machine, noting when it first had nothing to ask, and every example with the time."""

    made: Watched  # the newest one

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.dry, self.kept = 0.0, list[tuple[float, int]]()
        type(self).made = self

    def next_request(self, number: int) -> Request | None:
        """As it is."""
        request = super().next_request(number)
        if request is None and not self.dry:
            self.dry = time.monotonic()
        return request

    def admit(self, number: int, response: Response) -> None:
        """As it is."""
        super().admit(number, response)
        self.kept.append((time.monotonic(), sum(pool.kept for pool in self.pools)))


@dataclass
class Pass:
    """What one pass sent, when a run began to drain (0: it never did) and how many examples it kept."""

    groups: list[Sent]
    processor: float  # seconds of this process
    dry: float = 0.0
    kept: list[tuple[float, int]] = field(default_factory=list)
    counts: list[tuple[float, float]] = field(default_factory=list)  # the server's, of generated tokens

    def counted(self, seconds: float) -> float:
        """Tokens per second by the server's own count, from the first request to so long after it.

        Tokens of answers that are under way count too.
        """
        at, tokens = zip(*self.counts, strict=True)
        begin, end = np.interp([self.began, self.began + seconds], at, tokens)
        return float(end - begin) / seconds

    @property
    def began(self) -> float:
        """When the first request was handed over."""
        return self.groups[0].handed

    @property
    def ended(self) -> float:
        """When the last answer came."""
        return max(group.answered for group in self.groups)

    def tokens(self, until: float) -> int:
        """Tokens of the answers received by then."""
        return sum(group.tokens for group in self.groups if 0 < group.answered <= until)

    def speed(self, until: float) -> float:
        """Tokens per second from the first request to then."""
        return self.tokens(until) / (until - self.began)

    def drain(self, batch_size: int) -> float:
        """When the drain began, 0 if that cannot be said: it began before any whole group was answered.

        For an engine that answers one group at a time: when the last whole group was answered that had been
        handed over by then.
        """
        if batch_size > 1:
            whole = [g for g in self.groups if len(g.requests) == batch_size and g.handed <= self.dry]
            return max((g.answered for g in whole), default=0.0)
        return self.dry if self.tokens(self.dry) else 0.0

    def reaches(self, tokens: int) -> float:
        """When that many tokens had been received; the end if they never were."""
        total = 0
        for group in sorted(self.groups, key=lambda g: g.answered):
            total += group.tokens
            if total >= tokens:
                return group.answered
        return self.ended

    def in_flight(self, places: int, until: float) -> tuple[float, float]:
        """Mean number of requests in the engine's `places`, and the share of the time with a free place."""
        changes = [(g.handed, len(g.requests)) for g in self.groups]
        changes += [(g.answered or until, -len(g.requests)) for g in self.groups]
        held, area, free, before = 0, 0.0, 0.0, self.began
        for at, change in sorted(changes):
            span = max(0.0, min(at, until) - before)
            area, free, before = area + span * min(held, places), free + span * (held < places), before + span
            held += change
        return area / (until - self.began), free / (until - self.began)

    def kept_by(self, seconds: float) -> int:
        """Examples kept so long after the first request."""
        return max((kept for at, kept in self.kept if at <= self.began + seconds), default=0)


def pipeline_run(opened: Opener, options: Any, seconds: float = 0.0) -> Pass:
    """The whole command in a directory that is thrown away; only what lies between is measured."""
    held: list[Noted] = []

    @asynccontextmanager
    async def open_engine(options: Any, *_: object) -> AsyncIterator[BudgetedEngine]:
        engine = await opened()
        held.append(Noted(engine, seconds))
        try:
            yield BudgetedEngine(held[0], Budget())
        finally:
            await engine.close()

    quiet = io.StringIO()
    with (
        tempfile.TemporaryDirectory() as folder,
        patched(open_engine),
        contextlib.redirect_stderr(quiet),
        contextlib.redirect_stdout(quiet),
        contextlib.suppress(Stopped),
    ):
        command.run(options(str(Path(folder) / "run")), Path(folder))
    return Pass(held[0].groups, held[0].processor, Watched.made.dry, Watched.made.kept)


@contextlib.contextmanager
def patched(open_engine: Any) -> Iterator[None]:
    """The pipeline with that engine and a state machine that is watched."""
    before = generate.open_engine, generate.SelfInstruct
    generate.open_engine, generate.SelfInstruct = open_engine, Watched  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        generate.open_engine, generate.SelfInstruct = before  # type: ignore[misc]


def bare_run(opened: Opener, groups: Sequence[Sequence[Request]], places: int, seconds: float = 0.0) -> Pass:
    """The engine alone, given the groups in order with `places` of them in flight at all times."""

    async def work() -> Pass:
        engine = await opened()
        noted, waiting = Noted(engine, seconds), iter(groups)

        async def worker() -> None:
            for group in waiting:
                try:
                    await noted.generate(group)
                except NotSent:
                    if not seconds:
                        raise
                    return

        try:
            await asyncio.gather(*(worker() for _ in range(places)))
        finally:
            await engine.close()
        return Pass(noted.groups, noted.processor)

    return asyncio.run(work())

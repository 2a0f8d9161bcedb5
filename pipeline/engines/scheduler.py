"""Keeps an engine busy and admits its answers in request order, so that the result does not depend on timing.

Requests are numbered. A group of `engine.batch_size` requests is built from the job's state after the group
`engine.groups_in_flight` before it was admitted; answers are written to the journal and then admitted in
order. Answers found in the journal take the same path without asking: that is all that resuming is.

The job works in a thread of its own, so that parsing, filtering and dedup never hold up the loop that talks
to the engine; each group is handed to the engine the moment it is built.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pipeline.engines.base import Engine, NotSent, Request, Response
from pipeline.engines.job import Job, Tally
from pipeline.engines.journal import Entry, Journal
from pipeline.errors import PipelineError, Stopped


@dataclass
class _Group:
    first: int
    requests: list[Request]
    replay: list[Entry] | None
    answer: asyncio.Task[list[Response]] | None = None

    @property
    def ready(self) -> bool:
        """Whether its responses can be had without waiting."""
        return self.replay is not None or (self.answer is not None and self.answer.done())

    @property
    def refused(self) -> bool:
        """Whether the engine raised instead of answering."""
        return self.answer is not None and self.answer.exception() is not None

    def responses(self) -> list[Response]:
        """The answers. Raises what the engine raised."""
        if self.replay is not None:
            return [response for _, response in self.replay]
        assert self.answer is not None
        return self.answer.result()


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
        on_replay: Callable[[Response], None] = lambda response: None,
        on_settled: Callable[[Callable[[], dict[str, Any]]], None] = lambda state: None,
    ) -> None:
        """`on_settled` is called between groups with a function that gives the state for `restore`."""
        self.job, self.engine, self.journal, self.max_failed = job, engine, journal, max_failed
        self.on_admit, self.on_stop = on_admit, on_stop
        self.on_replay, self.on_settled = on_replay, on_settled
        self.tally = Tally()
        self._flight: deque[_Group] = deque()  # built and not yet handed to the job's thread, in order
        self._open = 0  # built and not yet admitted
        self._next = self._failed = 0
        self._stopping = self._leaving = False
        self._restored: list[_Group] = []

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state given to `on_settled`; the journal begins where it was taken."""
        self.tally, self._next = Tally(**state["tally"]), state["next"]
        self.tally.replayed = self.tally.requests
        for first, requests in state["groups"]:
            self._restored.append(self._group(first, [Request.from_dict(row) for row in requests]))

    def _state(self, groups: Sequence[_Group]) -> dict[str, Any]:
        """`groups` are built and not admitted."""
        built = [[g.first, [asdict(request) for request in g.requests]] for g in groups]
        return {"next": self._next, "tally": asdict(self.tally), "groups": built}

    async def run(self) -> Tally:
        """Ask and admit until the job has nothing more to ask.

        Raises Stopped after Ctrl-C or SIGTERM, once the answers in flight are in, and when the engine sends
        nothing more (a budget is used up; the message says which); PipelineError if too many requests fail.
        """
        signals, why = self._listen(), ""
        with ThreadPoolExecutor(1, "job") as thread:
            try:
                await self._drive(thread)
            except NotSent as refusal:
                why = "" if self._stopping else str(refusal)
                self._stopping = True
            finally:
                await self._let_go()
                for name in signals:
                    asyncio.get_running_loop().remove_signal_handler(name)
        if self._stopping:
            raise Stopped(why)
        return self.tally

    async def _drive(self, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        answered: list[_Group] = []
        while True:
            await loop.run_in_executor(thread, self._advance, answered, loop)
            if not self._flight:
                return
            answered = await self._answered()

    async def _answered(self) -> list[_Group]:
        """Wait for the oldest group; take it and those behind it that are answered too.

        Raises what the engine raised for the oldest.
        """
        if (task := self._flight[0].answer) and not task.done():
            await asyncio.wait([task])
        found: list[_Group] = []
        while self._flight and self._flight[0].ready and not self._flight[0].refused:
            found.append(self._flight.popleft())
        if not found:
            self._flight.popleft().responses()
        return found

    async def _let_go(self) -> None:
        """Let what is still in flight be answered (a cache keeps it) unless the user is leaving at once."""
        tasks = [group.answer for group in self._flight if group.answer]
        if tasks:
            self.engine.stop()
        for task in tasks if self._leaving else []:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
        self._leaving = self._stopping
        self.on_stop(2 if self._leaving else 1)
        if self._leaving:
            raise KeyboardInterrupt
        self._stopping = True
        self.engine.stop()

    # ---- below: in the job's thread ----

    def _advance(self, answered: Sequence[_Group], loop: asyncio.AbstractEventLoop) -> None:
        """Write answered groups to the journal, admit them in order, and build what each makes room for."""
        self.journal.append([(g.first, g.requests, g.responses()) for g in answered if g.replay is None])
        for group in self._restored:
            self._start(group, loop)
        self._restored = []
        self._fill(loop)
        for i, group in enumerate(answered):
            self._admit(group)
            self._open -= 1
            self._fill(loop)
            if not self._stopping:  # else nothing was built for what was admitted: no run goes on from there
                self.on_settled(partial(self._state, [*answered[i + 1 :], *self._flight]))

    def _fill(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._open < self.engine.groups_in_flight and not self._stopping and (group := self._take()):
            self._start(group, loop)

    def _start(self, group: _Group, loop: asyncio.AbstractEventLoop) -> None:
        self._open += 1
        self._flight.append(group)
        if group.replay is None:
            loop.call_soon_threadsafe(self._ask, group)

    def _take(self) -> _Group | None:
        first, requests = self._next, list[Request]()
        while len(requests) < self.engine.batch_size and (request := self.job.next_request(self._next)):
            requests.append(request)
            self._next += 1
        return self._group(first, requests) if requests else None

    def _group(self, first: int, requests: list[Request]) -> _Group:
        """The group, with its answers if the journal has them."""
        replay = self.journal.groups.popleft() if self.journal.groups else None
        if replay is not None and [d for d, _ in replay] != [request.digest for request in requests]:
            raise PipelineError(
                "journal.jsonl",
                f"request {first} is not the one that was asked before",
                "The program or its prompts changed: start again with --overwrite.",
            )
        return _Group(first, requests, replay)

    def _ask(self, group: _Group) -> None:
        """Hand a group to the engine; called in the loop's thread."""
        group.answer = asyncio.create_task(self._generate(group.requests))

    async def _generate(self, requests: list[Request]) -> list[Response]:
        try:
            return await self.engine.generate(requests)
        except (PipelineError, NotSent):
            raise
        except Exception as error:  # one failed call is a recorded failure, not the end of the run
            message = f"{type(error).__name__}: {error}"
            return [Response("", "error", 0, 0, error=message) for _ in requests]

    def _admit(self, group: _Group) -> None:
        replayed, responses = group.replay is not None, group.responses()
        self.job.prepare(group.first, responses)
        for i, response in enumerate(responses):
            self.job.admit(group.first + i, response)
            self.tally.add(response, replayed=replayed)
            if replayed:
                self.on_replay(response)
        self.journal.admitted()
        self.on_admit(self.tally)
        if not replayed:
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

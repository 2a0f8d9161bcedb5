"""How many requests are in flight at once: more while the server keeps up, half when it says "too many"."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from pipeline.engines.base import NotSent

HOLD = 1.0  # s; after a cut the limit is not cut again for so long


class Limiter:
    """Gives out up to `limit` places, first come first served; serves one event loop.

    Additive increase, multiplicative decrease: as many successes as there are places add one place, up to the
    `limit` that was given; an overload halves the places, down to `low`, and does so once for all the
    requests that were sent before the cut.
    """

    def __init__(self, limit: int, low: int = 1, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.high, self.low, self.limit = limit, min(low, limit), limit
        self.in_flight = 0
        self._clock, self._halved, self._successes = clock, -HOLD, 0
        self._again: deque[asyncio.Future[bool]] = deque()
        self._first: deque[asyncio.Future[bool]] = deque()
        self._stopped = asyncio.Event()

    @asynccontextmanager
    async def place(self, *, again: bool = False) -> AsyncIterator[float]:
        """Hold a place; gives the time it was had at, for `overloaded`. Raises NotSent after `stop`.

        Those who come `again` go before those who were never in.
        """
        began = await self.acquire(again=again)
        try:
            yield began
        finally:
            self.release()

    async def acquire(self, *, again: bool = False) -> float:
        """Wait for a place and take it; see `place`. Raises NotSent after `stop`."""
        if self._stopped.is_set():
            raise NotSent("the engine was stopped")
        if self.in_flight < self.limit:  # then nobody waits: every place that comes free is given away
            self.in_flight += 1
            return self._clock()
        ticket = asyncio.get_running_loop().create_future()
        (self._again if again else self._first).append(ticket)
        try:
            given = await ticket
        except asyncio.CancelledError:
            if not ticket.cancelled() and ticket.result():  # cancelled between being called and coming in
                self.release()
            raise
        if not given:
            raise NotSent("the engine was stopped")
        return self._clock()

    def release(self) -> None:
        """Give a place back."""
        self.in_flight -= 1
        self._admit()

    def succeeded(self) -> None:
        """Count a request that the server took."""
        self._successes += 1
        if self._successes >= self.limit and self.limit < self.high:
            self._successes = 0
            self.limit += 1
            self._admit()

    def overloaded(self, began: float) -> None:
        """Halve the places, because the server refused a request that had its place from `began` on."""
        now = self._clock()
        if began > self._halved and now - self._halved >= HOLD:
            self._halved, self._successes = now, 0
            self.limit = max(self.low, self.limit // 2)

    async def pause(self, seconds: float) -> None:
        """Wait without a place. Raises NotSent as soon as `stop` is called."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return
        raise NotSent("the engine was stopped")

    def stop(self) -> None:
        """Let nobody in any more; places already given stay valid until they are given back."""
        self._stopped.set()
        for ticket in (*self._again, *self._first):
            if not ticket.done():
                ticket.set_result(False)

    def _admit(self) -> None:
        while self.in_flight < self.limit and (queue := self._again or self._first):
            ticket = queue.popleft()
            if not ticket.done():  # else its owner was cancelled, or all were told to go
                self.in_flight += 1
                ticket.set_result(True)

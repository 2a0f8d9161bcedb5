"""Two models as one engine: requests with role "judge" go to the second."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.engines.base import Engine, Layer, Request, Response


class JudgedEngine(Layer):
    """Answers groups with `writer`, but judge requests with `judge`."""

    def __init__(self, writer: Engine, judge: Engine) -> None:
        super().__init__(writer)
        self.judge = judge

    @property
    def can_score(self) -> bool:
        """Whether both understand `choices`."""
        return self.inner.can_score and self.judge.can_score

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer the two halves of a group one after the other; answers in the group's order."""
        answers: dict[int, Response] = {}
        for engine, judging in ((self.inner, False), (self.judge, True)):
            mine = [i for i, r in enumerate(requests) if (r.role == "judge") == judging]
            if mine:
                answers.update(zip(mine, await engine.generate([requests[i] for i in mine]), strict=True))
        return [answers[i] for i in range(len(requests))]

    def stop(self) -> None:
        """Stop both."""
        self.inner.stop()
        self.judge.stop()

    async def close(self) -> None:
        """Close both."""
        await asyncio.gather(self.inner.close(), self.judge.close())

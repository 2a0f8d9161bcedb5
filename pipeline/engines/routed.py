"""Several models as one engine: each request goes to the model of its role."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from pipeline.engines.base import Engine, Layer, Request, Response


class RoutedEngine(Layer):
    """Answers requests whose role is in `others` with that engine, all else with `writer`."""

    def __init__(self, writer: Engine, others: Mapping[str, Engine]) -> None:
        super().__init__(writer)
        self.others = dict(others)

    @property
    def can_score(self) -> bool:
        """Whether all understand `choices`."""
        return all(engine.can_score for engine in self._all())

    @property
    def tokens_drawn(self) -> int:
        """Tokens sampled so far by all."""
        return sum(engine.tokens_drawn for engine in self._all())

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer each engine's part of a group, one part after the other; answers in the group's order."""
        answers: dict[int, Response] = {}
        for engine in self._all():
            mine = [i for i, r in enumerate(requests) if self.others.get(r.role, self.inner) is engine]
            if mine:
                answers.update(zip(mine, await engine.generate([requests[i] for i in mine]), strict=True))
        return [answers[i] for i in range(len(requests))]

    def stop(self) -> None:
        """Stop all."""
        for engine in self._all():
            engine.stop()

    async def close(self) -> None:
        """Close all."""
        await asyncio.gather(*(engine.close() for engine in self._all()))

    def _all(self) -> list[Engine]:
        return list(dict.fromkeys([self.inner, *self.others.values()]))

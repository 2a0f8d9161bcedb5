"""Two models as one engine: requests with role "judge" go to the second."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.engines.base import Engine, Request, Response


class JudgedEngine:
    """Answers groups with `writer`, but judge requests with `judge`."""

    def __init__(self, writer: Engine, judge: Engine) -> None:
        self.writer, self.judge = writer, judge
        self.model, self.batch_size, self.groups_in_flight = (
            writer.model,
            writer.batch_size,
            writer.groups_in_flight,
        )
        self.has_chat = writer.has_chat
        self.can_score = writer.can_score and judge.can_score

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer the two halves of a group one after the other; answers in the group's order."""
        answers: dict[int, Response] = {}
        for engine, judging in ((self.writer, False), (self.judge, True)):
            mine = [i for i, r in enumerate(requests) if (r.role == "judge") == judging]
            if mine:
                answers.update(zip(mine, await engine.generate([requests[i] for i in mine]), strict=True))
        return [answers[i] for i in range(len(requests))]

"""The Self-Instruct run as a state machine: what to ask next, and what each answer changes.

    propose -> screen -> dedup -> classify -> instantiate (labels, input, answer) -> validate -> (judge)

It is pure: no clock, no shared random state, so replaying the journal rebuilds it exactly. A request's
sampling seed derives from the run's seed, what it asks and how often that was asked before, a proposal's
draws from its own number: both outlive a changed filter, which is what lets the request cache answer. Later
stages go first; new instructions are proposed when too few are under way.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pipeline.engines.base import Request, Response
from pipeline.records import Drop, Example
from pipeline.stages import steps_instance, steps_task
from pipeline.stages.books import Ask, Books, not_needed
from pipeline.stages.heldout import HeldOutFilter
from pipeline.stages.plan import Plan
from pipeline.stages.pool import Pool
from pipeline.stages.screen import special_token

_STEPS = {
    "propose": (steps_task.ask_propose, steps_task.took_propose),
    "classify": (steps_task.ask_classify, steps_task.took_classify),
    "labels": (steps_task.ask_labels, steps_task.took_labels),
    "labelled_input": (steps_instance.ask_labelled, steps_instance.took_labelled),
    "input": (steps_instance.ask_input, steps_instance.took_input),
    "answer": (steps_instance.ask_answer, steps_instance.took_answer),
    "judge": (steps_instance.ask_judge, steps_instance.took_judge),
}
_COMPARED = {"propose": steps_task.compared, "answer": steps_instance.compared}


class SelfInstruct:
    """Implements `scheduler.Job`.

    `on_keep` and `on_drop` receive examples and drop records as they are decided; `held_out` finds what must
    not be made.
    """

    def __init__(
        self,
        plan: Plan,
        pools: list[Pool],
        on_keep: Callable[[Example], None],
        on_drop: Callable[[dict[str, Any]], None],
        held_out: HeldOutFilter | None = None,
    ) -> None:
        self.plan, self.pools, self.books = plan, pools, Books(on_keep, on_drop)
        self.held_out = held_out
        self.candidates, self.instances = self.books.candidates, self.books.instances
        self.requests = self.books.requests
        self.asks: dict[int, Ask] = {}
        self.asked: Counter[int] = Counter()  # hash of a request -> how often it was drawn for

    def next_request(self, number: int) -> Request | None:
        """Take the next piece of work from the language that is furthest from its goal."""
        for pool in sorted((p for p in self.pools if not p.full), key=lambda p: p.progress):
            if pool.queue:
                ask = pool.queue.popleft()
            elif pool.wants_proposals:
                ask = Ask("propose", pool)
            else:
                continue
            ask.steps += ((ask.stage, number),)
            self.asks[number] = ask
            self.requests.open(str(number))
            return self._seeded(_STEPS[ask.stage][0](self, ask, number))
        return None

    def prepare(self, first: int, responses: Sequence[Response]) -> None:
        """Encode together what admitting these answers will compare by meaning."""
        texts: dict[Pool, list[str]] = {pool: [] for pool in self.pools}
        for number, response in enumerate(responses, first):
            ask = self.asks[number]
            if not response.error and ask.stage in _COMPARED:
                texts[ask.pool] += _COMPARED[ask.stage](self, ask, response)
        for pool in self.pools:
            pool.prepare(texts[pool])

    def admit(self, number: int, response: Response) -> None:
        """Act on an answer. A failed request drops what it was for."""
        ask = self.asks.pop(number)
        if not response.error:
            self.requests.keep(str(number))
            drop = special_token(response.text) if ask.stage != "propose" else None  # candidates are screened
            if drop:  # it must reach no prompt either
                return self.books.drop(ask, ask.stage, drop)
            return _STEPS[ask.stage][1](self, ask, response)
        reason = "content_filter" if response.finish_reason == "content_filter" else "engine_error"
        self.books.drop_request(number, ask, Drop(reason, response.error))
        if ask.stage == "propose":
            ask.pool.proposals_in_flight -= 1
        return self.books.drop(ask, ask.stage, Drop(reason, response.error))

    def finish(self) -> None:
        """Close what was under way when the goal was reached, and prove that the ledger adds up."""
        for pool in self.pools:
            for ask in list(pool.queue):
                self.books.drop(ask, ask.stage, not_needed(pool))
            pool.queue.clear()
        for ledger in (self.requests, self.candidates, self.instances):
            ledger.check()

    def validate(self, ask: Ask, finish_reason: str) -> None:
        """Validate an instance that came whole (Alpaca's variant)."""
        steps_instance.check(self, ask, finish_reason)

    def _seeded(self, request: Request) -> Request:
        """The request with its sampling seed; one whose answer is not drawn keeps seed 0."""
        if request.choices or request.sampling.temperature == 0:
            return request
        key = int(request.digest, 16)
        draw, self.asked[key] = self.asked[key], self.asked[key] + 1
        seed = random.Random(f"{self.plan.seed}/{key}/{draw}").getrandbits(31)
        return replace(request, sampling=replace(request.sampling, seed=seed))

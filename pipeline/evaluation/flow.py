"""The evaluation as a state machine: draw the answers, score the references, ask the judge.

It is pure, so replaying the journal rebuilds it exactly. A draw's seed derives from the run's seed and the
item: other tasks or another judge ask nothing again.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.engines.base import Request, Response, Sampling
from pipeline.evaluation.references import Reference
from pipeline.evaluation.tasks import Item
from pipeline.judging.flow import Language
from pipeline.judging.model_judge import (
    Ask,
    Comparison,
    compare_request,
    parse_rating,
    parse_verdict,
    rate_request,
)
from pipeline.judging.options import PAIRWISE, SCALAR

_DRAW, _SCORE, _STRAIGHT, _EXCHANGED = "draw", "score", "straight", "exchanged"


@dataclass(frozen=True)
class Plan:
    """What the state machine needs to know; `references` are those that are to be scored, by item."""

    sampling: Sampling
    seed: int
    judges: tuple[str, ...]
    ask: Ask
    references: Mapping[str, Reference] = field(default_factory=dict)


@dataclass
class Record:
    """What became of an item: the answer, the reference's log-probability, what the judge said.

    `rating` is in [0, 1]; `verdicts` are of the answer before the reference and behind it.
    """

    item: Item
    text: str = ""
    finish_reason: str = ""
    error: str = ""
    tokens: int = 0
    request: int = -1
    logprob: float | None = None
    rating: float | None = None
    verdicts: dict[str, str | None] = field(default_factory=dict)

    @property
    def comparison(self) -> Comparison | None:
        """The answer (first) against the reference; None if they were not compared."""
        if len(self.verdicts) < 2:
            return None
        return Comparison(self.verdicts[_STRAIGHT], self.verdicts[_EXCHANGED])


class Evaluating:
    """Implements `scheduler.Job`."""

    def __init__(self, plan: Plan, items: Sequence[Item], languages: Mapping[str, Language]) -> None:
        self.plan, self.languages = plan, languages
        self.records = [Record(item) for item in items]
        self.drawn = self.scored = self.judged = self.unread = 0
        todo = [(record, _DRAW) for record in self.records]
        todo += [(record, _SCORE) for record in self.records if record.item.id in plan.references]
        self.total = len(todo)
        self._todo, self._steps = deque(todo), dict[int, tuple[Record, str]]()

    def next_request(self, number: int) -> Request | None:
        """The next draw, else the next reference, else the next question to the judge."""
        if not self._todo:
            return None
        record, kind = self._steps[number] = self._todo.popleft()
        prompt, said = record.item.prompt, self.languages[record.item.prompt.language]
        if kind == _DRAW:
            seed = random.Random(f"{self.plan.seed}/{prompt.id}/0").getrandbits(31)
            plan = self.plan.sampling
            sampling = Sampling(plan.temperature, plan.top_p, max_tokens=plan.max_tokens, seed=seed)
            return Request(prompt.request, True, prompt.system, sampling)
        if kind == _SCORE:
            choices = (("", self.plan.references[prompt.id].text),)
            return Request(prompt.request, True, prompt.system, choices=choices)
        if kind == SCALAR:
            return rate_request(said.rate, prompt, record.text, self.plan.ask)
        two = (record.text, prompt.reference)
        first, second = two if kind == _STRAIGHT else two[::-1]
        return compare_request(said.compare, prompt, first, second, self.plan.ask)

    def prepare(self, first: int, responses: Sequence[Response]) -> None:
        """Nothing is done better together."""

    def admit(self, number: int, response: Response) -> None:
        """Take an answer, a log-probability, a verdict or a rating."""
        record, kind = self._steps.pop(number)
        if kind == _DRAW:
            return self._drawn(record, number, response)
        if kind == _SCORE:
            self.scored += 1
            record.logprob = response.choice_logprobs[0] if response.choice_logprobs else None
            return None
        self.judged += 1
        if kind == SCALAR:
            record.rating = parse_rating(response)
            self.unread += record.rating is None
            return None
        verdict = parse_verdict(response)
        self.unread += verdict is None
        record.verdicts[kind] = verdict
        return None

    def _drawn(self, record: Record, number: int, response: Response) -> None:
        self.drawn += 1
        record.text, record.error = response.text.strip(), response.error
        record.finish_reason, record.tokens = response.finish_reason, response.completion_tokens
        record.request = number
        if record.error or not record.text:
            return
        if SCALAR in self.plan.judges:
            self._todo.append((record, SCALAR))
        if PAIRWISE in self.plan.judges and record.item.prompt.reference:
            self._todo += [(record, _STRAIGHT), (record, _EXCHANGED)]

"""The preferences run as a state machine: draw answers, leave out broken ones, ask a model about the rest.

It is pure, so replaying the journal rebuilds it exactly. Answers are drawn first; a prompt is judged when all
of its answers are in. A draw's seed derives from the run's seed, the prompt and the answer's number: other
prompts, another judge or a changed filter ask nothing again.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.engines.base import Request, Response, Sampling
from pipeline.judging.answers import Answer, broken, is_refusal, near_identical
from pipeline.judging.model_judge import (
    Ask,
    Comparison,
    compare_request,
    parse_rating,
    parse_verdict,
    rate_request,
)
from pipeline.judging.options import HUMAN, PAIRWISE, SCALAR
from pipeline.judging.prompt_rows import Asked
from pipeline.ledger import Ledger
from pipeline.records import Drop, Prompt
from pipeline.stages.prompts import Prompt as PromptFile
from pipeline.stages.words import Words

WRITER = "writer"


@dataclass(frozen=True)
class Plan:
    """What the state machine needs to know; `models` answer in turn, each in the role of its place."""

    models: tuple[str, ...]
    temperatures: tuple[float, ...]
    sampling: Sampling
    num_answers: int
    seed: int
    judges: tuple[str, ...]
    ask: Ask
    reference: bool
    max_similarity: float


@dataclass(frozen=True)
class Language:
    """What is said in a language: the judge's prompts, the words of refusals."""

    compare: PromptFile
    rate: PromptFile
    words: Words


@dataclass
class Case:
    """A prompt with its answers, and what a model said of them."""

    prompt: Prompt
    answers: list[Answer] = field(default_factory=list)
    comparisons: dict[tuple[int, int], Comparison] = field(default_factory=dict)
    awaited: int = 0
    verdicts: dict[tuple[int, int], str | None] = field(default_factory=dict)  # (shown first, shown second)


@dataclass(frozen=True)
class _Step:
    """A request: answer `first` is to be drawn (-1, -1), rated (n, -1), or compared with `second`."""

    case: Case
    kind: str
    first: int
    second: int = -1


class Judging:
    """Implements `scheduler.Job`; `on_drop` receives the drop records as they are decided."""

    def __init__(
        self,
        plan: Plan,
        asked: Sequence[Asked],
        languages: Mapping[str, Language],
        on_drop: Callable[[dict[str, Any]], None],
    ) -> None:
        self.plan, self.languages, self.on_drop = plan, languages, on_drop
        self.ledger = Ledger("answer")
        self.cases = [self._case(one) for one in asked]
        self.drawn = self.judged = self.unread = 0
        self._draws = iter([_Step(c, "draw", k) for c in self.cases for k in range(plan.num_answers)])
        self._judging: deque[_Step] = deque()
        self._steps: dict[int, _Step] = {}
        for case in self.cases:
            if not plan.num_answers:
                self._settle(case)

    def next_request(self, number: int) -> Request | None:
        """The next draw, else the next question to the judge."""
        step = next(self._draws, None) or (self._judging.popleft() if self._judging else None)
        if step is None:
            return None
        self._steps[number] = step
        prompt, texts = step.case.prompt, [answer.text for answer in step.case.answers]
        if step.kind == "draw":
            return self._draw(prompt, step.first)
        said = self.languages[prompt.language]
        if step.kind == PAIRWISE:
            return compare_request(said.compare, prompt, texts[step.first], texts[step.second], self.plan.ask)
        return rate_request(said.rate, prompt, texts[step.first], self.plan.ask)

    def prepare(self, first: int, responses: Sequence[Response]) -> None:
        """Nothing is done better together."""

    def admit(self, number: int, response: Response) -> None:
        """Take an answer, a verdict or a rating."""
        step = self._steps.pop(number)
        if step.kind == "draw":
            return self._drawn(step, number, response)
        self.judged += 1
        case = step.case
        if step.kind == SCALAR:
            rating = parse_rating(response)
            self.unread += rating is None
            if rating is not None:
                case.answers[step.first].scores[SCALAR] = rating
            return None
        verdict = parse_verdict(response)
        self.unread += verdict is None
        case.verdicts[step.first, step.second] = verdict
        one, other = sorted((step.first, step.second))
        if (one, other) in case.verdicts and (other, one) in case.verdicts:
            straight, exchanged = case.verdicts[one, other], case.verdicts[other, one]
            case.comparisons[one, other] = Comparison(straight, exchanged)
        return None

    def drop(self, answer: Answer, drop: Drop) -> None:
        """Leave an answer out."""
        self.ledger.drop(answer.id, "answers", drop.reason)
        row = {"unit": "answer", "id": answer.id, "stage": "answers", "reason": drop.reason}
        self.on_drop({**row, "evidence": drop.evidence, "model": answer.model, "text": answer.text})

    def _case(self, asked: Asked) -> Case:
        """The prompt with the answers that came with it."""
        case, prompt = Case(asked.prompt, awaited=self.plan.num_answers), asked.prompt
        given = [(one.text, one.model, one.score) for one in asked.given]
        if self.plan.reference and prompt.reference:
            given.append((prompt.reference, "reference", None))
        for number, (text, model, score) in enumerate(given):
            answer = Answer(f"{prompt.id}/given-{number}", text, model)
            if score is not None:
                answer.scores[HUMAN] = score
            self.ledger.open(answer.id)
            case.answers.append(answer)
        return case

    def _draw(self, prompt: Prompt, number: int) -> Request:
        plan, asked = self.plan, len(self.plan.models)
        which = number % asked
        temperature = plan.temperatures[number // asked % len(plan.temperatures)]
        seed = random.Random(f"{plan.seed}/{prompt.id}/{number}").getrandbits(31)
        sampling = Sampling(temperature, plan.sampling.top_p, max_tokens=plan.sampling.max_tokens, seed=seed)
        self.ledger.open(f"{prompt.id}/{number}")
        return Request(prompt.request, True, prompt.system, sampling, role=role(which))

    def _drawn(self, step: _Step, number: int, response: Response) -> None:
        case, plan, name = step.case, self.plan, f"{step.case.prompt.id}/{step.first}"
        self.drawn += 1
        case.awaited -= 1
        answer = Answer(
            name,
            response.text.strip(),
            plan.models[step.first % len(plan.models)],
            plan.temperatures[step.first // len(plan.models) % len(plan.temperatures)],
            number,
        )
        if drop := broken(response):
            self.drop(answer, drop)
        else:
            case.answers.append(answer)
        if not case.awaited:
            self._settle(case)

    def _settle(self, case: Case) -> None:
        """All answers are in: put them in the order of their names, leave out repetitions, ask the judge."""
        order = {name: i for i, name in enumerate(self._names(case))}
        case.answers.sort(key=lambda answer: order[answer.id])
        for answer in [one for one in case.answers if not one.text]:
            self.drop(answer, Drop("empty", "no text"))
            case.answers.remove(answer)
        for answer, drop in near_identical(case.answers, self.plan.max_similarity):
            self.drop(answer, drop)
            case.answers.remove(answer)
        words = self.languages[case.prompt.language].words
        for answer in case.answers:
            answer.refused = is_refusal(answer.text, words)
            self.ledger.keep(answer.id)
        count = len(case.answers)
        if SCALAR in self.plan.judges:
            self._judging += [_Step(case, SCALAR, i) for i in range(count)]
        if PAIRWISE in self.plan.judges:
            self._judging += [_Step(case, PAIRWISE, i, j) for i, j in itertools.permutations(range(count), 2)]

    def _names(self, case: Case) -> list[str]:
        given = [f"{case.prompt.id}/given-{n}" for n in range(len(case.answers))]
        return [*given, *(f"{case.prompt.id}/{n}" for n in range(self.plan.num_answers))]


def role(place: int) -> str:
    """The role of the model at this place among those that answer."""
    return f"{WRITER}-{place}" if place else WRITER

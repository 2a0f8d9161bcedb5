"""What each judge makes of each answer, as numbers of which more is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from pipeline.judging.answers import Answer
from pipeline.judging.flow import Case
from pipeline.judging.options import CHECKS, PAIRWISE, REWARD
from pipeline.verify.verifier import parse, verify


class Scorer(Protocol):
    """A reward model."""

    def score(self, conversations: Sequence[Sequence[Mapping[str, str]]]) -> list[float]:
        """A number for each conversation, whose last turn is the answer."""
        ...


def score(cases: Sequence[Case], judges: Sequence[str], reward_model: Scorer | None) -> None:
    """Write the scores of all judges that need no engine, and what a comparing model's verdicts come to.

    checks: the share of a prompt's checks that an answer passes; reward: the model's number; pairwise: the
    share of its comparisons that an answer won, a tie for half.
    """
    if CHECKS in judges:
        todo = [(case, answer) for case in cases if case.prompt.verifier for answer in case.answers]
        with ThreadPoolExecutor(2) as workers:  # code runs in processes of its own
            for (_, answer), found in zip(todo, workers.map(_checked, todo), strict=True):
                answer.scores[CHECKS], answer.checks = found
    if reward_model:
        every = [(case, answer) for case in cases for answer in case.answers]
        talks = [[*case.prompt.messages, _said(answer)] for case, answer in every]
        for (_, answer), value in zip(every, reward_model.score(talks), strict=True):
            answer.scores[REWARD] = round(value, 4)
    if PAIRWISE in judges:
        for case in cases:
            _count_wins(case)


def deciding(case: Case, judges: Sequence[str]) -> str | None:
    """The first judge that scores at least two of a prompt's answers and tells them apart.

    None if there is none.
    """
    for judge in judges:
        if len({answer.scores[judge] for answer in case.answers if judge in answer.scores}) > 1:
            return judge
    return None


def _checked(one: tuple[Case, Answer]) -> tuple[float, list[dict[str, Any]]]:
    case, answer = one
    found = verify(parse(case.prompt.verifier or {}, case.prompt.id), answer.text)
    rows = [{"id": c.id, "passed": c.passed, "evidence": c.evidence} for c in found.checks]
    return round(found.score, 4), rows


def _said(answer: Answer) -> dict[str, str]:
    return {"role": "assistant", "content": answer.text}


def _count_wins(case: Case) -> None:
    won, met = [0.0] * len(case.answers), [0] * len(case.answers)
    for pair, comparison in case.comparisons.items():
        if not comparison.read:
            continue
        for place, number in enumerate(pair):
            met[number] += 1
            won[number] += 0.5 if comparison.winner is None else float(comparison.winner == place)
    for i, answer in enumerate(case.answers):
        if met[i]:
            answer.scores[PAIRWISE] = round(won[i] / met[i], 4)

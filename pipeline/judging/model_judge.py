"""A model as judge: of two answers, asked in both orders, or of one, from 1 to 5.

Models prefer what they read first (or last): a preference counts only if it survives the exchange of the
two (Zheng et al. 2023, arXiv 2306.05685). A flip is a tie. Where the engine can score continuations, a
verdict is the likelier letter, a rating the expectation over five digits, as in G-Eval (arXiv 2303.16634).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from pipeline.engines.base import Request, Response, Sampling
from pipeline.records import Prompt as Asked
from pipeline.stages.judge import DIGITS, parse_score
from pipeline.stages.prompts import Prompt
from pipeline.stages.structured import one_of, plain, whole_number

FIRST, SECOND, TIE = "A", "B", "tie"
_LETTER = re.compile(r"\b(A|B)\b")
_TIE = re.compile(r"\b(?:tie|equal(?:ly)?|neither|both)\b|平局|一样|相当|不分", re.IGNORECASE)


@dataclass(frozen=True)
class Ask:
    """How the judge is asked: whether it scores continuations or follows a schema."""

    can_score: bool
    structured: bool


@dataclass(frozen=True)
class Comparison:
    """What a judge said of two answers, in this order and exchanged; None where nothing could be read."""

    straight: str | None
    exchanged: str | None

    @property
    def winner(self) -> int | None:
        """0 or 1, the better of the two in their own order; None for a tie."""
        if (self.straight, self.exchanged) == (FIRST, SECOND):
            return 0
        return 1 if (self.straight, self.exchanged) == (SECOND, FIRST) else None

    @property
    def flipped(self) -> bool:
        """Whether the judge went with the place, not with the answer."""
        return self.straight == self.exchanged and self.straight in (FIRST, SECOND)

    @property
    def read(self) -> list[str]:
        """The verdicts that could be read."""
        return [verdict for verdict in (self.straight, self.exchanged) if verdict]


def compare_request(prompt: Prompt, asked: Asked, first: str, second: str, ask: Ask) -> Request:
    """Ask which of two answers is better."""
    values = {"system": asked.system, "request": asked.request, "first": first, "second": second}
    if ask.can_score:
        lead = "" if prompt.chat else " "
        return prompt.request(values, choices=(("", lead + FIRST), ("", lead + SECOND)), role="judge")
    schema = one_of([FIRST, SECOND, TIE]) if ask.structured else ""
    return prompt.request(values, Sampling(max_tokens=24 if schema else 8), role="judge", schema=schema)


def rate_request(prompt: Prompt, asked: Asked, answer: str, ask: Ask) -> Request:
    """Ask for a score from 1 to 5 of one answer."""
    values = {"system": asked.system, "request": asked.request, "answer": answer}
    if ask.can_score:
        lead = "" if prompt.chat else " "
        return prompt.request(values, choices=tuple(("", lead + d) for d in DIGITS), role="judge")
    schema = whole_number(1, 5) if ask.structured else ""
    return prompt.request(values, Sampling(max_tokens=24 if schema else 8), role="judge", schema=schema)


def parse_verdict(response: Response) -> str | None:
    """FIRST, SECOND or TIE; None where the answer says neither, or both."""
    if response.error:
        return None
    if response.choice_logprobs:
        first, second = response.choice_logprobs
        return TIE if first == second else FIRST if first > second else SECOND
    text = plain(response.text)
    letters = set(_LETTER.findall(text))
    if len(letters) == 1:
        return str(letters.pop())
    return TIE if _TIE.search(text) and not letters else None


def parse_rating(response: Response) -> float | None:
    """The rating as a score in [0, 1]; None where there is none."""
    rating = None if response.error else parse_score(response)
    return None if rating is None else round((rating - 1) / 4, 4)

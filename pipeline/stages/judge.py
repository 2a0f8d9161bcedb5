"""Optional last check: a model scores each example from 1 to 5 against a rubric (the judge prompts).

Where the engine can score, the result is the expectation over the five digits' likelihoods, which separates
examples that a single drawn digit would tie.
"""

from __future__ import annotations

import math
import re

from pipeline.engines.base import Request, Response, Sampling
from pipeline.stages.prompts import Prompt
from pipeline.stages.structured import plain, whole_number

DIGITS = ("1", "2", "3", "4", "5")


def judge_request(
    prompt: Prompt, instruction: str, input: str, output: str, *, can_score: bool, structured: bool = False
) -> Request:
    """Ask for a score of one example, as JSON if `structured`."""
    values = {"instruction": instruction, "input": input, "output": output}
    if can_score:
        lead = "" if prompt.chat else " "
        return prompt.request(values, choices=tuple(("", lead + d) for d in DIGITS), role="judge")
    if structured:
        return prompt.request(values, Sampling(max_tokens=24), role="judge", schema=whole_number(1, 5))
    return prompt.request(values, Sampling(max_tokens=8), role="judge")


def parse_score(response: Response) -> float | None:
    """The score in [1, 5]; None where the answer has no digit from 1 to 5."""
    if response.choice_logprobs:
        top = max(response.choice_logprobs)
        weights = [math.exp(value - top) for value in response.choice_logprobs]
        return round(sum(i * w for i, w in enumerate(weights, 1)) / sum(weights), 3)
    found = re.search(r"(?<![\d.])[1-5](?!\d)", plain(response.text))
    return float(found[0]) if found else None

"""Stage 4, classify: is the answer one label out of a small set? (Wang et al. 2022, section 2.2)

With a chat model the question is asked, with yes and no shown, and the two answers' likelihoods are
compared where the engine can score, else the answer is parsed. A small base model cannot answer such a
question, but it can tell in which of two lists a task is likelier to stand: with completion prompts and
scoring, the task's likelihood after a list of classification tasks is compared with that after a list of
open tasks (the noisy channel of Min et al. 2022, arXiv:2108.04106; tests/bench/classify.py measures both).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from pipeline.engines.base import Request, Response, Sampling
from pipeline.records import Drop, SeedTask
from pipeline.stages.prompts import Prompt
from pipeline.stages.text import length

ANSWERS = {"en": ("Yes", "No"), "zh": ("是", "否")}
_SHOWN = 4  # demonstrations of each kind
_YES = re.compile(r"^\W*(yes\b|是(?![否不])|对(?![不于]))", re.IGNORECASE)
_NO = re.compile(r"^\W*(no\b|否|不|非(?!常))", re.IGNORECASE)


def classify_demonstrations(
    rng: random.Random, seeds: Sequence[SeedTask], max_length: int
) -> list[tuple[str, bool]]:
    """Short seeds of both kinds in turn, as (instruction, is it classification)."""
    short = [s for s in seeds if length(s.instruction) <= max_length]
    yes = [s.instruction for s in short if s.is_classification]
    no = [s.instruction for s in short if not s.is_classification]
    count = min(_SHOWN, len(yes), len(no))
    pairs = zip(rng.sample(yes, count), rng.sample(no, count), strict=True)
    return [shown for y, n in pairs for shown in ((y, True), (n, False))]


def compare_request(prompt: Prompt, shown: Sequence[tuple[str, bool]], instruction: str) -> Request:
    """Score `instruction` as the next item of a list of classification tasks and of a list of open tasks."""
    lists = [
        prompt.render(classification=kind, demonstrations=[t for t, k in shown if k == kind])
        for kind in (True, False)
    ]
    return Request("", choices=tuple((context, f" {instruction}\n") for context in lists))


def ask_request(
    prompt: Prompt, shown: Sequence[tuple[str, bool]], instruction: str, language: str, *, can_score: bool
) -> Request:
    """Ask whether `instruction` is a classification task; "yes" is the first choice."""
    values = {"demonstrations": shown, "instruction": instruction}
    if can_score:
        lead = "" if prompt.chat or language == "zh" else " "
        return prompt.request(values, choices=tuple(("", lead + answer) for answer in ANSWERS[language]))
    return prompt.request(values, Sampling(max_tokens=8, stop=("\n",)))


def parse_classification(response: Response, margin: float = 0.0) -> bool | None:
    """True for a classification task, False for another one, None where the answer says neither.

    Likelihoods must differ by more than `margin` nats for a yes.
    """
    if response.choice_logprobs:
        return response.choice_logprobs[0] - response.choice_logprobs[1] > margin
    return True if _YES.match(response.text) else False if _NO.match(response.text) else None


def implausible(response: Response, instruction: str, least: float) -> Drop | None:
    """Drop an instruction that the model finds unlikely in both lists.

    Under `least` nats per unit of length.

    Only for compared lists (`compare_request`); it removes word salad that keeps the form of a request. Two
    units are added to the length for the end of the line, or short instructions would look unlikely.
    """
    per_unit = max(response.choice_logprobs) / (length(instruction) + 2)
    return Drop("implausible", f"{per_unit:.2f} nats a unit < {least:g}") if per_unit < least else None

"""Alpaca's variant of Self-Instruct (Taori et al. 2023): a task is proposed with its input and output.

Cheaper per example (one request instead of three or four), but the model must hold a format and answer in
it, which small models do badly; there is no classification step. Screening, dedup and validation are the
same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.engines.base import Request, Sampling
from pipeline.records import Drop, SeedTask
from pipeline.stages.instantiate import parse_input
from pipeline.stages.prompts import Prompt
from pipeline.stages.text import collapse

_TASK = re.compile(
    r"^\W*(?:Task|任务)[ \t]*\d*[ \t]*[:：]|^[ \t]*\d{1,3}[.、．)][ \t]*(?:(?:Task|任务)[ \t]*[:：])?",
    re.MULTILINE,
)
_INPUT = re.compile(r"^\W*(?:Input|输入)[ \t]*[:：]", re.MULTILINE)
_OUTPUT = re.compile(r"^\W*(?:Output|Answer|输出|答案)[ \t]*[:：]", re.MULTILINE)
_STOP = {"en": "\n\nTask:", "zh": "\n\n任务："}


@dataclass(frozen=True)
class Proposal:
    """A proposed example; `drop` says why it is none."""

    instruction: str
    input: str = ""
    output: str = ""
    drop: Drop | None = None


def alpaca_request(
    prompt: Prompt, shown: Sequence[SeedTask], opener: str, count: int, language: str, sampling: Sampling
) -> Request:
    """Ask for `count` new examples after whole ones."""
    first = [(s.instruction, s.instances[0].input, s.instances[0].output) for s in shown]
    stop = () if prompt.chat or count > 1 else (_STOP[language],)
    return prompt.request(
        {"demonstrations": first, "opener": opener, "count": count}, replace(sampling, stop=stop)
    )


def parse_alpaca(text: str, opener: str, *, chat: bool, finish_reason: str) -> list[Proposal]:
    """The proposed examples in order.

    Reasons: cut_off (the answer ended at the length limit inside this example), no_output (its output is
    missing).
    """
    whole = text if chat else f"Task: {opener}{text}"
    marks = [m for m in _TASK.finditer(whole) if "Task" in m[0] or "任务" in m[0] or _opens_example(whole, m)]
    bounds = [*(m.start() for m in marks), len(whole)]
    blocks = [whole[m.end() : end] for m, end in zip(marks, bounds[1:], strict=True)]
    found = [_example(block) for block in blocks]
    if found and finish_reason == "length":
        last = found[-1]
        found[-1] = replace(
            last, drop=Drop("cut_off", f"the answer reached its length limit in '{last.output[-40:]}'")
        )
    return [p for p in found if p.instruction]


def _opens_example(text: str, mark: re.Match[str]) -> bool:
    """Whether a bare number opens an example and no item of a list: an input or output label follows soon."""
    following = text[mark.end() :].split("\n", 2)
    return len(following) > 1 and bool(_INPUT.match(following[1]) or _OUTPUT.match(following[1]))


def _example(block: str) -> Proposal:
    output = _OUTPUT.search(block)
    head = block[: output.start()] if output else block
    given = _INPUT.search(head)
    instruction = collapse(head[: given.start()] if given else head).strip("* ")
    if not output:
        return Proposal(instruction, drop=Drop("no_output", collapse(block)[:80]))
    return Proposal(
        instruction, parse_input(head[given.end() :]) if given else "", block[output.end() :].strip()
    )

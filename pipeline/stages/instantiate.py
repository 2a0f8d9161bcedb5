"""Stage 5, instantiate: inputs and outputs for an instruction (Wang et al. 2022, section 2.3).

Open tasks are made input first. Classification tasks are made output first: labels, then an input for each
label, so that labels are balanced. The answer is asked for in a request of its own, in the form in which
the model answers best.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.engines.base import Request, Sampling
from pipeline.records import SeedTask
from pipeline.stages.prompts import Prompt
from pipeline.stages.structured import list_of_text, plain
from pipeline.stages.text import length

_NONE = re.compile(
    r"^\W*(?:(?:none|no|no input|not)(?: is)?(?: needed| required| necessary| applicable)?|n/?a"
    r"|(?:无|无需|没有|不需要|不用)(?:输入)?)\W*$",
    re.IGNORECASE,
)
# 或许 and 温和, 和平 are words
_LABEL_SPLIT = re.compile(
    r"\s*(?:[,，、;；/|]|\bor\b|\band\b|或者|或(?!许)|(?<![温缓暖平谦柔随])和(?![平谐睦蔼]))\s*",
    re.IGNORECASE,
)
_LIST_MARK = re.compile(r"^\s*(?:[-*•·]|\d{1,2}[.)、])\s*")
_LABEL_LEAD = re.compile(r"^\W*(?:labels?|标签)\s*[:：]", re.IGNORECASE)
_STOP = {
    "en": ("\n\n", "\nTask:", "\nInput:", "\nLabel", "\nOutput:"),
    "zh": ("\n\n", "\n任务：", "\n输入：", "\n标签", "\n答案："),
}
# Closed sets of labels that need not stand in the instruction, with the words that ask for them.
_COMMON_LABELS = tuple(
    (frozenset(labels.split()), re.compile(asks, re.IGNORECASE))
    for labels, asks in (
        ("yes no", r"\?|\bwhether\b|\bif\b"),
        ("true false", r"\?|\bwhether\b|\btrue\b|\bfalse\b|\bfact"),
        ("correct incorrect", r"\b(?:in)?correct|\bwhether\b|\berrors?\b|\bmistakes?\b"),
        (
            "positive negative neutral",
            r"\bsentiment|\btone\b|\breviews?\b|\bfeel|\bopinion|\bfeedback\b|\bmood\b|\battitude\b",
        ),
        ("formal informal", r"\b(?:in)?formal|\btone\b|\bregister\b|\bstyle\b"),
        ("是 否 不是", "[?？]|是否|是不是|吗|判断|有没有"),
        ("对 错", "[?？]|对错|对不对|判断|正确|错误"),
        ("真 假", "[?？]|真假|判断|属实|真实"),
        ("有 无 没有", "[?？]|有没有|有无|是否有|判断"),
        ("正面 负面 中性", "情感|情绪|态度|评价|评论|留言|反馈|口碑"),
        ("好评 差评 中评", "评价|评论|留言|反馈|口碑"),
    )
)
_ANSWER_STOP = {"en": ("\nTask:", "\nInput:"), "zh": ("\n任务：", "\n输入：")}


@dataclass(frozen=True)
class InstanceDemonstrations:
    """Short seeds shown by the prompts of this stage.

    Fixed for a run, so that an engine computes them once.
    """

    inputs: tuple[tuple[str, str], ...]
    maybe_inputs: tuple[tuple[str, str], ...]
    labels: tuple[tuple[str, tuple[str, ...]], ...]
    labelled: tuple[tuple[str, str, str], ...]
    answers: tuple[tuple[str, str, str], ...]


def instance_demonstrations(
    rng: random.Random, seeds: Sequence[SeedTask], max_length: int, count: int = 6
) -> InstanceDemonstrations:
    """Draw `count` of each kind from seeds whose instruction has at most `max_length` units."""

    def some(pool: Sequence[SeedTask], number: int) -> list[SeedTask]:
        """Draw up to `number` of them."""
        return rng.sample(pool, min(number, len(pool)))

    short = whole_seeds(seeds, max_length)
    open_tasks = [s for s in short if not s.is_classification]
    given = [s for s in open_tasks if s.instances[0].input]
    alone = [s for s in open_tasks if not s.instances[0].input]
    labelled = [s for s in short if s.is_classification and s.instances[0].input]
    mixed = some(given, count // 2) + some(alone, count - count // 2)
    rng.shuffle(mixed)
    shown = some(labelled, count)
    return InstanceDemonstrations(
        inputs=tuple((s.instruction, s.instances[0].input) for s in some(given, count)),
        maybe_inputs=tuple((s.instruction, s.instances[0].input) for s in mixed),
        labels=tuple((s.instruction, tuple(dict.fromkeys(i.output for i in s.instances))) for s in shown),
        labelled=tuple((s.instruction, s.instances[0].output, s.instances[0].input) for s in shown),
        answers=tuple((s.instruction, s.instances[0].input, s.instances[0].output) for s in mixed),
    )


def whole_seeds(seeds: Sequence[SeedTask], max_length: int) -> list[SeedTask]:
    """Seeds short enough to be shown whole.

    Instruction within `max_length` units, input and output within twice that.
    """
    return [
        s
        for s in seeds
        if length(s.instruction) <= max_length
        and length(s.instances[0].input) <= 2 * max_length
        and length(s.instances[0].output) <= 2 * max_length
        and "\n\n" not in s.instances[0].input + s.instances[0].output
    ]


def input_request(
    prompt: Prompt,
    shown: InstanceDemonstrations,
    instruction: str,
    language: str,
    sampling: Sampling,
    *,
    optional: bool,
) -> Request:
    """Ask for an input; with `optional` the model may say that none is needed."""
    demonstrations = shown.maybe_inputs if optional else shown.inputs
    values = {"demonstrations": demonstrations, "instruction": instruction, "optional": optional}
    return prompt.request(values, _stopping(prompt, _STOP[language], sampling))


def parse_input(text: str) -> str:
    """The input, "" if the model says that there is none."""
    stripped = _unfence(text.strip())
    return "" if _NONE.match(stripped) else stripped


def labels_request(
    prompt: Prompt,
    shown: InstanceDemonstrations,
    instruction: str,
    sampling: Sampling,
    *,
    structured: bool = False,
) -> Request:
    """Ask which labels can be the answer to a classification task, as JSON if `structured`."""
    values = {"demonstrations": shown.labels, "instruction": instruction}
    if structured:
        return prompt.request(values, sampling, schema=list_of_text())
    return prompt.request(values, _stopping(prompt, ("\n",), sampling))


def parse_labels(text: str, max_labels: int = 8, max_length: int = 6) -> tuple[str, ...]:
    """The distinct labels of a comma-separated line, or of a list with a label on each line.

    () if it does not read as one (fewer than two short labels).
    """
    lines = _LABEL_LEAD.sub("", plain(text).strip()).strip().split("\n")
    listed = [_LIST_MARK.sub("", line).strip() for line in lines]
    marked = all(_LIST_MARK.match(line) for line in lines) and len(lines) > 1
    line = ", ".join(listed) if marked else lines[0].rstrip(".。")
    labels: dict[str, str] = {}
    for part in _LABEL_SPLIT.split(line):
        label = part.strip(" \t\"'“”‘’.。*`")
        if label:
            labels.setdefault(label.casefold(), label)
    fits = len(labels) >= 2 and all(length(label) <= max_length for label in labels.values())
    return tuple(labels.values())[:max_labels] if fits else ()


def named_labels(labels: Sequence[str], instruction: str) -> tuple[str, ...]:
    """Those labels that the instruction names, or all of a common closed set that it asks for.

    A small model lists labels for anything; () if fewer than two remain.
    """
    lower = {label.casefold() for label in labels}
    if any(lower <= common and asks.search(instruction) for common, asks in _COMMON_LABELS):
        return tuple(labels)
    named = tuple(label for label in labels if _names(instruction, label))
    return named if len(named) >= 2 else ()


def _names(instruction: str, label: str) -> bool:
    """Whether the label stands in the instruction as a word of its own.

    Chinese has no gaps between words.
    """
    before, after = (r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])") if label.isascii() else ("", "")
    return bool(re.search(rf"{before}{re.escape(label)}{after}", instruction, re.IGNORECASE))


def labelled_input_request(
    prompt: Prompt,
    shown: InstanceDemonstrations,
    instruction: str,
    label: str,
    language: str,
    sampling: Sampling,
) -> Request:
    """Ask for an input whose right answer is `label`."""
    values = {"demonstrations": shown.labelled, "instruction": instruction, "label": label}
    return prompt.request(values, _stopping(prompt, _STOP[language], sampling))


def answer_request(
    prompt: Prompt,
    shown: InstanceDemonstrations,
    instruction: str,
    input: str,
    language: str,
    sampling: Sampling,
) -> Request:
    """Ask for the output of an open task."""
    values = {"instruction": instruction, "input": input, "demonstrations": shown.answers}
    return prompt.request(values, _stopping(prompt, _ANSWER_STOP[language], sampling))


def _stopping(prompt: Prompt, stop: tuple[str, ...], sampling: Sampling) -> Sampling:
    """A completion is ended by what would begin the next demonstration.

    A chat model ends its turn by itself.
    """
    return sampling if prompt.chat else replace(sampling, stop=stop)


def _unfence(text: str) -> str:
    """The text without quotation marks around the whole of it."""
    pairs = {'"': '"', "“": "”", "「": "」"}
    if (
        len(text) > 2
        and pairs.get(text[0]) == text[-1]
        and text.count(text[0]) == (2 if text[0] == '"' else 1)
    ):
        return text[1:-1].strip()
    return text

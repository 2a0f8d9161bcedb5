"""Validation of instances: plain tests of (instruction, input, output) in a fixed order, each for one reason.

After Self-Instruct's heuristics (too short or long, input repeated as output, one input with several outputs;
arXiv 2212.10560, section 2.2), extended by what needs no judge: language, JSON, Python, given text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.records import Drop, Instance
from pipeline.stages.code_checks import (
    ABOUT_CODE,
    CODE_SHARE,
    FENCED,
    invalid_json,
    invalid_python,
    is_json,
    looks_like_code,
    num_fences,
)
from pipeline.stages.constraints import unmet_constraint
from pipeline.stages.echoes import (
    input_equals_output,
    input_holds_label,
    input_repeats_instruction,
    output_repeats_instruction,
)
from pipeline.stages.language import is_language, names_language, requested_language
from pipeline.stages.references import lacks_second_text
from pipeline.stages.references import refers_to_input as refers_to_input
from pipeline.stages.repetition import repetition
from pipeline.stages.screen import (
    ABOUT_AI,
    QUOTED,
    ROLE,
    prompt_leak,
    refusal,
    special_token,
    too_long,
    too_short,
)
from pipeline.stages.text import units
from pipeline.stages.words import Words, normalise, quote, same

REASONS = (
    "truncated",
    "empty_output",
    "special_token",
    "refusal",
    "prompt_leak",
    "missing_input",
    "input_equals_output",
    "input_repeats_instruction",
    "input_holds_label",
    "output_repeats_instruction",
    "ends_in_colon",
    "repetition",
    "too_short",
    "too_long",
    "wrong_output_language",
    "invalid_json",
    "invalid_python",
    "debris",
    "unmet_constraint",
    "conflicting_output",
    "duplicate_instance",
)
REFUSED_WITHIN = 120  # characters: an answer refuses at its start, a letter may say "I cannot" later
_FEW = 4  # units that say nothing about a language

_TOLD_LENGTH = re.compile(r"\b\d+ words\b|\bone short \w+|[\d一二三四五六七八九十百两]+字", re.IGNORECASE)
_NOTHING = frozenset(
    (
        "none",
        "n/a",
        "na",
        "nil",
        "null",
        "nothing",
        "no output",
        "no answer",
        "无",
        "暂无",
        "没有",
        "空",
        "无输出",
    )
)
_TURNED_DOWN = re.compile(
    r"declin|refus|turn\w* down|apolog|sorry|excuse|absen|reject|respon|repl[yi]|e-?mail|letter|dialog"
    r"|convers"
    r"|婉拒|拒绝|道歉|回复|回应|借口|请假|对话|邮件|信",
    re.IGNORECASE,
)
_TALK = re.compile(
    r"dialog|convers|chat|script|scene|interview|role|对话|聊天|剧本|采访|台词|问答", re.IGNORECASE
)
_OUTPUT_LABEL = re.compile(
    r"^\W{0,4}(?P<label>Input|Output|Task|Instruction|Response|输入|输出|任务"
    r"|指令)\W{0,3}[:：]",
    re.MULTILINE,
)
_NTH = r"(?:Example|Task|Instance|示例|例子|例|任务)\s*"
_CONTINUED = re.compile(rf"^\W{{0,4}}{_NTH}[2-9二三四五六七八九]\s*(?:[:：.、]|$)", re.MULTILINE)
_EMPTY_ITEMS = re.compile(r"^\W*(?:\d{1,2}[.)、][ \t\n]+){3,}", re.MULTILINE)
_FIRST = re.compile(rf"{_NTH}[1一]", re.IGNORECASE)


@dataclass(frozen=True)
class ValidateLimits:
    """Lengths in units of `text.length`: English words, Chinese characters."""

    min_output: int = 1
    max_output: int = 400
    max_input: int = 300


LIMITS = ValidateLimits()


def validate(
    instruction: str,
    input: str,
    output: str,
    *,
    finish_reason: str,
    language: str,
    is_classification: bool,
    words: Words,
    limits: ValidateLimits = LIMITS,
    prompt_texts: Sequence[str] = (),
) -> Drop | None:
    """Run every test in the order of REASONS; the first that fires is the reason."""
    return (
        truncated(finish_reason)
        or empty_output(output, instruction, is_classification)
        or special_token(input)
        or special_token(output)
        or refused(output, instruction, words)
        or prompt_leak(input, words, prompt_texts, language)
        or prompt_leak(output, words, prompt_texts, language)
        or own_length(f"{instruction}\n{input}", output, prompt_texts)
        or missing_input(instruction, input, words)
        or input_equals_output(instruction, input, output, is_classification)
        or input_repeats_instruction(instruction, input)
        or (input_holds_label(instruction, input, output) if is_classification else None)
        or output_repeats_instruction(instruction, output, is_classification)
        or ends_in_colon(output)
        or repetition(output)
        or repetition(input)
        or (too_short(output, limits.min_output) if units(output) else None)
        or too_long(output, limits.max_output)
        or too_long(input, limits.max_input)
        or wrong_output_language(instruction, output, language, is_classification)
        or invalid_json(instruction, output)
        or invalid_python(instruction, output)
        or debris(instruction, input, output)
        or unmet_constraint(instruction, output, is_classification)
    )


def conflict(instances: Sequence[Instance], input: str, output: str) -> Drop | None:
    """Drop what the earlier `instances` of the same task hold already, or answer otherwise."""
    for number, earlier in enumerate(instances, 1):
        if same(earlier.input) == same(input):
            reason = "duplicate_instance" if same(earlier.output) == same(output) else "conflicting_output"
            return Drop(reason, quote(f"instance {number}: {earlier.output}"))
    return None


def truncated(finish_reason: str) -> Drop | None:
    """Drop an output that ran into the token limit."""
    return Drop("truncated", "finish_reason length") if finish_reason == "length" else None


def empty_output(output: str, instruction: str = "", is_classification: bool = False) -> Drop | None:
    """Drop nothing, only punctuation, or a word for nothing that is no label and not in the instruction."""
    plain = same(output)
    filled = any(c.isalnum() or unicodedata.category(c) == "So" for c in output)  # So: emoji
    if filled and (plain not in _NOTHING or is_classification or plain in normalise(instruction)):
        return None
    return Drop("empty_output", quote(output) or "no text")


def refused(output: str, instruction: str, words: Words) -> Drop | None:
    """Drop a refusal; where a reply, a letter or an apology is asked for, only talk of being an AI counts."""
    if _TALK.search(instruction) and ABOUT_AI.search(instruction):
        return None  # a conversation with a chatbot was asked for
    return refusal(output, words, within=0 if _TURNED_DOWN.search(instruction) else REFUSED_WITHIN)


def own_length(asked: str, output: str, prompt_texts: Sequence[str]) -> Drop | None:
    """Drop an output that speaks of the length that only the prompt told it to have (reason prompt_leak)."""
    told = {found.lower() for text in prompt_texts for found in _TOLD_LENGTH.findall(text)}
    leaked = next((words for words in told if words in output.lower() and words not in asked.lower()), "")
    return Drop("prompt_leak", quote(leaked)) if leaked else None


def missing_input(instruction: str, input: str, words: Words) -> Drop | None:
    """Drop an empty input where the instruction needs one, and a single one where it compares two."""
    given = input.strip()
    missing = lacks_second_text(instruction, given) if given else refers_to_input(instruction, words)
    return Drop("missing_input", quote(instruction)) if missing else None


def ends_in_colon(output: str) -> Drop | None:
    """Drop an output that announces something and stops."""
    announces = output.rstrip("* \n").endswith((":", "："))
    return Drop("ends_in_colon", quote(output[-60:])) if announces else None


def wrong_output_language(
    instruction: str, output: str, language: str, is_classification: bool = False
) -> Drop | None:
    """Drop an output in another language than the one asked for or, without that, than the task's own."""
    wanted = requested_language(instruction)
    if is_classification or (wanted is None and names_language(instruction)):
        return None
    share = CODE_SHARE / 2 if ABOUT_CODE.search(instruction) else CODE_SHARE
    if is_json(output) or looks_like_code(output, share):
        return None
    prose = FENCED.sub(" ", output)
    if len(units(prose)) < _FEW or (wanted is None and "```" in output):
        return None
    quoted = " ".join(QUOTED.findall(prose))
    texts = [prose, QUOTED.sub(" ", prose), *([quoted] if len(units(quoted)) >= _FEW else [])]
    if any(is_language(text, wanted or language) for text in texts):
        return None
    return Drop("wrong_output_language", quote(f"not {wanted or language}: {output}"))


def debris(instruction: str, input: str, output: str) -> Drop | None:
    """Find an open fence, list items without text, and a prompt gone on with: roles, labels, "Example 2"."""
    fences = num_fences(output)
    if fences % 2:
        return Drop("debris", f"{fences} code fences")
    asked = instruction + "\n" + input
    if empty := _EMPTY_ITEMS.search(output):
        return Drop("debris", quote(output, empty.start()))
    found = None if _TALK.search(asked) or ROLE.search(input) else ROLE.search(output)
    if not found and not ABOUT_CODE.search(asked) and not fences:
        labels = (m for m in _OUTPUT_LABEL.finditer(output) if m["label"].lower() not in asked.lower())
        found = next(labels, None)
    if not found and not _FIRST.search(output):
        found = _CONTINUED.search(output)
    return Drop("debris", quote(output, found.start())) if found else None

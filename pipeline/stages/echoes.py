"""Outputs that only say again what was given: the input, a quoted text, the instruction itself."""

from __future__ import annotations

import difflib
import re
from collections import Counter

from pipeline.records import Drop
from pipeline.stages.screen import QUOTED
from pipeline.stages.text import units
from pipeline.stages.words import quote, same

_MARKS = "\"'“”‘’「」『』《》`"
ECHO_UNITS, ECHO_SHARE = 7, 0.8  # of an instruction and its input; their share of units in common
LABEL_UNITS = 2  # of a label on a line of its own
COPIED_SHARE = 0.8  # of a short output's units in one run of the instruction
COPIED_UNITS = (6, 60)  # below it a copy is a label or a name, above it an answer may quote
ALIKE_SHARE, ALIKE_UNITS = (
    0.9,
    6,
)  # of both texts' units shared in order; shorter texts may differ in one word
# tasks whose right answer may be the input with a word changed
_EDITS = re.compile(
    r"\b(?:correct|fix|edit|proofread|mend|repair|replac|chang|modif|punctuat|capitali|grammar|spell|typo|errors?\b|mistake"
    r"|tense|person\b|voice|plural|singular|anonymi|redact|mask|insert|add\b|remov|delet|omit|fill|complete|blank"
    r"|comma|connect|join|combin|merge|divid|split|alternative|sort|order|convert|turn\b|format|abbreviat|contract|negat|synonym|substitut|swap|active|passive|pronoun)"
    r"|改|修正|纠|更正|错|病句|校|替换|换成|标点|添|加上|加入|插入|补|填|删|去掉|去除|匿名|隐去|排序|顺序|格式|语态|人称|转换"
    r"|[把将].*?[变成]",
    re.IGNORECASE,
)
_FILLERS = frozenset(
    "a an the is are was of to and in that which it sure here task ok okay yes 的 是 了 好 请 在 和".split()
)


def input_equals_output(
    instruction: str, input: str, output: str, is_classification: bool = False
) -> Drop | None:
    """Drop an input that came back unchanged (hardly changed, if no edit was asked for), or a quoted text."""
    quoted = (match.group().strip(_MARKS) for match in QUOTED.finditer(instruction))
    if not is_classification and any(
        len(units(text)) >= 5 and same(text) == same(output.strip().strip(_MARKS)) for text in quoted
    ):
        return Drop("input_equals_output", quote(output))
    # line by line: to divide a text into paragraphs is work
    lines = [[same(line) for line in text.strip().split("\n")] for text in (input, output)]
    unchanged = same(input) and lines[0] == lines[1]
    if unchanged or is_classification or _EDITS.search(instruction):
        return Drop("input_equals_output", quote(output)) if unchanged else None
    given, said = units(input), units(output)
    alike = difflib.SequenceMatcher(None, given, said, autojunk=False)
    if "\n" in input or min(len(given), len(said)) < ALIKE_UNITS or alike.real_quick_ratio() < ALIKE_SHARE:
        return None
    share = alike.ratio()
    return (
        Drop("input_equals_output", quote(f"{share:.0%} the same: {output}"))
        if share >= ALIKE_SHARE
        else None
    )


def input_repeats_instruction(instruction: str, input: str) -> Drop | None:
    """Drop an input that is the instruction, begins with it, or hardly differs from it."""
    asked, given = units(instruction), units(input)
    repeated = len(asked) >= 3 and given[: len(asked)] == asked
    asked = units(QUOTED.sub(" ", instruction).split("\n")[0])  # the task without a text that it may quote
    shared = (Counter(asked) & Counter(given)).total()
    alike = len(asked) >= ECHO_UNITS and 2 * shared >= ECHO_SHARE * (len(asked) + len(given))
    return Drop("input_repeats_instruction", quote(input)) if repeated or alike else None


def input_holds_label(instruction: str, input: str, output: str) -> Drop | None:
    """Drop a classification input with a line that is only the answer or a label of the instruction."""
    named, label = set(units(instruction)), units(output)
    for line in input.split("\n"):
        said = units(line)
        if (
            said
            and line[-1] not in ":："
            and (said == label or (len(said) <= LABEL_UNITS and named.issuperset(said)))
        ):
            return Drop("input_holds_label", quote(line))
    return None


def output_repeats_instruction(instruction: str, output: str, is_classification: bool = False) -> Drop | None:
    """Drop an output that begins with the instruction, or, when short, mostly repeats it in its order."""
    asked, said = units(instruction), units(output)
    if len(asked) >= 3 and said[: len(asked)] == asked:
        return Drop("output_repeats_instruction", quote(output))
    if is_classification or not COPIED_UNITS[0] <= len(said) <= COPIED_UNITS[1]:
        return None
    # quoted and listed text may be the answer
    own = units(re.split("[:：\n]", QUOTED.sub(" ", instruction))[0])
    blocks = difflib.SequenceMatcher(None, own, said, autojunk=False).get_matching_blocks()
    repeated = sum(block.size for block in blocks)
    # "The result of 4 raised to the power of 3 is 64." restates the question and answers it
    copied = repeated >= COPIED_SHARE * len(said) and not set(said) - set(asked) - _FILLERS
    evidence = quote(f"{repeated} of {len(said)} units: {output}")
    return Drop("output_repeats_instruction", evidence) if copied else None

"""Which label of a classification an answer gives, and how good the labels are together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from pipeline.stages.text import CJK
from pipeline.stages.words import normalise, same


def said_label(answer: str, labels: Sequence[str]) -> str:
    """The one label that an answer gives; "" if it gives none, or several.

    The answer may be the label itself, begin with it ("False. The sum is ..."), or be a text in which one
    label stands and no other. A label inside a longer one ("spam" in "not spam") does not count.
    """
    text, found = normalise(answer), list[str]()
    ranked = sorted(labels, key=len, reverse=True)
    for label in ranked:
        if re.match(rf"[\W_]*{re.escape(same(label))}[\W_]*(?:[.,:;!\n]|\Z)", text):
            return label
    for label in ranked:
        text, times = _pattern(label).subn(" ", text)
        if times:
            found.append(label)
    return found[0] if len(found) == 1 else ""


def _pattern(label: str) -> re.Pattern[str]:
    plain = normalise(label)
    if CJK.fullmatch(plain):  # 对 alone, in 是对的, at the end; but not in 不对, 绝对, 对于
        begun = r"(?:\A|(?<=[是为选答读应:\"'\s]))"
        return re.compile(rf"{begun}{plain}(?=\Z|[\s.,!;\"'的天季字声误])|(?<![不没绝]){plain}(?=[.!\"']?\Z)")
    before = r"(?<![a-z0-9])" if plain[:1].isascii() and plain[:1].isalnum() else "(?<![不没])"
    after = r"(?![a-z0-9])" if plain[-1:].isascii() and plain[-1:].isalnum() else ""
    return re.compile(before + r"\s+".join(map(re.escape, plain.split())) + after)


def macro_f1(labels: Sequence[str], wanted: Sequence[str], given: Sequence[str]) -> float:
    """The mean F1 over the labels that are wanted; an answer without a label is a miss and nothing else."""
    hits = Counter(w for w, g in zip(wanted, given, strict=True) if w == g)
    asked, said = Counter(wanted), Counter(given)
    scores = [2 * hits[label] / (asked[label] + said[label]) for label in labels if asked[label]]
    return sum(scores) / len(scores) if scores else 0.0


def chance(tasks: Mapping[str, Sequence[str]]) -> float:
    """The accuracy of guessing: the mean over tasks of one over their labels."""
    return sum(1 / len(labels) for labels in tasks.values()) / len(tasks) if tasks else 0.0

"""Evolve an instruction: make it harder (in depth), or a rarer one of the same field (in breadth).

Evol-Instruct (Xu et al. 2023, arXiv:2304.12244), with these deviations: the words are ours
(prompts/LANGUAGE/evolve.yaml); what failed is told by counting words, not by asking the model; a completion
goes on from pairs of examples, primed with the old instruction and the first words of what to add.

Reasons in this order: cut_off, prompt_echo, evolution_leak, unevolved; in depth not_deeper, lost_subject;
in breadth lost_field, where embeddings read the language.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.dedup.tokens import tokenize
from pipeline.engines.base import Request, Sampling
from pipeline.errors import PipelineError
from pipeline.records import Drop, read_text
from pipeline.stages.prompts import Prompt
from pipeline.stages.propose import clean_item
from pipeline.stages.screen import prompt_leak
from pipeline.stages.text import CJK, collapse, length
from pipeline.stages.words import Words, find_phrase, normalise, quote, same

_STEM = 5  # letters that tell a word: memory and memories, compare and comparison are one
_KINDS = {"depth": True, "breadth": False}
_FIELDS = ("kind", "how", "leads", "examples")
_STOPS = ".?!。？！…"
_LABEL = re.compile(
    r"^\W*(?:(?:new|harder|rarer|evolved|final)\s+)?(?:task|instruction|version)\W*[:：]\s*\**"
    r"|^\W*(?:新的?|更难的?|更少见的?)?(?:任务|指令)\W*[:：]\s*\**",
    re.IGNORECASE,
)
_INTRODUCTION = re.compile(
    r"\W*(?:here|sure|certainly|of course|okay|好|当然|没问题|以下|下面|这是|改).*[:：]\W*$", re.IGNORECASE
)


@dataclass(frozen=True)
class Operation:
    """One way to evolve; evolve.yaml says what its fields are for."""

    name: str
    in_depth: bool
    how: str
    leads: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Evolution:
    """The operations of a language, and the words that tell a failed attempt."""

    operations: tuple[Operation, ...]
    leaks: tuple[str, ...]
    frame: frozenset[str]

    def named(self, name: str) -> Operation:
        """The operation of that name."""
        return next(operation for operation in self.operations if operation.name == name)


def opening(parent: str, lead: str, *, in_depth: bool) -> str:
    """What a completion is primed with; see `leads` in evolve.yaml."""
    if not in_depth:
        return lead
    bare, wide = parent.rstrip(f" {_STOPS}"), bool(CJK.search(lead))
    if lead[0] in ",，" or lead[0].islower():
        return f"{bare}{'' if lead[0] in ',，' else ' '}{lead}"
    end = parent[len(bare) :].strip() or ("。" if wide else ".")
    return f"{bare}{end}{'' if wide else ' '}{lead}"


def evolve_request(
    prompt: Prompt, operation: Operation, parent: str, opener: str, sampling: Sampling
) -> Request:
    """Ask what becomes of `parent`; a completion ends with the line."""
    values = {
        "how": operation.how,
        "in_depth": operation.in_depth,
        "examples": operation.examples,
        "instruction": parent,
        "opener": opener,
    }
    return prompt.request(values, replace(sampling, stop=() if prompt.chat else ("\n",)))


def parse_evolved(
    text: str, opener: str, operation: Operation, *, chat: bool, finish_reason: str
) -> tuple[str, Drop | None] | None:
    """The evolved instruction, with the reason if it can be told here that it is none; None for no text.

    Copes with an introduction on a line of its own and with a label before the instruction. Reasons: cut_off
    (the answer ended at the length limit), prompt_echo (it is one of the examples).
    """
    lines = [line for line in (text if chat else opener + text).splitlines() if line.strip()]
    if chat and len(lines) > 1 and _INTRODUCTION.match(lines[0]):
        lines = lines[1:]
    item = clean_item(_LABEL.sub("", collapse(" ".join(lines)), count=1))
    if not item:
        return None
    if finish_reason == "length":
        return item, Drop("cut_off", f"the answer reached its length limit inside '{item[-40:]}'")
    if same(item) in {same(example) for pair in operation.examples for example in pair}:
        return item, Drop("prompt_echo", quote(item))
    return item, None


def copied(text: str, operation: Operation, words: Words, language: str) -> Drop | None:
    """Drop what holds a sentence or a long run of words of an example (reason prompt_echo)."""
    found = prompt_leak(text, words, [new for _, new in operation.examples], language)
    return Drop("prompt_echo", found.evidence) if found else None


def failed(text: str, parent: str, operation: Operation, evolution: Evolution, words: Words) -> Drop | None:
    """Whether an attempt to evolve `parent` failed: the first test that fires is the reason."""
    drop = evolution_leak(text, parent, evolution.leaks) or unevolved(text, parent, evolution.frame, words)
    if drop or not operation.in_depth:
        return drop
    return not_deeper(text, parent) or lost_subject(text, parent, evolution.frame, words)


def evolution_leak(text: str, parent: str, leaks: tuple[str, ...]) -> Drop | None:
    """Drop talk about the task and its new version, unless the parent speaks of that too."""
    said = tuple(leak for leak in leaks if not find_phrase(parent, (leak,)))
    found = find_phrase(text, said)
    return Drop("evolution_leak", quote(text, found[1])) if found else None


def unevolved(text: str, parent: str, frame: frozenset[str], words: Words) -> Drop | None:
    """Drop what says the same as its parent, or adds no word to it that is about something."""
    nothing_new = same(text) == same(parent) or not _missing(subject(text, frame, words), parent)
    return Drop("unevolved", f"adds nothing to: {quote(parent)}") if nothing_new else None


def not_deeper(text: str, parent: str) -> Drop | None:
    """Drop what is no longer than its parent."""
    ours, theirs = length(text), length(parent)
    return Drop("not_deeper", f"{ours} units, its parent has {theirs}") if ours <= theirs else None


def lost_subject(text: str, parent: str, frame: frozenset[str], words: Words) -> Drop | None:
    """Drop what holds none of the words that the parent is about."""
    about = subject(parent, frame, words)
    lost = about and len(_missing(about, text)) == len(about)
    return Drop("lost_subject", quote(f"none of: {', '.join(sorted(about))}")) if lost else None


def subject(text: str, frame: frozenset[str], words: Words) -> set[str]:
    """The words that a text is about: not those of `frame`, and not the first words of a request.

    Chinese is cut into jieba's words; there a verb of request counts nowhere, as one may begin any clause.
    """
    opener = find_phrase(text, words.openers, starts=True)
    rest = normalise(text)[opener[1] + len(opener[0]) :] if opener else normalise(text)
    verbs = _folded(words.openers)
    found = {token for token in tokenize(rest) if token not in frame}
    return {token for token in found if not (CJK.search(token) and token in verbs)}


def _missing(wanted: set[str], text: str) -> set[str]:
    """Those of the words that are not in a text; Chinese is found as a part, for words are cut by context."""
    whole = normalise(text)
    stems = set(map(_stem, tokenize(whole)))
    return {w for w in wanted if not (w in whole if CJK.search(w) else _stem(w) in stems)}


def _stem(word: str) -> str:
    return word.removesuffix("s")[:_STEM]


@functools.lru_cache(maxsize=4)
def _folded(phrases: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(normalise, phrases))


def load_evolution(path: Path) -> Evolution:
    """Read an evolve.yaml. Raises PipelineError."""
    import yaml

    try:
        data = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise PipelineError(path, f"not YAML ({error})", "Mend the file.") from None
    if not isinstance(data, dict) or set(data) != {"operations", "leaks", "frame"}:
        raise PipelineError(path, "expected 'operations', 'leaks' and 'frame'", "Mend the file.")
    operations = data["operations"]
    if not isinstance(operations, dict) or not operations:
        raise PipelineError(path, "'operations' holds none, expected NAME: {kind, ...}", "Write one.")
    leaks, frame = (_texts(data[name], f"{path}: {name}") for name in ("leaks", "frame"))
    found = (_operation(str(name), row, f"{path}: {name}") for name, row in operations.items())
    return Evolution(tuple(found), leaks, frozenset(map(normalise, frame)))


def _operation(name: str, row: Any, where: str) -> Operation:
    if not isinstance(row, dict) or set(row) != set(_FIELDS):
        raise PipelineError(where, f"expected {', '.join(_FIELDS)}", "Mend the operation.")
    if row["kind"] not in _KINDS:
        problem = f"kind is {row['kind']!r}, expected {' or '.join(_KINDS)}"
        raise PipelineError(where, problem, "Mend the operation.")
    pairs = row["examples"]
    if (
        not isinstance(pairs, list)
        or not pairs
        or not all(isinstance(p, list) and len(p) == 2 for p in pairs)
    ):
        raise PipelineError(where, "'examples' is no list of pairs", "Write [old, new] for each.")
    examples = tuple((old, new) for old, new in (_texts(pair, f"{where}: examples") for pair in pairs))
    (how,) = _texts([row["how"]], f"{where}: how")
    return Operation(name, _KINDS[row["kind"]], how, _texts(row["leads"], f"{where}: leads"), examples)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise PipelineError(where, f"got {value!r}, expected a list of text", "Mend the file.")
    for text in value:
        # YAML 1.1 reads a bare yes, no, on, off as true or false
        if not isinstance(text, str) or not text.strip():
            raise PipelineError(where, f"{text!r}, expected text", "Put the entry in quotes.")
    return tuple(value)

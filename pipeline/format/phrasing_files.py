"""The phrasings, data under prompts/formats/: read once, checked whole, refused with file and place.

A phrasing is a text with `{placeholders}`. One that holds `{input}` is for rows that have an input, any other
for rows that have none, so that no phrasing can lose one. A phrasing is known by its section and its place
there, counted from 1: `classification/3`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError
from pipeline.records import check_characters, read_text

FOLDER = Path(__file__).resolve().parents[2] / "prompts" / "formats"
# {options}: one per line, with a dash; {options_inline}: between slashes, within a sentence.
PLACEHOLDERS = ("instruction", "input", "output", "options", "options_inline")
MIN_KIND = 8  # phrasings that fit a row of a kind, with or without an input
MIN_FORM = 4  # of inversion, chain of thought, few-shot and Self-Instruct's
DEFAULT = "default"  # the kind of rows whose kind is unknown
_SECTIONS = ("kinds", "options", "inversion", "chain_of_thought", "few_shot")
_HOLE = re.compile(r"\{(\w+)\}")
_BRACES = re.compile(r"\{[^{}]*\}|[{}]")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put the values into the placeholders, in one pass: braces within a value are just characters."""
    return _HOLE.sub(lambda hole: values[hole[1]], text)


@dataclass(frozen=True)
class Phrasing:
    """A text with placeholders and its name."""

    name: str
    text: str

    @property
    def input_first(self) -> bool:
        """Whether the input stands before the instruction, in a text that has both."""
        return self.text.find("{input}") < self.text.find("{instruction}")


@dataclass(frozen=True)
class Exemplars:
    """A few-shot form: the head, then every example and the question alike.

    `alone` and `with_input` end with {output}; the question is the same text cut before it. Where the head
    holds {instruction}, it is for examples that share the instruction and have an input each.
    """

    name: str
    head: str
    alone: str
    with_input: str

    @property
    def shared(self) -> bool:
        """Whether the instruction is said once for all."""
        return "{instruction}" in self.head


@dataclass(frozen=True)
class Section:
    """The phrasings of one purpose, by whether a row has an input."""

    with_input: tuple[Phrasing, ...]
    alone: tuple[Phrasing, ...]


@dataclass(frozen=True)
class Flan:
    """One language's FLAN-style phrasings; `kinds` has one section per kind of task and `default`."""

    kinds: Mapping[str, Section]
    options: Section
    inversion: Section
    chain_of_thought: Section
    few_shot: tuple[Exemplars, ...]


@functools.cache
def read_flan(path: Path) -> Flan:
    """Read a flan.LANGUAGE.yaml. Raises PipelineError."""
    data = _mapping(path, _yaml(path), _SECTIONS, _SECTIONS)
    kinds = _mapping(path, data["kinds"], (DEFAULT,))
    listed = [["instruction", "options"], ["instruction", "options_inline"]]
    return Flan(
        {kind: _section(path, kind, texts, [["instruction"]], MIN_KIND) for kind, texts in kinds.items()},
        _section(path, "options", data["options"], listed, MIN_KIND),
        _section(path, "inversion", data["inversion"], [["output"]], MIN_FORM),
        _section(path, "chain_of_thought", data["chain_of_thought"], [["instruction"]], MIN_FORM),
        _few_shot(path, data["few_shot"]),
    )


@functools.cache
def read_self_instruct(path: Path, language: str) -> Section:
    """Read one language of self-instruct.yaml. Raises PipelineError."""
    data = _mapping(path, _yaml(path), (language,))
    return _section(path, language, data[language], [["instruction"]], MIN_FORM)


def _yaml(path: Path) -> Any:
    import yaml

    if not path.is_file():
        raise PipelineError(path, "no such file, and it would hold the phrasings", "Write it.")
    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2026-13-45
        mark = getattr(error, "problem_mark", None)
        where, problem = f"{path}:{mark.line + 1}" if mark else path, getattr(error, "problem", None) or error
        raise PipelineError(where, f"not YAML ({problem})", "Mend the file.") from None


def _mapping(
    where: object, data: Any, needed: Sequence[str], known: Sequence[str] | None = None
) -> dict[str, Any]:
    """The mapping with every needed name and, if `known` is given, no name beside those."""
    if not isinstance(data, dict):
        shown = ", ".join(needed)
        raise PipelineError(where, f"got {type(data).__name__}, expected a mapping with {shown}", "Mend it.")
    has = ", ".join(map(str, data)) or "nothing"
    for name in needed:
        if name not in data:
            raise PipelineError(where, f"no section '{name}' (has: {has})", "Write it.")
    for name in data:
        if known is not None and name not in known:
            problem = f"unknown section '{name}', expected one of {', '.join(known)}"
            raise PipelineError(where, problem, "Rename or remove it.")
    return data


def _section(path: Path, name: str, texts: Any, allowed: list[list[str]], least: int) -> Section:
    """The phrasings of a section: each holds one of the allowed sets of placeholders, and perhaps {input}."""
    if not isinstance(texts, list):
        raise PipelineError(path, f"'{name}' is {type(texts).__name__}, expected a list of texts", "Mend it.")
    found: dict[bool, list[Phrasing]] = {True: [], False: []}
    for number, text in enumerate(texts, 1):
        where = f"{path}: {name}/{number}"
        holes = _holes(where, text)
        has_input = "input" in holes
        _expect(where, holes, [[*ones, *["input"][:has_input]] for ones in allowed])
        found[has_input].append(Phrasing(f"{name}/{number}", text))
    for has_input, those in found.items():
        if len(those) < least:
            rows = "with an input" if has_input else "without an input"
            problem = f"'{name}' has {len(those)} phrasings for rows {rows}, expected at least {least}"
            raise PipelineError(path, problem, "Write more.")
    return Section(tuple(found[True]), tuple(found[False]))


def _few_shot(path: Path, forms: Any) -> tuple[Exemplars, ...]:
    if not isinstance(forms, list):
        raise PipelineError(path, f"'few_shot' is {type(forms).__name__}, expected a list", "Mend it.")
    found = tuple(_exemplars(f"{path}: few_shot/{n}", n, form) for n, form in enumerate(forms, 1))
    if (count := sum(not form.shared for form in found)) < MIN_FORM:
        problem = f"'few_shot' has {count} forms for any examples, expected at least {MIN_FORM}"
        raise PipelineError(path, problem, "Write more.")
    return found


def _exemplars(where: str, number: int, form: Any) -> Exemplars:
    parts = _mapping(where, form, ("with_input",), ("head", "alone", "with_input"))
    holes = {part: _holes(f"{where} {part}", text) for part, text in parts.items()}
    shared = "instruction" in holes.get("head", [])
    _expect(f"{where} head", holes.get("head", []), [["instruction"] if shared else []])
    needed = ["input", "output"] if shared else ["input", "instruction", "output"]
    _expect(f"{where} with_input", holes["with_input"], [needed])
    if shared and "alone" in parts:
        problem = "the head says {instruction}, so that every example needs an input, but there is 'alone'"
        raise PipelineError(where, problem, "Remove it.")
    if not shared:
        _expect(f"{where} alone", holes.get("alone", []), [["instruction", "output"]])
    for part in parts.keys() - {"head"}:
        if not parts[part].endswith("{output}"):
            raise PipelineError(f"{where} {part}", "it does not end with {output}", "Move it to the end.")
    return Exemplars(f"few_shot/{number}", parts.get("head", ""), parts.get("alone", ""), parts["with_input"])


def _holes(where: str, text: Any) -> list[str]:
    """The placeholders of a text, sorted. Raises PipelineError for any other brace."""
    if not isinstance(text, str) or not text.strip():
        raise PipelineError(where, f"{text!r}, expected text", "Put it in quotes.")
    check_characters(text, where)
    names = [f"{{{name}}}" for name in PLACEHOLDERS]
    for brace in _BRACES.findall(text):
        if brace not in names:
            problem = f"unknown placeholder {brace}, expected one of {', '.join(names)}"
            raise PipelineError(where, problem, "Correct the name.")
    return sorted(_HOLE.findall(text))


def _expect(where: str, holes: list[str], allowed: list[list[str]]) -> None:
    if holes not in [sorted(ones) for ones in allowed]:
        got, expected = _shown(holes), " or ".join(map(_shown, allowed))
        raise PipelineError(where, f"got {got}, expected {expected}, each once", "Mend the phrasing.")


def _shown(holes: list[str]) -> str:
    return " ".join(f"{{{name}}}" for name in holes) or "no placeholder"

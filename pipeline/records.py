"""Data contracts: JSONL on disk, frozen dataclasses in memory, validated once where they enter.

Field names are the field's own: Self-Instruct's seed tasks, Alpaca's instruction/input/output, messages for
chat.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, disk_errors

LANGUAGES = ("en", "zh")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class Instance:
    """One input (may be empty) with its output."""

    input: str
    output: str


@dataclass(frozen=True)
class SeedTask:
    """A hand-written task: the shape of Self-Instruct's seed_tasks.jsonl, plus language and tags."""

    id: str
    instruction: str
    instances: tuple[Instance, ...]
    is_classification: bool = False
    language: str = "en"
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A candidate instruction on its way through the stages."""

    id: str
    instruction: str
    language: str
    is_classification: bool
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """One training example in Alpaca's fields, with where it came from and how it scored."""

    id: str
    instruction: str
    input: str
    output: str
    language: str
    is_classification: bool
    provenance: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def messages(self) -> list[dict[str, str]]:
        """The conversational form: input below the instruction, separated by an empty line."""
        asked = f"{self.instruction}\n\n{self.input}" if self.input else self.instruction
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": self.output}]


@dataclass(frozen=True)
class Prompt:
    """A request to be answered: an optional system message and what a user says.

    `verifier` is the JSON of what can be checked in an answer (`pipeline.verify`), `reference` an answer that
    came with it, `score_std` how far the scores of answers drawn before lie apart (None: not known).
    """

    id: str
    messages: tuple[Mapping[str, str], ...]
    language: str
    verifier: Mapping[str, Any] | None = None
    reference: str = ""
    score_std: float | None = None

    @property
    def request(self) -> str:
        """What the user says."""
        return self.messages[-1]["content"]

    @property
    def system(self) -> str:
        """The system message, "" if there is none."""
        return self.messages[0]["content"] if self.messages[0]["role"] == "system" else ""


@dataclass(frozen=True)
class Preference:
    """A prompt and two answers to it, of which the first was preferred; messages with `role` and `content`.

    `margin` says by how much it is better, the scores what a judge gave the two; `provenance` where it came
    from.
    """

    prompt: tuple[Mapping[str, str], ...]
    chosen: Mapping[str, str]
    rejected: Mapping[str, str]
    margin: float | None = None
    score_chosen: float | None = None
    score_rejected: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rated:
    """A prompt and an answer to it that is wanted or unwanted (KTO)."""

    prompt: tuple[Mapping[str, str], ...]
    completion: Mapping[str, str]
    wanted: bool
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Drop:
    """Why something was left out.

    A reason from a fixed list and the evidence (text found, score, neighbour).
    """

    reason: str
    evidence: str


def to_json(record: Any) -> str:
    """One line of JSON: the same bytes for the same record, Chinese left readable."""
    return json.dumps(record, ensure_ascii=False, separators=(", ", ": "), default=_fields)


def _fields(record: Any) -> dict[str, Any]:
    """A dataclass as JSON takes it; `dataclasses.asdict` would copy all that is in it."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


def read_text(path: Path) -> str:
    """The file as UTF-8 text (a byte order mark is allowed).

    Raises PipelineError naming the line of a bad byte.
    """
    with disk_errors(path):
        raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        data = error.object  # the bytes after the mark, which the positions count from
        line = data.count(b"\n", 0, error.start) + 1
        problem = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise PipelineError(
            f"{path}:{line}", problem, "Save the file as UTF-8 (iconv -f GB18030 -t UTF-8, say)."
        ) from None


def check_characters(text: str, where: object) -> None:
    r"""Refuse half a surrogate pair, which an escape such as \ud83d can write but no file can hold."""
    if found := _SURROGATE.search(text):
        problem = f"\\u{ord(found[0]):04x} is half a surrogate pair, which is no character"
        raise PipelineError(where, problem, "Write the character itself, as UTF-8.")


def json_object(where: str, line: str) -> dict[str, Any]:
    """The object on one line of JSON. Raises PipelineError naming `where`."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = f"not JSON ({_message(error)} at column {getattr(error, 'colno', 1)})"
        raise PipelineError(where, problem, "Write one JSON object a line.") from None
    if not isinstance(row, dict):
        raise PipelineError(
            where, f"got {type(row).__name__}, expected an object", "Write one JSON object a line."
        )
    if _SURROGATE_ESCAPE.search(line):  # else none can be in it: UTF-8 has none
        check_characters(to_json(row), where)
    return row


def _message(error: Exception) -> str:
    return str(getattr(error, "msg", error)).split(";")[0]


def text_field(row: Mapping[str, Any], name: str, where: str, *, empty: bool = False) -> str:
    """The text under `name`, stripped.

    Raises PipelineError if it is missing, not text, or empty where it must not be.
    """
    if name not in row:
        raise PipelineError(where, f"no field '{name}' (has: {', '.join(row)})", "Rename it or fix the row.")
    value = row[name]
    if not isinstance(value, str):
        raise PipelineError(where, f"'{name}' is {type(value).__name__}, expected text", "Fix the row.")
    if not value.strip() and not empty:
        raise PipelineError(where, f"'{name}' is empty, expected text", "Fill it in or remove the row.")
    return value.strip()


def duplicates(ids: Iterable[tuple[str, str]]) -> None:
    """Refuse a second use of an id; takes (where, id) pairs. Raises PipelineError naming both places."""
    seen: dict[str, str] = {}
    for where, name in ids:
        if name in seen:
            raise PipelineError(
                where, f"id '{name}' was used before at {seen[name]}", "Make every id unique."
            )
        seen[name] = where

"""The text of a row that is compared: fields joined by +, a conversation by its turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.dedup.contamination import HeldOut
from pipeline.errors import PipelineError
from pipeline.format.sources import Source
from pipeline.rows import Row

MESSAGES = ("messages", "conversations")  # TRL's name and ShareGPT's
OPTIONAL = "input"  # Alpaca's rows may leave it out
_GUESSES = ("instruction+input", *MESSAGES, "text", "question", "prompt", "problem")
_ANSWERS = ("input", "output", "answer", "solution", "completion")
_SHOWN = 20  # names of fields in an error


def text_of(row: Row, on: str, option: str = "--on") -> str:
    """The fields `on` of a row, a line break between them. Raises PipelineError naming the fields it has."""
    parts = []
    for name in on.split("+"):
        if name == OPTIONAL and not row.fields.get(name):
            continue
        if name not in row.fields:
            has = ", ".join(list(row.fields)[:_SHOWN]) or "none"
            fix = f"Name the fields to compare, say {option} {_guess(row.fields) or 'text'}."
            raise PipelineError(row.where, f"no field '{name}' (has: {has})", fix)
        parts.append(_text(row.fields[name], name, row.where))
    return "\n".join(parts)


def held_out_text(row: Row, on: str, against_on: str) -> str:
    """The text of a held-out row, whose fields may have other names. Raises PipelineError."""
    if against_on:
        return text_of(row, against_on, "--against-on")
    guess = on if _has(row.fields, on) else _guess(row.fields)
    return text_of(row, guess or on, "--against-on")


def whole_text(row: Row) -> str:
    """All that a held-out row says to a model and expects of it. Raises PipelineError."""
    parts, instances = [held_out_text(row, "instruction", "")], row.fields.get("instances")
    for fields in (row.fields, *(instances if isinstance(instances, list) else ())):
        given = (fields.get(name) for name in _ANSWERS) if isinstance(fields, dict) else ()
        parts += [text for text in given if isinstance(text, str)]
    return "\n".join(parts)


def read_held_out(sources: Iterable[Source], on: str, against_on: str) -> HeldOut:
    """The compared texts of all held-out rows. Raises PipelineError."""
    rows = [(row.name, held_out_text(row, on, against_on)) for source in sources for row in source.rows()]
    return HeldOut([where for where, _ in rows], [text for _, text in rows])


def _guess(fields: Mapping[str, Any]) -> str:
    return next((on for on in _GUESSES if _has(fields, on)), "")


def _has(fields: Mapping[str, Any], on: str) -> bool:
    return all(name in fields for name in on.split("+") if name != OPTIONAL)


def _text(value: Any, name: str, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        kind = "an empty list" if value == [] else type(value).__name__
        raise PipelineError(where, f"'{name}' is {kind}, expected text or turns", "Fix the row.")
    return "\n".join(_turn(turn, f"{where} {name}[{number}]") for number, turn in enumerate(value))


def _turn(turn: Any, where: str) -> str:
    """What a turn says: {role, content}, content as text or as parts, or ShareGPT's {from, value}."""
    said = (turn.get("content", turn.get("value")) or "") if isinstance(turn, dict) else None
    if isinstance(said, list):
        said = "\n".join(str(part.get("text", "")) for part in said if isinstance(part, dict))
    if not isinstance(said, str):
        raise PipelineError(where, "expected {role, content} with text", "Fix the row.")
    return said

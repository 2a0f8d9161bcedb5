"""Answers as JSON: the schemas that engines which follow one are given, and how such an answer is read.

A schema only fixes the form: the prompts ask the same, and an answer in plain text is read as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def one_of(values: Sequence[str]) -> str:
    """The schema of an answer that is one of these words."""
    return _object({"type": "string", "enum": list(values)})


def list_of_text() -> str:
    """The schema of an answer that is a list of words."""
    return _object({"type": "array", "items": {"type": "string"}})


def whole_number(low: int, high: int) -> str:
    """The schema of an answer that is a whole number from `low` to `high`."""
    return _object({"type": "integer", "enum": list(range(low, high + 1))})


def plain(text: str) -> str:
    """The answer that a JSON object of one field holds (a list: joined by commas); other text as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    if not isinstance(found, dict) or len(found) != 1:
        return text
    value = next(iter(found.values()))
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _object(answer: Mapping[str, Any]) -> str:
    schema = {"type": "object", "properties": {"answer": answer}, "required": ["answer"]}
    return json.dumps({**schema, "additionalProperties": False}, ensure_ascii=False)

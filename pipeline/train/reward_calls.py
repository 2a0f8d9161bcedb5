"""Asks a term of the reward: what it gives is checked, what it raises is laid to the answers at fault."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import PipelineError, Stopped
from pipeline.stages.words import quote
from pipeline.train.reward_terms import Row, Scorer

NO_SCORE, ERROR = "no_score", "error"  # why an answer has no part


@dataclass(frozen=True)
class Part:
    """What a term says of an answer; without a value the reason and the evidence."""

    value: float | None
    reason: str = ""
    evidence: str = ""


def ask(label: str, scorer: Scorer, rows: Sequence[Row], *, stop: bool) -> list[Part]:
    """What a term says of rows.

    If it raises, the rows that raise when they are asked for alone are at fault, and if there is none, all.
    With `stop` that is a PipelineError which names the first of them, else they have no part. What it gives
    must be a number or None for each row in any case.
    """
    found = _attempt(scorer, rows)
    if not isinstance(found, Exception):
        return read(label, rows, found)
    bad = dict[int, Exception]()
    for number, row in enumerate(rows if len(rows) > 1 else ()):
        if isinstance(error := _attempt(scorer, [row]), Exception):
            bad[number] = error
            if stop:
                break
    bad = bad or dict.fromkeys(range(len(rows)), found)
    if stop:
        number, error = next(iter(bad.items()))
        raise _failure(label, rows[number], error) from error
    good = [number for number in range(len(rows)) if number not in bad]
    parts = {number: Part(None, ERROR, _said(error)) for number, error in bad.items()}
    if good:
        again = ask(label, scorer, [rows[number] for number in good], stop=stop)
        parts.update(zip(good, again, strict=True))
    return [parts[number] for number in range(len(rows))]


def read(label: str, rows: Sequence[Row], found: Any) -> list[Part]:
    """Check what a scorer gave: a number or None for each row. Raises PipelineError."""
    where, fix = f"reward {label}", "Return a list with a number, or None, for each answer."
    if isinstance(found, str | bytes | Mapping) or not hasattr(found, "__iter__"):
        raise PipelineError(where, f"it gave {type(found).__name__}, expected a list of numbers", fix)
    values = list(found)
    if len(values) != len(rows):
        raise PipelineError(where, f"it gave {len(values)} numbers for {len(rows)} answers", fix)
    parts = []
    for value, row in zip(values, rows, strict=True):
        if value is not None and not hasattr(value, "__float__"):
            problem = f"it gave {value!r} for the answer to {row.id}, expected a number or None"
            raise PipelineError(where, problem, fix)
        number = math.nan if value is None else float(value)
        parts.append(Part(number) if math.isfinite(number) else Part(None, NO_SCORE, f"it gave {value}"))
    return parts


def _attempt(scorer: Scorer, rows: Sequence[Row]) -> Any:
    """What the scorer gives, or the exception that it raises."""
    try:
        return scorer(rows)
    except Stopped:
        raise
    except Exception as error:  # anybody's function may raise anything; the caller names the sample
        return error


def _failure(label: str, row: Row, error: Exception) -> PipelineError:
    problem = f"{_said(error)}; the answer to {row.id} was: {quote(row.answer) or '(empty)'}"
    return PipelineError(f"reward {label}", problem, "Mend it, or exclude such answers.")


def _said(error: Exception) -> str:
    if isinstance(error, PipelineError):
        return f"{error.where}: {error.problem}"
    return f"{type(error).__name__}: {error}"

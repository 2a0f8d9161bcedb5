"""Encoded answers as the rows that TRL's trainers on preferences take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.records import Preference, Rated
from pipeline.train.pairs import Encodings


def for_dpo(rows: Sequence[Encodings[Preference]]) -> list[dict[str, Any]]:
    """A prompt and what stands behind it on either side."""
    return [
        {"prompt_ids": row.prompt_ids, "chosen_ids": row.answer_ids(0), "rejected_ids": row.answer_ids(1)}
        for row in rows
    ]


def for_orpo(rows: Sequence[Encodings[Preference]]) -> list[dict[str, Any]]:
    """Both sides whole, with labels."""
    found = []
    for row in rows:
        fields: dict[str, Any] = {}
        for name, side in zip(("chosen", "rejected"), row.sides, strict=True):
            fields[f"{name}_input_ids"], fields[f"{name}_labels"] = side.ids, side.labels
            fields[f"{name}_attention_mask"] = [1] * len(side.ids)
        found.append(fields)
    return found


def for_kto(rows: Sequence[Encodings[Rated]], batch_size: int) -> list[dict[str, Any]]:
    """Single answers, each with another one to estimate the KL divergence with.

    That is the answer of the row before it in its batch, and of the first row the last one's, as TRL has it.
    """
    found = []
    for number, row in enumerate(rows):
        begin = number - number % batch_size
        other = number - 1 if number > begin else min(begin + batch_size, len(rows)) - 1
        found.append(
            {
                "prompt_ids": row.prompt_ids,
                "completion_ids": row.answer_ids(0),
                "KL_completion_ids": rows[other].answer_ids(0),
                "label": row.record.wanted,
            }
        )
    return found

"""The evaluations of a loop's models, read and held against each other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.evaluation.comparison import wins
from pipeline.intervals import Interval
from pipeline.lines import StoredRows
from pipeline.records import read_text

_RESAMPLES = 10000
_SHOWN = ("success", "loss", "rouge_l", "stopped", "length")  # of a sheet


@dataclass(frozen=True)
class Scored:
    """A model's finished evaluation; `name` is what the table calls the model."""

    name: str
    folder: Path

    @cached_property
    def sheet(self) -> Mapping[str, Any]:
        """scores.json."""
        return dict(json.loads(read_text(self.folder / "scores.json")))

    @cached_property
    def answers(self) -> list[dict[str, Any]]:
        """answers.jsonl."""
        return list(StoredRows(self.folder / "answers.jsonl"))

    def win_rate(self, over: Scored) -> Interval:
        """How often it wins a task against another model."""
        return Interval(**wins(over.answers, self.answers, resamples=_RESAMPLES, seed=0)["win_rate"])

    def as_json(self) -> dict[str, Any]:
        """The figures that the table shows, each {value, low, high, count}."""
        found = {name: _figure(self.sheet[name]) for name in _SHOWN}
        leaked = self.sheet["contamination"].get("share")
        return {**found, "contaminated": leaked["value"] if leaked else None}


def _figure(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The part of a sheet's entry that is an interval."""
    if not found or not found.get("count"):
        return None
    return {name: found[name] for name in ("value", "low", "high", "count")}

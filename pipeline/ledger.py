"""The ledger: a conservation law. What was opened is closed exactly once, kept or dropped with one reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import PipelineError


@dataclass
class Ledger:
    """Counts of one kind of thing (candidates, instances); only ids still open are held in memory."""

    unit: str
    opened: int = 0
    kept: int = 0
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (stage, reason) -> count
    pending: set[str] = field(default_factory=set)

    def open(self, key: str) -> None:
        """Take `key` in."""
        if key in self.pending:
            raise PipelineError(
                "ledger", f"{self.unit} {key} was opened twice", "This is a bug: please report it."
            )
        self.opened += 1
        self.pending.add(key)

    def keep(self, key: str) -> None:
        """Close `key` as kept."""
        self._close(key)
        self.kept += 1

    def drop(self, key: str, stage: str, reason: str) -> None:
        """Close `key` as dropped by `stage` for `reason`."""
        self._close(key)
        self.dropped[stage, reason] += 1

    def check(self) -> None:
        """Raise PipelineError unless everything opened was closed and the counts add up."""
        total = self.kept + self.dropped.total()
        if self.pending or total != self.opened:
            problem = (
                f"{self.opened} {self.unit}s opened, {self.kept} kept + {self.dropped.total()} dropped, "
                f"{len(self.pending)} still open"
            )
            raise PipelineError("ledger", problem, "This is a bug: please report it with the run directory.")

    def summary(self) -> dict[str, Any]:
        """The counts as JSON can hold them, reasons from frequent to rare."""
        reasons = [{"stage": s, "reason": r, "count": n} for (s, r), n in self.dropped.most_common()]
        return {"unit": self.unit, "opened": self.opened, "kept": self.kept, "dropped": reasons}

    def _close(self, key: str) -> None:
        if key not in self.pending:
            raise PipelineError(
                "ledger", f"{self.unit} {key} was closed twice", "This is a bug: please report it."
            )
        self.pending.remove(key)

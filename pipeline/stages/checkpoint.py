"""What a run of `python -m pipeline.selfinstruct` puts into its snapshot, and how it takes one up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pipeline.engines.budget import BudgetedEngine, Usage
from pipeline.engines.journal import Journal
from pipeline.engines.scheduler import Scheduler
from pipeline.engines.snapshot import Mark, Snapshot, read_snapshot, write_snapshot
from pipeline.lines import LineFile
from pipeline.stages.flow import SelfInstruct
from pipeline.stages.state import job_state, restore_job

RECORDS = ("kept", "dropped", "metrics")


class Checkpoint:
    """Journal and record files of a run, opened where its snapshot ends; `every` requests a new one."""

    def __init__(self, folder: Path, every: int) -> None:
        self.every, self._path = every, folder / "snapshot.npz"
        names = ("journal", *RECORDS)
        self._marks = {name: Mark(folder / f"{name}.jsonl") for name in names}
        self._found = read_snapshot(self._path, self._marks) if every else None
        if not self._found:
            self._marks = {name: Mark(folder / f"{name}.jsonl") for name in names}
        lengths = {name: mark.length for name, mark in self._marks.items()}
        self.taken = self._found.values["scheduler"]["tally"]["requests"] if self._found else 0
        self.journal = Journal(folder / "journal.jsonl", lengths["journal"], self.taken)
        self.records = {name: LineFile(folder / f"{name}.jsonl", anew=False) for name in RECORDS}
        for name, file in self.records.items():  # what is behind it is written again
            file.cut(lengths[name])

    def restore(self, job: SelfInstruct, scheduler: Scheduler, engine: BudgetedEngine) -> None:
        """Bring all of a new run into the state of the snapshot, if there is one."""
        if self._found:
            restore_job(job, self._found.values["job"], self._found.arrays)
            scheduler.restore(self._found.values["scheduler"])
            engine.spent += Usage(*self._found.values["spent"])
            self._found = None

    def settled(
        self, job: SelfInstruct, engine: BudgetedEngine, requests: int, state: Callable[[], dict[str, Any]]
    ) -> None:
        """Take a snapshot if it is time; called between two admitted groups, with the scheduler's state."""
        if not self.every or requests - self.taken < self.every:
            return
        self.taken = requests
        values, arrays = job_state(job)
        self._marks["journal"].advance(self.journal.length)
        for name, file in self.records.items():
            self._marks[name].advance(file.length)
        spent = list(astuple(engine.spent))
        everything = {"job": values, "scheduler": state(), "spent": spent}
        marks = {name: mark.state() for name, mark in self._marks.items()}
        write_snapshot(self._path, Snapshot(everything, arrays, marks))

    def close(self) -> None:
        """Close the record files."""
        for file in self.records.values():
            file.close()

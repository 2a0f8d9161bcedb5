"""The journal: every admitted answer, one line each, on disk before the run acts on it.

A group of requests that an engine answered together is written whole. Loading cuts a torn last line and an
incomplete last group (a kill in the middle of a write) and refuses a file that is broken anywhere else.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.engines.base import Request, Response
from pipeline.errors import PipelineError, disk_errors
from pipeline.rundir import LineFile

Entry = tuple[str, Response]  # digest of the request, the answer


class Journal:
    """Answers by request number: those of an earlier process, then new ones appended."""

    def __init__(self, path: Path | None) -> None:
        self.cut = ""  # what was taken off a damaged end, for the log
        self.groups: list[list[Entry]] = self._load(path) if path and path.exists() else []
        self._file = LineFile(path, anew=False, sync=True) if path else None

    def append(self, first: int, requests: Sequence[Request], responses: Sequence[Response]) -> None:
        """Write one group; on return it is on the disk."""
        if not self._file:
            return
        self._file.append(
            [
                {
                    "n": first + i,
                    "group": [first, len(requests)],
                    "request": request.digest,
                    "response": dataclasses.asdict(response),
                }
                for i, (request, response) in enumerate(zip(requests, responses, strict=True))
            ]
        )

    def _load(self, path: Path) -> list[list[Entry]]:
        with disk_errors(path):
            data = path.read_bytes()
        groups: list[list[Entry]] = []
        current: list[Entry] = []
        good = position = 0
        for number, line in enumerate(data.split(b"\n")[:-1], 1):
            position += len(line) + 1
            first = number - 1 - len(current)
            row = self._row(path, number, line, first, last=position == len(data))
            if row is None:
                break
            current.append(row[0])
            if len(current) == row[1]:
                groups.append(current)
                current, good = [], position
        if good < len(data):
            self.cut = f"{path}: cut {len(data) - good} bytes of an incomplete group off the end"
            with disk_errors(path):
                os.truncate(path, good)
        return groups

    @staticmethod
    def _row(path: Path, number: int, line: bytes, first: int, *, last: bool) -> tuple[Entry, int] | None:
        """The entry of a line whose group began at request `first`, and the group's size."""
        try:
            row = json.loads(line)
            begun, size = row["group"]
            if (row["n"], begun) != (number - 1, first) or size < number - first:
                raise ValueError(f"request {row['n']} of {row['group']}, expected {number - 1} of {first}")
            return (row["request"], Response.from_dict(row["response"])), size
        except (ValueError, KeyError, TypeError) as error:
            if last:
                return None
            raise PipelineError(
                f"{path}:{number}",
                f"the journal is damaged ({error})",
                "Restore the file, or start again with --overwrite.",
            ) from None

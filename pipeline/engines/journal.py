"""The journal: every admitted answer, one line each, on disk before the run acts on it.

A group of requests that an engine answered together is written whole. Loading cuts a torn last line and an
incomplete last group (a kill in the middle of a write) and refuses a file that is broken anywhere else.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from pipeline.engines.base import Request, Response
from pipeline.errors import PipelineError, disk_errors
from pipeline.lines import LineFile
from pipeline.records import to_json

Entry = tuple[str, Response]  # digest of the request, the answer


class Journal:
    """Answers by request number: those of an earlier process, then new ones appended."""

    def __init__(self, path: Path | None, length: int = 0, number: int = 0) -> None:
        """Read what stands behind the first `length` bytes, which hold `number` requests."""
        self.length = length  # bytes of the groups that were admitted
        self.cut = ""  # what was taken off a damaged end, for the log
        self._ends: deque[int] = deque()  # lengths after each further group
        self.groups: deque[list[Entry]] = deque()
        if path and path.exists():
            self._load(path, number)
        self._file = LineFile(path, anew=False, sync=True) if path else None

    def append(self, groups: Sequence[tuple[int, Sequence[Request], Sequence[Response]]]) -> None:
        """Write whole groups, each (number of its first request, requests, responses).

        On return they are on the disk.
        """
        if not self._file or not groups:
            return
        lines, end = list[bytes](), self._file.length
        for first, requests, responses in groups:
            rows = (
                {
                    "n": first + i,
                    "group": [first, len(requests)],
                    "request": request.digest,
                    "response": response,
                }
                for i, (request, response) in enumerate(zip(requests, responses, strict=True))
            )
            lines.append("".join(to_json(row) + "\n" for row in rows).encode())
            end += len(lines[-1])
            self._ends.append(end)
        self._file.append_bytes(b"".join(lines))

    def admitted(self) -> None:
        """Move `length` behind the next group."""
        if self._ends:
            self.length = self._ends.popleft()

    def _load(self, path: Path, before: int) -> None:
        with disk_errors(path), path.open("rb") as stream:
            stream.seek(self.length)
            data = stream.read()
        current: list[Entry] = []
        good = position = 0
        for number, line in enumerate(data.split(b"\n")[:-1], before + 1):
            position += len(line) + 1
            first = number - 1 - len(current)
            row = self._row(path, number, line, first, last=position == len(data))
            if row is None:
                break
            current.append(row[0])
            if len(current) == row[1]:
                self.groups.append(current)
                self._ends.append(self.length + position)
                current, good = [], position
        if good < len(data):
            self.cut = f"{path}: cut {len(data) - good} bytes of an incomplete group off the end"
            with disk_errors(path):
                os.truncate(path, self.length + good)

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

"""The JSONL files of a run: they grow by whole lines and are read row by row, however long they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import disk_errors
from pipeline.records import Example, json_object, to_json


class LineFile:
    """A file that grows by whole lines: a write that fails is taken back."""

    def __init__(self, path: Path, *, anew: bool, sync: bool = False) -> None:
        self.path, self.sync = path, sync
        with disk_errors(path):
            self._stream = path.open("ab", buffering=0)  # appending, so that a cut leaves no gap
            if anew:
                self._stream.truncate(0)

    @property
    def length(self) -> int:
        """Its size in bytes."""
        return os.fstat(self._stream.fileno()).st_size

    def cut(self, length: int) -> None:
        """Keep the first `length` bytes only."""
        with disk_errors(self.path):
            self._stream.truncate(length)

    def append(self, records: list[Any]) -> None:
        """Write records as JSON lines, all or none of them. Raises PipelineError if the disk refuses."""
        self.append_bytes("".join(to_json(r) + "\n" for r in records).encode())

    def append_bytes(self, data: bytes) -> None:
        """Write bytes that end in a newline, all or none of them."""
        start = self.length
        with disk_errors(self.path):
            try:
                view = memoryview(data)
                while view:
                    view = view[self._stream.write(view) or 0 :]
                if self.sync:
                    os.fsync(self._stream.fileno())
            except OSError:
                with suppress(OSError):  # what went wrong first is what the user must know
                    os.ftruncate(self._stream.fileno(), start)
                raise

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class StoredRows:
    """The rows of a JSONL file that we wrote, read anew and one by one each time it is gone through."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self.path.is_file():
            return
        with disk_errors(self.path), self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                yield json_object(f"{self.path}:{number}", line.decode("utf-8", errors="replace"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class StoredExamples:
    """The examples of a kept.jsonl, in the same way."""

    def __init__(self, path: Path) -> None:
        self._rows = StoredRows(path)

    def __iter__(self) -> Iterator[Example]:
        return (Example(**row) for row in self._rows)

    def __len__(self) -> int:
        return len(self._rows)

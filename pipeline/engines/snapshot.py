"""Snapshots: the state of a run every so many requests, so that resuming replays only what came after.

A snapshot is one file, put in place at once, with JSON and NumPy arrays in it (no pickle). It is a shortcut
and never the truth: it counts only while the journal and the record files still begin with the bytes that
they held when it was taken; else, and without one, the whole journal is replayed, to the same end.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pipeline.errors import disk_errors

VERSION = 2
_CHUNK = 1 << 20  # bytes


class Mark:
    """The beginning of a file that only grows: its length and digest, computed as it grows."""

    def __init__(self, path: Path) -> None:
        self.path, self.length = path, 0
        self._hash = hashlib.blake2b(digest_size=16)

    def advance(self, length: int) -> None:
        """Take in the bytes up to `length`."""
        with disk_errors(self.path), self.path.open("rb") as stream:
            stream.seek(self.length)
            while self.length < length and (data := stream.read(min(_CHUNK, length - self.length))):
                self._hash.update(data)
                self.length += len(data)

    def state(self) -> list[Any]:
        """Length and digest."""
        return [self.length, self._hash.hexdigest()]


@dataclass(frozen=True)
class Snapshot:
    """`values` as JSON can hold them, `arrays` by name, and (length, digest) of files by name."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]
    marks: dict[str, list[Any]]


def pack(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Texts as arrays, the UTF-8 bytes of all (B,) and the number of each (N,): half the memory of JSON."""
    coded = [text.encode("utf-8", "surrogatepass") for text in texts]
    return np.frombuffer(b"".join(coded), np.uint8), np.fromiter(map(len, coded), np.uint32, len(coded))


def unpack(data: np.ndarray, lengths: np.ndarray) -> list[str]:
    """The texts that `pack` was given."""
    text, ends = data.tobytes(), np.cumsum(lengths, dtype=np.int64).tolist()
    return [text[a:b].decode("utf-8", "surrogatepass") for a, b in itertools.pairwise([0, *ends])]


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Put a snapshot in place of the one before. Raises PipelineError if the disk refuses."""
    head = {"version": VERSION, "values": snapshot.values, "marks": snapshot.marks}
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    half = path.with_name(f".{path.name}.{os.getpid()}")
    with disk_errors(path):
        try:
            with half.open("wb") as stream:
                np.savez(stream, json=np.frombuffer(text, np.uint8), **snapshot.arrays)  # type: ignore[arg-type]
                stream.flush()
                os.fsync(stream.fileno())
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)


def read_snapshot(path: Path, marks: Mapping[str, Mark]) -> Snapshot | None:
    """The snapshot, if there is one and every file still begins as it did; `marks` are then advanced.

    None where it cannot be used: the journal has everything.
    """
    if not path.is_file():
        return None
    with disk_errors(path):
        data = io.BytesIO(path.read_bytes())
    try:
        with np.load(data, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}
        head = json.loads(arrays.pop("json").tobytes())
        if head["version"] != VERSION:
            return None
        snapshot = Snapshot(head["values"], arrays, head["marks"])
    except (ValueError, KeyError, TypeError, OSError, EOFError, BadZipFile):
        return None
    return snapshot if all(_same(snapshot.marks.get(n), mark) for n, mark in marks.items()) else None


def _same(state: list[Any] | None, mark: Mark) -> bool:
    if state is None or not mark.path.is_file():
        return False
    mark.advance(state[0])
    return mark.state() == state

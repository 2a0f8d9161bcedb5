"""Vectors that a server was asked for once, in one SQLite file that all runs and processes share.

A resumed run takes the vectors of what it replays from here: nothing is asked twice, and a server that does
not repeat its digits does not change the run.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from pipeline.dedup.encoder import Encoder
from pipeline.errors import PipelineError, disk_errors

_BUSY_SECONDS = 30.0  # how long to wait for another process
_PART = 4096  # texts that are looked up, asked for and stored at a time
_TABLE = "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID"


class CachedEncoder:
    """Asks the inner encoder only for texts that the file at `path` holds no vector of."""

    def __init__(self, inner: Encoder, path: Path) -> None:
        self.inner, self.path, self.name = inner, path, inner.name

    def covers(self, language: str) -> bool:
        """What the inner encoder covers."""
        return self.inner.covers(language)

    def check(self) -> None:
        """Check the inner encoder."""
        self.inner.check()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors (N, D) in float32, in the order of the texts. Raises PipelineError."""
        parts = [self._part(texts[begin : begin + _PART]) for begin in range(0, len(texts), _PART)]
        vectors = [vector for part in parts for vector in part]
        if len({len(vector) for vector in vectors}) > 1:
            problem = f"it holds vectors of {self.name} that are longer or shorter than the server's now"
            raise PipelineError(self.path, problem, "Move the file away.")
        return np.stack(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)

    def _part(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The vectors of some texts; equal texts are asked for once."""
        keys = [hashlib.sha256(f"{self.name}\n{text}".encode()).digest() for text in texts]
        query = "SELECT vector FROM vectors WHERE key = ?"
        with self._open() as file:
            rows = {key: file.execute(query, (key,)).fetchone() for key in keys}
        known = {key: np.frombuffer(row[0], dtype="<f4") for key, row in rows.items() if row}
        wanted = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if wanted:
            found = dict(zip(wanted, self.inner.encode(list(wanted.values())), strict=True))
            rows_ = [(key, vector.astype("<f4").tobytes()) for key, vector in found.items()]
            with self._open() as file, file:
                file.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", rows_)
            known |= found
        return [known[key] for key in keys]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, made if need be; SQLite's refusals become a PipelineError."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS)) as file:
                file.execute("PRAGMA synchronous = NORMAL")
                file.execute(_TABLE)
                yield file
        except sqlite3.Error as error:
            fix = "Check the disk, move the file away, or use --cache off."
            raise PipelineError(self.path, f"the cache of vectors cannot be used ({error})", fix) from error

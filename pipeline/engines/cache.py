"""The request cache: answers that were paid for once, in one SQLite file that all runs and processes share.

The file is in WAL mode, so readers never wait, and synchronous is NORMAL: a commit is one write to the WAL,
which outlives kill -9 of the process. Only a power cut can lose the newest commits (the file stays sound);
what was admitted by then is in the run's journal, which is fsynced. FULL would wait for the disk every time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout

from pipeline.engines.base import Engine, Layer, Request, Response
from pipeline.errors import PipelineError, disk_errors
from pipeline.records import to_json

VERSION = 1  # of the table, in PRAGMA user_version
BUSY_SECONDS = 30.0  # how long to wait for another process
_TABLE = """CREATE TABLE answers (
    key TEXT PRIMARY KEY, model TEXT NOT NULL, created REAL NOT NULL, response TEXT NOT NULL
) WITHOUT ROWID"""

ValueT = TypeVar("ValueT")


def request_key(model: str, request: Request) -> str:
    """Return a SHA-256 over everything that decides the answer: model, prompt, sampling with seed, schema."""
    return hashlib.sha256(f"{to_json([model])}\n{to_json(request)}".encode()).hexdigest()


class RequestCache:
    """Answers by key.

    One thread owns the connection: its calls (well under a millisecond, unless another process holds the
    file) never hold up the event loop, and one that has begun is finished even if its caller is cancelled.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "cache")
        try:
            self._connection = self._thread.submit(self._open).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def find(self, keys: Sequence[str]) -> dict[str, Response]:
        """Return the answers that are there, marked as cached. Raises PipelineError."""
        return await self._call(lambda: self._find(keys))

    async def store(self, model: str, answers: Mapping[str, Response]) -> None:
        """Keep answers by key, all at once; a key that has one already keeps it. Raises PipelineError."""
        await self._call(lambda: self._store(model, answers))

    def close(self) -> None:
        """Finish what was begun and close the file."""
        self._thread.submit(self._connection.close)
        self._thread.shutdown()

    async def _call(self, work: Callable[[], ValueT]) -> ValueT:
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))

    def _open(self) -> sqlite3.Connection:
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite does not wait for a process that is just now turning a new file to WAL.
            lock = FileLock(f"{self.path}.lock", timeout=BUSY_SECONDS)
            try:
                lock.acquire()
            except Timeout:
                raise self._busy() from None
        try:
            with self._errors():
                connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
                try:
                    self._prepare(connection)
                except BaseException:
                    connection.close()
                    raise
                return connection
        finally:
            lock.release()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version > VERSION:
            problem = f"the cache has version {version}, this program knows version {VERSION}"
            raise PipelineError(
                self.path, problem, "Use the newer program, or name another file with --cache-file."
            )
        if version == 0 and tables:
            raise self._foreign("a database of something else")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if version == 0:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version = {VERSION}")

    def _find(self, keys: Sequence[str]) -> dict[str, Response]:
        found = {}
        with self._errors():
            for key in keys:
                query = "SELECT response FROM answers WHERE key = ?"
                if row := self._connection.execute(query, (key,)).fetchone():
                    found[key] = self._read(row[0])
        return found

    def _read(self, text: str) -> Response:
        try:
            return _again(Response.from_dict(json.loads(text)))
        except (ValueError, KeyError, TypeError) as error:
            raise self._foreign(f"damaged ({error})") from None

    def _store(self, model: str, answers: Mapping[str, Response]) -> None:
        rows = [(key, model, time.time(), to_json(response)) for key, response in answers.items()]
        with self._errors(), self._connection:
            self._connection.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", rows)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn SQLite's refusals into a PipelineError; a full disk says what it says everywhere else."""
        with disk_errors(self.path):
            try:
                yield
            except sqlite3.Error as error:
                extended = getattr(error, "sqlite_errorcode", 0)
                code = extended & 0xFF
                # The second: no space for the shared-memory file beside it.
                if code == sqlite3.SQLITE_FULL or extended == sqlite3.SQLITE_IOERR_SHMSIZE:
                    raise OSError(errno.ENOSPC, str(error)) from error
                if code == sqlite3.SQLITE_BUSY:
                    raise self._busy() from error
                if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                    raise self._foreign(f"damaged ({error})") from error
                problem = (
                    f"the cache cannot be used ({error}, {getattr(error, 'sqlite_errorname', 'SQLite')})"
                )
                fix = "Check the disk and that you may write there, or name another file with --cache-file."
                raise PipelineError(self.path, problem, fix) from error

    def _foreign(self, found: str) -> PipelineError:
        fix = "Move the file away (its answers are asked again), or name another one with --cache-file."
        return PipelineError(self.path, f"expected a request cache, the file is {found}", fix)

    def _busy(self) -> PipelineError:
        problem = f"another process has held the cache for {BUSY_SECONDS:.0f} seconds"
        return PipelineError(self.path, problem, "End it, or name another file with --cache-file.")


class CachedEngine(Layer):
    """Asks the inner engine only for what the cache does not hold.

    Of equal requests, seed included, that are in flight at the same time only one is asked; the others take
    its answer from the cache, or are asked in turn if it failed.
    """

    def __init__(self, inner: Engine, cache: RequestCache) -> None:
        super().__init__(inner)
        self.cache = cache
        self.hits = self.misses = 0  # requests answered without asking, requests asked
        self._claimed: dict[str, asyncio.Event] = {}  # keys that a group is seeing to; set when it is done

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer a group in order; answers that were not asked for now have `cached` set."""
        keys = [request_key(self.model, request) for request in requests]
        by_key = dict(zip(keys, requests, strict=True))
        answers: dict[str, Response] = {}
        while missing := [key for key in by_key if key not in answers]:
            if free := {key: by_key[key] for key in missing if key not in self._claimed}:
                answers |= await self._claim(free)
            else:
                await self._claimed[missing[0]].wait()
        asked = {key for key, answer in answers.items() if not answer.cached}
        self.misses += len(asked)
        self.hits += len(keys) - len(asked)
        first = {key: at for at, key in reversed(list(enumerate(keys)))}
        return [answers[key] if first[key] == at else _again(answers[key]) for at, key in enumerate(keys)]

    async def _claim(self, requests: dict[str, Request]) -> dict[str, Response]:
        """See to requests that nobody else is seeing to: from the cache, else from the inner engine."""
        done = asyncio.Event()
        self._claimed |= dict.fromkeys(requests, done)
        try:
            answers = await self.cache.find(list(requests))
            missing = [key for key in requests if key not in answers]
            if missing:
                asked = await self.inner.generate([requests[key] for key in missing])
                got = dict(zip(missing, asked, strict=True))
                await self.cache.store(self.model, {key: r for key, r in got.items() if _is_good(r)})
                answers |= got
            return answers
        finally:
            for key in requests:
                del self._claimed[key]
            done.set()


def _is_good(response: Response) -> bool:
    return not response.error and response.finish_reason not in ("error", "content_filter")


def _again(response: Response) -> Response:
    """The same answer for one more request."""
    return dataclasses.replace(response, cached=True, retries=0)

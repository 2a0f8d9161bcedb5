"""The request cache: nothing is asked twice, whoever asks and whatever is killed; a bad file is an error."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines.base import NotSent, Request, Response, Sampling
from pipeline.engines.cache import CachedEngine, RequestCache, request_key
from pipeline.errors import PipelineError

ROOT = Path(__file__).resolve().parents[1]
KEY = "0" * 64
RIVERS = Request("Name a river. 列举一条河流。", sampling=Sampling(seed=1))


def numbered(*seeds: int) -> list[Request]:
    return [Request("Name a river.", sampling=Sampling(seed=seed)) for seed in seeds]


class Inner:
    """Answers with the seed once `open` is set; keeps what it was asked."""

    model = "m"

    def __init__(self, answer: Callable[[Request], Response] | None = None) -> None:
        self.asked: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.answer = answer or (lambda r: Response(f"河流 {r.sampling.seed}\u2028", "stop", 3, 2, retries=1))

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        self.asked.append([r.sampling.seed for r in requests])
        await self.open.wait()
        return [self.answer(r) for r in requests]


def played(path: Path, scene: Callable[[CachedEngine, Any], Coroutine[Any, Any, Any]], **inner: Any) -> Any:
    """What a scene with a fresh engine over the cache at `path` returns."""

    async def play() -> Any:
        cache, source = RequestCache(path), Inner(**inner)
        try:
            return await scene(CachedEngine(source, cache), source)  # type: ignore[arg-type]
        finally:
            cache.close()

    return asyncio.run(asyncio.wait_for(play(), 20))


def refusal(path: Path) -> str:
    with pytest.raises(PipelineError) as caught:
        RequestCache(path)
    return str(caught.value)


def stored(path: Path) -> int:
    connection = sqlite3.connect(path)
    count = connection.execute("SELECT count(*) FROM answers").fetchone()[0]
    connection.close()
    return int(count)


# ---- what is asked ----


def test_only_what_is_missing_is_asked_and_answers_keep_their_order(tmp_path):
    async def scene(engine: CachedEngine, inner: Inner) -> None:
        await engine.generate(numbered(1, 2))
        answers = await engine.generate(numbered(3, 2, 4, 1))
        assert inner.asked == [[1, 2], [3, 4]]
        assert [a.text for a in answers] == [f"河流 {n}\u2028" for n in (3, 2, 4, 1)]
        assert [a.cached for a in answers] == [False, True, False, True]
        assert [a.retries for a in answers] == [1, 0, 1, 0]
        assert (engine.hits, engine.misses) == (2, 4)

    played(tmp_path / "new" / "cache.sqlite", scene)


def test_a_later_process_asks_nothing_and_gets_the_same_answer(tmp_path):
    scored = Response("", "score", 7, 0, (-1.25, -0.5))

    async def scene(engine: CachedEngine, inner: Inner) -> list[Response]:
        return await engine.generate([RIVERS])

    first = played(tmp_path / "c", scene, answer=lambda r: scored)
    assert first == [scored]
    assert played(tmp_path / "c", scene, answer=lambda r: pytest.fail("asked")) == [
        replace(scored, cached=True)
    ]


def test_every_part_of_a_request_and_the_model_make_another_key():
    others = [
        replace(RIVERS, prompt="Name a river. 列举一条河流"),
        replace(RIVERS, chat=True),
        replace(RIVERS, system="x"),
        replace(RIVERS, choices=(("", "x"),)),
        replace(RIVERS, schema="{}"),
        *(
            replace(RIVERS, sampling=replace(RIVERS.sampling, **change))
            for change in (
                {"seed": 2},
                {"temperature": 1.0},
                {"top_p": 0.5},
                {"max_tokens": 9},
                {"stop": ("a",)},
            )
        ),
    ]
    keys = {request_key("m", request) for request in [RIVERS, *others]} | {request_key("m2", RIVERS)}
    assert len(keys) == len(others) + 2 and {len(key) for key in keys} == {64}
    assert request_key("m", replace(RIVERS)) in keys


@pytest.mark.parametrize("reason", ["error", "content_filter"])
def test_a_failed_answer_is_returned_and_asked_again(tmp_path, reason):
    failed = Response("", reason, 3, 0, error="no")

    async def scene(engine: CachedEngine, inner: Inner) -> None:
        for _ in range(2):
            assert await engine.generate(numbered(1)) == [failed]
        assert inner.asked == [[1], [1]] and stored(engine.cache.path) == 0

    played(tmp_path / "c", scene, answer=lambda r: failed)


# ---- the same request at the same time ----


def test_equal_requests_in_flight_are_asked_once(tmp_path):
    async def scene(engine: CachedEngine, inner: Inner) -> None:
        inner.open.clear()
        groups = [
            asyncio.create_task(engine.generate(numbered(*seeds))) for seeds in ((1, 2), (2, 3, 3), (1,))
        ]
        await until(lambda: len(inner.asked) == 2)
        inner.open.set()
        first, second, third = await asyncio.gather(*groups)
        assert sorted(inner.asked) == [[1, 2], [3]]
        assert [[a.cached for a in group] for group in (first, second, third)] == [
            [False, False],
            [True, False, True],
            [True],
        ]
        assert [a.text for a in second] == ["河流 2\u2028", "河流 3\u2028", "河流 3\u2028"]
        assert (engine.hits, engine.misses) == (3, 3)

    played(tmp_path / "c", scene)


def test_one_that_waited_for_a_failure_asks_for_itself(tmp_path):
    answers = iter([Response("", "error", 0, 0, error="503"), Response("Nile", "stop", 3, 1)])

    async def scene(engine: CachedEngine, inner: Inner) -> None:
        one, two = await asyncio.gather(*(engine.generate(numbered(1)) for _ in range(2)))
        assert (one[0].error, two[0].text) == ("503", "Nile")

    played(tmp_path / "c", scene, answer=lambda r: next(answers))


def test_a_cancelled_group_leaves_nothing_behind_and_its_follower_asks(tmp_path):
    async def scene(engine: CachedEngine, inner: Inner) -> None:
        inner.open.clear()
        leader, follower = (asyncio.create_task(engine.generate(numbered(1))) for _ in range(2))
        await until(lambda: bool(inner.asked))
        leader.cancel()
        await until(lambda: len(inner.asked) == 2)
        assert leader.cancelled() and stored(engine.cache.path) == 0
        inner.open.set()
        assert not (await follower)[0].cached and stored(engine.cache.path) == 1

    played(tmp_path / "c", scene)


def test_a_group_that_was_not_sent_stores_nothing(tmp_path):
    def refuse(request: Request) -> Response:
        raise NotSent("budget reached")

    async def scene(engine: CachedEngine, inner: Inner) -> None:
        outcomes = await asyncio.gather(
            *(engine.generate(numbered(1)) for _ in range(3)), return_exceptions=True
        )
        assert [type(o) for o in outcomes] == [NotSent] * 3
        assert stored(engine.cache.path) == 0 and (engine.hits, engine.misses) == (0, 0)

    played(tmp_path / "c", scene, answer=refuse)


def test_an_answer_that_came_is_stored_even_if_its_group_is_cancelled_then(tmp_path):
    async def scene(engine: CachedEngine, inner: Inner) -> None:
        engine.cache._thread.submit(gate.wait)  # the cache is busy: the answer waits to be written
        task = asyncio.create_task(engine.cache.store("m", {KEY: Response("Nile", "stop", 1, 1)}))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0.01)
        assert task.cancelled()
        gate.set()

    gate = threading.Event()
    played(tmp_path / "c", scene)
    assert stored(tmp_path / "c") == 1


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


# ---- several processes ----

WRITER = """
import asyncio, sys
from pathlib import Path
from pipeline.engines.base import Response
from pipeline.engines.cache import RequestCache

async def fill(name, count):
    cache = RequestCache(Path(sys.argv[1]))
    for n in range(count):
        key = f"{'same' if n % 2 else name}-{n}"
        await cache.store("m", {key: Response(f"{name} 河流", "stop", 1, 1)})
        assert key in await cache.find([key])
        print(key, flush=True)

asyncio.run(fill(sys.argv[2], int(sys.argv[3])))
"""


def writer(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_two_processes_make_and_fill_one_file_at_once(tmp_path):
    both = [writer(tmp_path / "c", name, 100) for name in "ab"]
    for process in both:
        assert (process.communicate(timeout=30)[1], process.returncode) == ("", 0)
    assert stored(tmp_path / "c") == 150  # 50 of each one's own, 50 that both wrote


def test_what_was_stored_before_a_kill_is_there(tmp_path):
    process = writer(tmp_path / "c", "a", 100_000)
    assert process.stdout
    keys = [process.stdout.readline().strip() for _ in range(30)]
    process.send_signal(signal.SIGKILL)
    keys += process.stdout.read().split("\n")[:-1]
    process.wait()

    async def scene(engine: CachedEngine, inner: Inner) -> None:
        assert set(await engine.cache.find(keys)) == set(keys)

    played(tmp_path / "c", scene)


# ---- bad files ----


@pytest.mark.parametrize("damage", [b"not a database at all, " * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, damage):
    (tmp_path / "c").write_bytes(damage)
    said = refusal(tmp_path / "c")
    assert (
        said.startswith(f"{tmp_path}/c: expected a request cache, the file is damaged (") and "Move" in said
    )
    assert (tmp_path / "c").read_bytes() == damage


def test_damage_in_the_middle_is_an_error_when_it_is_met(tmp_path):
    async def fill(engine: CachedEngine, inner: Inner) -> None:
        await engine.generate(numbered(*range(200)))

    async def read(engine: CachedEngine, inner: Inner) -> None:
        with pytest.raises(PipelineError, match="damaged"):
            await engine.generate(numbered(*range(200)))

    played(tmp_path / "c", fill)
    data = bytearray((tmp_path / "c").read_bytes())
    data[4096:] = b"\x5a" * (len(data) - 4096)
    (tmp_path / "c").write_bytes(data)
    played(tmp_path / "c", read)


@pytest.mark.parametrize("row", ["{", "[]", '{"text": 1}', '{"text": "a", "finish_reason": "stop", "x": 1}'])
def test_a_row_that_is_no_response_is_an_error(tmp_path, row):
    async def scene(engine: CachedEngine, inner: Inner) -> None:
        connection = sqlite3.connect(engine.cache.path)
        with connection:
            connection.execute("INSERT INTO answers VALUES (?, 'm', 0, ?)", (request_key("m", RIVERS), row))
        connection.close()
        with pytest.raises(PipelineError, match="the file is damaged"):
            await engine.generate([RIVERS])

    played(tmp_path / "c", scene)


def test_a_newer_cache_and_another_programs_database_are_refused(tmp_path):
    for name, statement in (
        ("new", "PRAGMA user_version = 2"),
        ("other", "CREATE TABLE bookmarks (url TEXT)"),
    ):
        connection = sqlite3.connect(tmp_path / name)
        connection.execute(statement)
        connection.close()
    assert "the cache has version 2, this program knows version 1. Use the newer program" in refusal(
        tmp_path / "new"
    )
    assert "the file is a database of something else" in refusal(tmp_path / "other")


def test_a_place_that_is_no_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    assert refusal(tmp_path / "file" / "c").startswith(f"{tmp_path}/file/c: File exists (EEXIST)")
    assert "the cache cannot be used (unable to open database file, SQLITE_CANTOPEN" in refusal(tmp_path)


def test_a_read_only_directory_is_refused():
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o555)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        assert refusal(folder / "c").startswith(f"{folder}/c: Permission denied (EACCES)")
    finally:
        if root:
            os.seteuid(0)
        shutil.rmtree(folder)


def test_a_full_disk_says_so_and_the_cache_works_once_there_is_space(tmp_path):
    async def scene(engine: CachedEngine, inner: Inner) -> None:
        connection = engine.cache._connection
        await engine.cache._call(lambda: connection.execute("PRAGMA max_page_count = 3"))
        with pytest.raises(PipelineError) as caught:
            await engine.generate(numbered(*range(500)))
        assert str(caught.value).startswith(f"{engine.cache.path}: the disk is full. Nothing written so far")
        await engine.cache._call(lambda: connection.execute("PRAGMA max_page_count = 100000"))
        await engine.generate(numbered(*range(500)))
        assert stored(engine.cache.path) == 500

    played(tmp_path / "c", scene)


FILE_LIMIT = """
import asyncio, resource, sys
from pathlib import Path
from pipeline.engines.base import Response
from pipeline.engines.cache import RequestCache
from pipeline.errors import PipelineError

cache = RequestCache(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    for n in range(1000):
        asyncio.run(cache.store("m", {f"k{n}": Response("长江" * 100, "stop", 1, 1)}))
except PipelineError as error:
    print(n, error)
"""


def test_a_write_that_the_system_refuses_is_an_error_and_keeps_the_rest(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", FILE_LIMIT, str(tmp_path / "c")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    count, said = done.stdout.split(" ", 1)
    assert "the cache cannot be used (disk I/O error" in said, done.stderr
    assert stored(tmp_path / "c") == int(count) > 5

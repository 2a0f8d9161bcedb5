"""The journal gives back what was written; a torn end is cut, other damage and a full disk are errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engines.base import Request, Response
from pipeline.engines.journal import Journal
from pipeline.errors import PipelineError
from pipeline.lines import LineFile

ROOT = Path(__file__).resolve().parents[1]
REQUESTS = [Request(f"Name {i} rivers. 列举河流。\u2028") for i in range(6)]
RESPONSES = [
    Response("The Nile.\n长江\u2028\u0085", "stop", 4, 9),
    Response("", "error", 0, 0, error="TimeoutError: no answer"),
    Response("", "score", 7, 0, (-1.25, -0.5)),
    *(Response(f"answer {i}", "length", i, i) for i in range(3)),
]
SIZES = (3, 1, 2)  # groups


def write(path: Path) -> list[bytes]:
    """A journal of three groups; its lines."""
    journal, first = Journal(path), 0
    for size in SIZES:
        group = slice(first, first + size)
        journal.append([(first, REQUESTS[group], RESPONSES[group])])
        first += size
    return path.read_bytes().splitlines(keepends=True)


def entries(groups: int = 3) -> list[list[tuple[str, Response]]]:
    """What loading the first groups must give."""
    pairs = iter(zip((r.digest for r in REQUESTS), RESPONSES, strict=True))
    return [[next(pairs) for _ in range(size)] for size in SIZES[:groups]]


def test_groups_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "journal.jsonl"
    assert len(write(path)) == 6
    loaded = Journal(path)
    assert list(loaded.groups) == entries() and loaded.cut == ""


def test_a_reopened_journal_goes_on_where_it_ended(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = write(path)
    path.write_bytes(b"".join(lines[:4]))
    Journal(path).append([(4, REQUESTS[4:], RESPONSES[4:])])
    assert path.read_bytes() == b"".join(lines)


def test_no_file_and_an_empty_file_hold_nothing(tmp_path):
    (tmp_path / "empty").touch()
    assert list(Journal(tmp_path / "new").groups) == list(Journal(tmp_path / "empty").groups) == []
    assert (tmp_path / "new").read_bytes() == b""


def test_without_a_path_nothing_is_written():
    journal = Journal(None)
    journal.append([(0, REQUESTS[:1], RESPONSES[:1])])
    assert list(journal.groups) == []


@pytest.mark.parametrize("left", [0, 1, 20, -1])
def test_a_torn_last_line_is_cut_with_its_group_and_reported(tmp_path, left):
    path = tmp_path / "journal.jsonl"
    lines = write(path)
    torn = lines[5][:left]  # nothing, a byte, 20 bytes, all but the newline
    path.write_bytes(b"".join(lines[:5]) + torn)
    loaded = Journal(path)
    assert list(loaded.groups) == entries(2)
    assert path.read_bytes() == b"".join(lines[:4])
    assert loaded.cut == f"{path}: cut {len(lines[4]) + len(torn)} bytes of an incomplete group off the end"


def test_a_last_line_of_garbage_is_cut(tmp_path):
    path = tmp_path / "journal.jsonl"
    lines = write(path)
    path.write_bytes(b"".join(lines) + b"\x00\xff\x00\n")
    loaded = Journal(path)
    assert list(loaded.groups) == entries() and "cut 4 bytes" in loaded.cut
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("kept", [1, 2])
def test_an_incomplete_last_group_is_cut(tmp_path, kept):
    path = tmp_path / "journal.jsonl"
    lines = write(path)
    path.write_bytes(b"".join(lines[:kept]))  # of the first group of three
    loaded = Journal(path)
    assert list(loaded.groups) == [] and loaded.cut and path.read_bytes() == b""


DAMAGE = {
    "not JSON": lambda line: b"{" + line[5:],
    "not UTF-8": lambda line: line.replace(b"stop", b"st\xffp").replace(b"error", b"err\xffr"),
    "a list": lambda line: b"[1, 2]\n",
    "empty": lambda line: b"\n",
    "another number": lambda line: line.replace(b'"n": 1', b'"n": 2'),
    "no response": lambda line: line.replace(b'"response"', b'"respond"'),
    "an unknown field": lambda line: line.replace(b'"finish_reason"', b'"finish"'),
    "no digest": lambda line: line.replace(b'"request"', b'"asked"'),
    "a group that began elsewhere": lambda line: line.replace(b'"group": [0', b'"group": [1'),
    "a group that is too small": lambda line: line.replace(b'"group": [0, 3]', b'"group": [0, 1]'),
    "lost": lambda line: b"",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path, damage):
    path = tmp_path / "journal.jsonl"
    lines = write(path)
    broken = DAMAGE[damage](lines[1])
    assert broken != lines[1]
    path.write_bytes(b"".join([lines[0], broken, *lines[2:]]))
    before = path.read_bytes()
    with pytest.raises(PipelineError) as caught:
        Journal(path)
    assert str(caught.value).startswith(f"{path}:2: the journal is damaged (")
    assert str(caught.value).endswith("Restore the file, or start again with --overwrite.")
    assert path.read_bytes() == before  # nothing is cut


class Filling:
    """A stream on a disk that has `room` more bytes."""

    def __init__(self, stream, room: int) -> None:
        self.stream, self.room = stream, room

    def write(self, data) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.stream.write(data[: self.room])
        self.room -= written
        return written

    def fileno(self) -> int:
        return self.stream.fileno()


@pytest.mark.parametrize("room", [0, 1, 30])
def test_a_write_that_the_disk_refuses_is_taken_back_whole(tmp_path, room):
    path = tmp_path / "lines.jsonl"
    file = LineFile(path, anew=True)
    file.append([{"n": 0}])
    whole, file._stream = file._stream, Filling(file._stream, room)
    with pytest.raises(PipelineError) as caught:
        file.append([{"n": 1}, {"n": 2}, {"text": "x" * 50}])
    assert str(caught.value) == (
        f"{path}: the disk is full. Nothing written so far is damaged: "
        "free some space, then run again (with --resume if the command has it)."
    )
    assert path.read_bytes() == b'{"n": 0}\n'
    file._stream = whole  # space was freed
    file.append([{"n": 3}])
    file.close()
    assert path.read_bytes() == b'{"n": 0}\n{"n": 3}\n'


def test_a_write_in_pieces_is_completed(tmp_path):
    class Small(Filling):
        def write(self, data) -> int:
            return self.stream.write(data[:3])

    file = LineFile(tmp_path / "lines.jsonl", anew=True)
    file._stream = Small(file._stream, 0)
    file.append([{"n": 1}, {"n": "二"}])
    assert (tmp_path / "lines.jsonl").read_text(encoding="utf-8") == '{"n": 1}\n{"n": "二"}\n'


def test_a_line_that_never_reached_the_disk_is_taken_back(tmp_path, monkeypatch):
    def fail(number: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "journal.jsonl"
    lines = write(path)
    journal = Journal(path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(PipelineError, match="Input/output error"):
        journal.append([(6, REQUESTS[:1], RESPONSES[:1])])
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_the_full_device_says_that_the_disk_is_full():
    with pytest.raises(PipelineError, match="/dev/full: the disk is full"):
        LineFile(Path("/dev/full"), anew=False).append([{"n": 1}])


def test_a_real_limit_on_the_file_size_leaves_whole_groups(tmp_path):
    pytest.importorskip("resource")
    path = tmp_path / "journal.jsonl"
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from pipeline.engines.base import Request, Response; from pipeline.engines.journal import Journal\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for i in range(0, 99, 2):\n"
        "    journal.append([(i, [Request('a')] * 2, [Response('b', 'stop', 1, 1)] * 2)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "PipelineError" in done.stderr and "File too large" in done.stderr
    written = path.read_bytes()
    loaded = Journal(path)
    assert loaded.cut == "" and 0 < len(written) <= 1000
    assert [len(group) for group in loaded.groups] == [2] * (written.count(b"\n") // 2)

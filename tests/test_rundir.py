"""Run directories: who may use one, what a resumed run is compared with, files that are never half-made."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pipeline.errors import PipelineError
from pipeline.lines import LineFile
from pipeline.rundir import RunDir, digest, next_name, resumable, versions

CONFIG: dict[str, Any] = {"seed": 0, "languages": ["en", "zh"], "model": ""}
INPUTS = {"seeds/en.jsonl": "aa", "prompts/en/propose.jinja": "bb"}


def claim(path: Path, *, resume: bool = False, overwrite: bool = False, **changed: Any) -> RunDir:
    target = RunDir(path)
    target.claim({**CONFIG, **changed}, INPUTS, resume=resume, overwrite=overwrite)
    return target


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(PipelineError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def contents(path: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in path.iterdir() if p.is_file()}


def test_a_claimed_directory_holds_the_configuration_and_the_digests_of_what_is_read(tmp_path: Path) -> None:
    target = claim(tmp_path / "runs" / "a")
    record = json.loads((target.path / "run.json").read_text(encoding="utf-8"))
    assert record["inputs"] == INPUTS
    assert record["versions"]["python"] == versions()["python"]
    assert (target.path / "config.yaml").read_text() == "seed: 0\nlanguages:\n- en\n- zh\nmodel: ''\n"
    assert not target.done
    target.finish(CONFIG, INPUTS)
    assert target.done
    assert (target.path / "DONE").read_text() == digest({"config": CONFIG, "inputs": INPUTS}) + "\n"


def test_a_used_directory_is_refused_with_the_three_ways_out_and_left_as_it_is(tmp_path: Path) -> None:
    first = claim(tmp_path / "a")
    first.release()
    before = contents(first.path)
    said = refusal(lambda: claim(tmp_path / "a", seed=1))
    assert "in use by an unfinished run" in said
    assert all(way in said for way in ("--resume", "--overwrite", "--run"))
    first.finish(CONFIG, INPUTS)
    assert "in use by a finished run" in refusal(lambda: claim(tmp_path / "a"))
    assert {**before, "DONE": (first.path / "DONE").read_bytes()} == contents(first.path)


def test_a_foreign_directory_is_refused_even_with_overwrite_and_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for kind in ({}, {"overwrite": True}, {"resume": True}):
        assert "'thesis.tex'" in refusal(lambda kind=kind: claim(tmp_path, **kind))
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    assert "this is a file" in refusal(lambda: claim(tmp_path / "a"))


def test_an_empty_directory_and_one_that_only_got_run_json_are_free(tmp_path: Path) -> None:
    # A full disk can stop a claim between run.json and config.yaml: there is nothing to resume then.
    (tmp_path / "a").mkdir()
    claim(tmp_path / "a").release()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text("{")
    assert "no run to resume" in refusal(lambda: resumable(tmp_path / "b", tmp_path, "x"))
    claim(tmp_path / "b").release()
    assert json.loads((tmp_path / "b" / "run.json").read_text())["inputs"] == INPUTS


def test_overwrite_removes_what_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    target = claim(tmp_path / "a")
    (target.path / "dataset").mkdir()
    (target.path / "dataset" / "README.md").write_text("old")
    (target.path / "journal.jsonl").write_text("{}\n")
    (target.path / ".notes").write_text("mine")
    target.finish(CONFIG, INPUTS)
    target.release()
    again = claim(tmp_path / "a", overwrite=True, seed=7)
    assert sorted(contents(again.path)) == [".lock", ".notes", "config.yaml", "run.json"]
    assert not (again.path / "dataset").exists()
    assert "seed: 7" in (again.path / "config.yaml").read_text()


def test_resuming_with_other_options_or_files_lists_every_key(tmp_path: Path) -> None:
    claim(tmp_path / "a").release()
    said = refusal(lambda: claim(tmp_path / "a", resume=True, seed=3, model="big"))
    assert "seed (0 -> 3)" in said and "model ( -> big)" in said and "languages" not in said
    other = {**INPUTS, "seeds/en.jsonl": "changed", "seeds/new.jsonl": "cc"}
    said = refusal(lambda: RunDir(tmp_path / "a").claim(CONFIG, other, resume=True, overwrite=False))
    assert "the contents of seeds/en.jsonl, the contents of seeds/new.jsonl" in said
    assert "propose.jinja" not in said


def test_a_refused_resume_gives_the_lock_back(tmp_path: Path) -> None:
    claim(tmp_path / "a").release()
    target = RunDir(tmp_path / "a")
    said = refusal(lambda: target.claim({"seed": 9}, INPUTS, resume=True, overwrite=False))
    assert "these differ" in said
    lock = FileLock(tmp_path / "a" / ".lock")
    lock.acquire(timeout=0)  # raises while `target`, which is still there, holds it
    assert lock.is_locked


def test_resuming_the_same_run_changes_neither_file(tmp_path: Path) -> None:
    claim(tmp_path / "a").release()
    before = contents(tmp_path / "a")
    claim(tmp_path / "a", resume=True).release()
    assert contents(tmp_path / "a") == before


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_a_damaged_run_json_is_a_one_line_error(tmp_path: Path, text: str) -> None:
    claim(tmp_path / "a").release()
    (tmp_path / "a" / "run.json").write_text(text)
    assert "run.json: not JSON" in refusal(lambda: claim(tmp_path / "a", resume=True))


def test_update_keeps_what_run_json_held(tmp_path: Path) -> None:
    target = claim(tmp_path / "a")
    target.update({"seconds": 1.5, "注": "中文"})
    text = (target.path / "run.json").read_text(encoding="utf-8")
    assert json.loads(text)["inputs"] == INPUTS and json.loads(text)["seconds"] == 1.5
    assert "中文" in text


def _hold(path: Path, held: Any, go: Any) -> None:
    target = claim(path, overwrite=True)
    held.set()
    go.wait(20)
    target.release()


def test_another_process_keeps_the_directory_until_it_ends(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    held, go = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(tmp_path / "a", held, go))
    other.start()
    assert held.wait(20)
    before = contents(tmp_path / "a")
    for kind in ({"resume": True}, {"overwrite": True}):
        assert "another process" in refusal(lambda kind=kind: claim(tmp_path / "a", **kind))
    assert contents(tmp_path / "a") == before
    go.set()
    other.join(20)
    claim(tmp_path / "a", resume=True)


def test_a_write_that_fails_leaves_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = claim(tmp_path / "a")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents(target.path)
    monkeypatch.setattr(os, "fsync", full)
    assert "the disk is full" in refusal(lambda: target.write("config.yaml", "seed: 1\n"))
    assert contents(target.path) == before


class _Full:
    """A raw stream that takes `room` bytes and then says that the disk is full."""

    def __init__(self, stream: Any, room: int) -> None:
        self.stream, self.room = stream, room

    def fileno(self) -> int:
        return int(self.stream.fileno())

    def write(self, data: memoryview) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.stream.write(data[: self.room])
        self.room -= written
        return int(written)


def test_lines_that_do_not_fit_are_taken_back_whole(tmp_path: Path) -> None:
    lines = LineFile(tmp_path / "x.jsonl", anew=True)
    lines.append([{"n": 1}, {"n": 2, "text": "中"}])
    whole = (tmp_path / "x.jsonl").read_bytes()
    assert whole == '{"n": 1}\n{"n": 2, "text": "中"}\n'.encode()
    stream, lines._stream = lines._stream, _Full(lines._stream, room=12)  # one line fits, the second does not
    said = refusal(lambda: lines.append([{"n": 3}, {"n": 4}]))
    assert "x.jsonl: the disk is full" in said and "--resume" in said
    assert (tmp_path / "x.jsonl").read_bytes() == whole
    lines._stream = stream
    lines.append([{"n": 5}])
    lines.close()
    assert (tmp_path / "x.jsonl").read_bytes() == whole + b'{"n": 5}\n'


def test_a_line_file_goes_on_or_begins_anew(tmp_path: Path) -> None:
    for anew, expected in ((True, "1\n"), (False, "1\n1\n"), (True, "1\n")):
        lines = LineFile(tmp_path / "x.jsonl", anew=anew, sync=True)
        lines.append([1])
        lines.close()
        assert (tmp_path / "x.jsonl").read_text() == expected


def test_the_newest_unfinished_run_of_the_command_is_resumed(tmp_path: Path) -> None:
    assert "no unfinished run" in refusal(lambda: resumable(None, tmp_path / "none", "make"))
    for age, name in enumerate(("make-001", "make-002", "make-003", "other-009")):
        claim(tmp_path / name).release()
        if name == "make-003":
            RunDir(tmp_path / name).finish(CONFIG, INPUTS)
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    assert resumable(None, tmp_path, "make") == tmp_path / "make-002"
    assert resumable(tmp_path / "make-001", tmp_path, "make") == tmp_path / "make-001"


def test_names_go_on_from_the_highest_number(tmp_path: Path) -> None:
    assert next_name(tmp_path / "none", "make") == tmp_path / "none" / "make-001"
    for name in ("make-004", "make-1000", "make-old", "other-2000"):
        (tmp_path / name).mkdir()
    assert next_name(tmp_path, "make").name == "make-1001"

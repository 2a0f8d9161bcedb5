"""Stopping and going on: Ctrl-C, SIGTERM, kill -9, a full disk; --resume ends in an unbroken run's bytes."""

from __future__ import annotations

import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import scripted
from scripted import SCRIPTED, Ended, environment, process, refused, refused_after_start, result

STOPPABLE = (*scripted.ARGS, "--num-examples", "12", "--batch-size", "8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The result of STOPPABLE when nothing stops it."""
    folder = tmp_path_factory.mktemp("whole")
    assert process(*SCRIPTED, *STOPPABLE, "--run", "r", cwd=folder).code == 0
    return result(folder / "r")


def start(cwd: Path, delay: float, answered: int = 8) -> subprocess.Popen[str]:
    """Start a slow run; return once `answered` answers are in its journal."""
    running = subprocess.Popen(
        [*SCRIPTED, *STOPPABLE, "--run", "my run"],
        cwd=cwd,
        env=environment(SCRIPTED_DELAY=str(delay)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal, deadline = cwd / "my run" / "journal.jsonl", time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= answered):
        assert running.poll() is None and time.monotonic() < deadline, running.communicate()
        time.sleep(0.02)
    return running


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_says_how_to_go_on_and_ends_in_the_same_bytes(
    kind: signal.Signals, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    running = start(tmp_path, delay=0.3)
    running.send_signal(kind)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.endswith("Go on with:\n  python -m pipeline.selfinstruct --resume --run 'my run'\n")
    assert not (tmp_path / "my run" / "dataset").exists()
    ended = process(*SCRIPTED, "--resume", "--run", "my run", cwd=tmp_path)
    assert (ended.code, ended.out) == (0, "my run/dataset\n")
    assert result(tmp_path / "my run") == whole


def test_a_second_ctrl_c_leaves_without_waiting_for_the_model(tmp_path: Path) -> None:
    running = start(tmp_path, delay=0, answered=0)
    running.kill()
    running.communicate()
    (tmp_path / "my run" / "DONE").unlink(missing_ok=True)
    (tmp_path / "my run" / "journal.jsonl").unlink()
    running = subprocess.Popen(
        [*SCRIPTED, "--resume", "--run", "my run"],
        cwd=tmp_path,
        env=environment(SCRIPTED_DELAY="300"),
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr
    while "examples wanted" not in (line := running.stderr.readline()):
        assert line, "ended before it began"
    time.sleep(0.5)  # the model is at work for five minutes now
    running.send_signal(signal.SIGINT)
    while "Ctrl-C again" not in (line := running.stderr.readline()):
        assert line, "ended at the first Ctrl-C"
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert running.returncode == 130
    assert "--resume --run 'my run'" in err and "Traceback" not in err


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, whole: dict[str, bytes]) -> None:
    running = start(tmp_path, delay=0.15, answered=24)
    running.kill()
    running.communicate()
    journal = tmp_path / "my run" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"n": 32, "group": [32, 8], "requ')  # a kill inside a write
    ended = process(*SCRIPTED, "--resume", cwd=tmp_path)
    assert "no unfinished run under runs/" in refused(ended)
    ended = process(*SCRIPTED, "--resume", "--run", "my run", cwd=tmp_path)
    assert ended.code == 0 and "cut 33 bytes of an incomplete group off the end" in ended.err
    assert result(tmp_path / "my run") == whole


def test_replaying_needs_no_new_answers(call: Any, tmp_path: Path, monkeypatch: Any) -> None:
    call(*scripted.ARGS, "--run", "r", "--num-examples", 4)
    before = result(tmp_path / "r")
    (tmp_path / "r" / "DONE").unlink()

    def refuse(*_: Any) -> Any:
        raise AssertionError("an answer was asked for")

    monkeypatch.setattr(scripted.ScriptedEngine, "generate", refuse)
    assert call("--resume", "--run", "r").code == 0
    assert result(tmp_path / "r") == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip(f"cannot mount a small file system: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


# Free kilobytes at the start; a run needs about 90, in pages of 4: run.json, journal, logs, the dataset.
@pytest.mark.parametrize("free", [4, 8, 12, 20, 28, 36, 44, 52, 60, 68])
def test_a_full_disk_is_named_and_the_run_completes_once_there_is_room(
    free: int, small_disk: Path, call: Any, whole: dict[str, bytes]
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (1024 - free) * 1024)
    run = small_disk / "r"
    ended = call(*STOPPABLE, "--run", run)
    said = refused_after_start(ended)
    assert "the disk is full" in said and str(run) in said, said
    ballast.unlink()
    begun = (run / "config.yaml").exists()
    ended = call(*(("--resume",) if begun else STOPPABLE), "--run", run)
    assert (ended.code, ended.out) == (0, f"{run}/dataset\n"), ended.err
    assert result(run) == whole


def test_a_file_size_limit_is_named_too(tmp_path: Path, whole: dict[str, bytes]) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    words = [*SCRIPTED, *STOPPABLE, "--run", "r"]
    done = subprocess.run(
        words, cwd=tmp_path, env=environment(), capture_output=True, text=True, preexec_fn=limit
    )
    said = refused_after_start(Ended(done.returncode, done.stdout, done.stderr))
    assert "File too large (EFBIG)" in said
    assert process(*SCRIPTED, "--resume", "--run", "r", cwd=tmp_path).code == 0
    assert result(tmp_path / "r") == whole


def test_a_run_that_stopped_for_an_error_can_be_resumed(call: Any, tmp_path: Path, monkeypatch: Any) -> None:
    answer = scripted.ScriptedEngine._answer

    def broken(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(scripted.ScriptedEngine, "_answer", broken)
    said = refused_after_start(call(*STOPPABLE, "--run", "r"))
    assert "requests failed, the last with: RuntimeError: out of memory" in said and "--resume" in said
    monkeypatch.setattr(scripted.ScriptedEngine, "_answer", answer)
    assert call("--resume", "--run", "r").code == 0
    assert len((tmp_path / "r" / "kept.jsonl").read_text().splitlines()) == 12

"""Runs code that nobody has read, with tests, in a process that can do little but compute.

Every run has a folder of its own, empty and removed afterwards, and limits on wall and processor time,
memory, open files, the size of a file and of what is printed; the process group is killed at the end. It
sees no environment variables and only the standard library, without sqlite3, curses and what needs a socket
or a process (asyncio, multiprocessing). What holds where:

- Linux with Landlock (5.13 and later, most distributions): the kernel refuses every file outside of the
  folder but the standard library and the system's shared libraries (read-only), and seccomp refuses
  sockets, processes, signals and some forty calls more. No root, no container. Names and sizes of files
  elsewhere can still be asked for (stat), and the folder may be filled for as long as the time limit lasts.
- Linux without Landlock: seccomp as above; files are guarded by an audit hook in Python alone.
- macOS: the audit hook and the limits alone, and macOS does not hold to the limit on memory. The hook stops
  everything that an answer does by ordinary means, and is no wall against someone who attacks CPython.
- Windows: refused.

That the tests passed is proved by a secret token, which the code does not get at by ordinary means (see
cell.py). What no sandbox can see: an answer whose objects equal everything passes every `==`.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError

GUARDS = ("kernel", "audit hook")
_ROOT = str(Path(__file__).resolve().parents[2])
_FLAGS = ("-s", "-S", "-P", "-B", "-X", "utf8", "-m", "pipeline.verify.cell")
_REPORT = 4096  # bytes that are read of a report; it has a few hundred
_GRACE = 1.0  # seconds for a process that has closed its pipes to end


@dataclass(frozen=True)
class Limits:
    """What one run may use: seconds of wall time, MiB of memory, of a file and of printed output."""

    seconds: float = 5.0
    memory: int = 512
    file: int = 1
    output: int = 1

    def as_rlimits(self) -> dict[str, tuple[int, int]]:
        """The limits under the names of the module resource; processes are not counted, but refused."""
        processor = int(self.seconds) + 2
        sizes = {"RLIMIT_AS": self.memory << 20, "RLIMIT_FSIZE": self.file << 20, "RLIMIT_CPU": processor}
        return {name: (size, size) for name, size in {**sizes, "RLIMIT_NOFILE": 64, "RLIMIT_CORE": 0}.items()}


@dataclass(frozen=True)
class Ran:
    """How a run ended: `evidence` says why it failed; `guards` are those that were in force."""

    passed: bool
    evidence: str
    guards: tuple[str, ...] = ()


def run_tests(
    code: str, tests: str, limits: Limits = Limits(), *, setup: str = "", guards: tuple[str, ...] = GUARDS
) -> Ran:
    """Run `setup`, `code` and then `tests` in one namespace; passed if the tests came to their end.

    `guards` is for tests of the sandbox itself. Raises PipelineError where there is no such sandbox.
    """
    if os.name != "posix":
        raise PipelineError("code check", f"this is {sys.platform}, expected Linux or macOS", "Run it there.")
    token = secrets.token_hex(16)
    read_end, write_end = os.pipe()
    job = {"code": code, "tests": tests, "setup": setup, "token": token, "report": write_end}
    job |= {"limits": limits.as_rlimits(), "guards": guards}
    with tempfile.TemporaryDirectory(prefix="answer-", ignore_cleanup_errors=True) as folder:
        folder = os.path.realpath(folder)
        try:
            process = subprocess.Popen(
                [sys.executable, *_FLAGS],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={"PYTHONPATH": _ROOT, "PYTHONHASHSEED": "0", "TMPDIR": folder, "HOME": folder},
                pass_fds=(write_end,),
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        with os.fdopen(read_end, "rb", buffering=0) as report:
            try:
                _send(process, json.dumps(job).encode())
                stopped, said = _watch(process, report, limits)
                code_of_exit = _end(process, limits.seconds if stopped else _GRACE, at_once=bool(stopped))
            finally:
                _kill(process)
    return _judge(stopped, said, token, code_of_exit)


def _send(process: subprocess.Popen[bytes], job: bytes) -> None:
    assert process.stdin is not None
    try:
        with process.stdin as stream:
            stream.write(job)
    except BrokenPipeError:
        return  # it ended before it had read all; its exit code tells


def _watch(process: subprocess.Popen[bytes], report: IO[bytes], limits: Limits) -> tuple[str, bytes]:
    """Follow a run until both pipes are closed or a limit is passed: (which one, the report)."""
    assert process.stdout is not None
    deadline, printed, said = time.monotonic() + limits.seconds, 0, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(report, selectors.EVENT_READ)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return f"stopped after {limits.seconds:g} seconds", said
            for key, _ in selector.select(left):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is report:
                    said = (said + data)[:_REPORT]
                else:
                    printed += len(data)
            if printed > limits.output << 20:
                return f"stopped: it printed more than {limits.output} MiB", said
    return "", said


def _end(process: subprocess.Popen[bytes], seconds: float, *, at_once: bool) -> int:
    """Kill the group and give the exit code; one that is ending by itself may."""
    deadline = time.monotonic() + (0 if at_once else seconds)
    while hasattr(os, "waitid") and time.monotonic() < deadline:
        # looked at and not collected: the number stays taken, so the group killed is this one
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            break
        time.sleep(0.002)
    _kill(process)
    return process.wait()


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):  # macOS says the latter of one that has ended
            process.kill()
        process.wait()
    for stream in (process.stdout, process.stdin):
        if stream is not None and not stream.closed:
            stream.close()


def _judge(stopped: str, said: bytes, token: str, code: int) -> Ran:
    guards, _, rest = said.partition(b"\n")
    names = tuple(filter(None, guards.decode("utf-8", "replace").split(", ")))
    if not stopped and rest == token.encode():
        return Ran(True, "the tests passed", names)
    said_so = " ".join(rest.decode("utf-8", "replace").replace(token, "").split())
    ours = said_so.startswith(("failed: ", "refused: "))  # else the answer has written to the report
    return Ran(False, stopped or (said_so if ours else f"{_how(code)} before the tests had passed"), names)


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"

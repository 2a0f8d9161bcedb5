"""The sandbox's inside: run as a process of its own by sandbox.py, never imported elsewhere.

The job comes on standard input as JSON, the report goes to a pipe: first what guards there are, then either
why the code failed or the secret token, which is the only proof that counts. The token lives in the main
thread's frame, the code under test runs in another thread, below whose frames there is nothing of ours but
`work`. That it came to its end is not told by the thread, which the code could imitate, but seen from the
main thread: the thread stands at the last line of `work`, called by nobody.
"""

from __future__ import annotations

import _thread
import builtins
import gc
import json
import os
import resource
import signal
import sys
import types
from collections.abc import Callable
from typing import Any

from pipeline.verify import guard, kernel

# Functions look built-ins up in here: code under test can change those of the module, not this copy.
globals()["__builtins__"] = dict(vars(builtins))

ANSWER, TESTS = "<answer>", "<tests>"
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_ZONES = "/usr/share/zoneinfo"
_EVIDENCE, _LINE = 400, 120  # characters of an error, of a line of the tests
_STACK = 16 << 20  # bytes


def main() -> None:
    """Read the job, lock this process up, run the code and report; never returns."""
    job = json.loads(sys.stdin.buffer.read())
    report, token, leave = int(job["report"]), job["token"].encode(), os._exit
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    _limit(job["limits"])
    try:
        answer = compile(f"{job['setup']}\n{job['code']}" if job["setup"] else job["code"], ANSWER, "exec")
        tests = compile(job["tests"], TESTS, "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError) as error:
        os.write(report, f"\nfailed: {type(error).__name__}: {error}".encode("utf-8", "replace"))
        leave(1)
    space, folder = _namespace(), os.getcwd()
    guards = kernel.lock(folder, (*sys.path, *_LIBRARIES, _ZONES)) if "kernel" in job["guards"] else []
    if "audit hook" in job["guards"]:
        _audit(folder, report)
        guards.append("audit hook")
    os.write(report, ", ".join(guards).encode())
    run(answer, tests, space, report, token, _teller(report, job["tests"]))


def run(
    answer: types.CodeType,
    tests: types.CodeType,
    space: dict[str, Any],
    report: int,
    token: bytes,
    tell: Callable[[str, BaseException], None],
) -> None:
    """Run the code in a thread and report what is seen of it from here."""
    write, leave, frames, no_collection = os.write, os._exit, sys._current_frames, gc.disable
    ready, hold = _thread.allocate_lock(), _thread.allocate_lock()
    ready.acquire()
    hold.acquire()
    code = work.__code__
    last = max(line for _, _, line in code.co_lines() if line)
    arguments = (exec, answer, tests, space, tell, leave, ready, hold)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # or the code could interrupt this thread
    _thread.stack_size(_STACK)
    # a function with globals and built-ins of its own: its frame leads nowhere
    alone = types.FunctionType(code, {"__builtins__": dict(vars(builtins))})
    thread = _thread.start_new_thread(alone, arguments)
    ready.acquire()
    no_collection()  # no finaliser of the code's may run on top of this frame
    frame = frames().get(thread)
    there = frame is not None and frame.f_code is code and frame.f_lineno == last and frame.f_back is None
    write(report, b"\n" + (token if there else b"failed: the end of the tests was faked"))
    leave(0)


def work(
    execute: Any, answer: Any, tests: Any, space: Any, tell: Any, leave: Any, ready: Any, hold: Any
) -> None:
    """Run the answer, then its tests; both locks are the main thread's."""
    try:
        execute(answer, space)
    except BaseException as error:  # SystemExit too
        tell("the answer", error)
        leave(1)
    try:
        execute(tests, space)
    except BaseException as error:  # as above
        tell("the tests", error)
        leave(1)
    ready.release(), hold.acquire()


def _teller(report: int, tests: str) -> Callable[[str, BaseException], None]:
    write, lines = os.write, tests.split("\n")

    def tell(part: str, error: BaseException) -> None:
        """Report an error with the line of the tests that it came from."""
        line, said = 0, "an error without a name"
        try:
            said = f"{type(error).__name__}: {error}"
            step = error.__traceback__
            while step is not None:
                line = step.tb_lineno if step.tb_frame.f_code.co_filename == TESTS else line
                step = step.tb_next
        except BaseException:  # an error is the code's own to write, and may raise when looked at
            line = 0
        place = f", line {line} ({lines[line - 1].strip()[:_LINE]})" if line else ""
        write(report, f"\nfailed: {part}{place}: {said[:_EVIDENCE]}".encode("utf-8", "replace"))

    return tell


def _limit(limits: dict[str, tuple[int, int]]) -> None:
    for name, (soft, hard) in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (soft, hard))
        except (ValueError, OSError):  # macOS lacks some of them
            continue


def _audit(folder: str, report: int) -> None:
    write = os.write
    guard.install(folder, (*sys.path, _ZONES), lambda text: write(report, b"\n" + text), _thread.get_ident())


def _namespace() -> dict[str, Any]:
    """The module that the code is run as; it takes the place of this one, and this package is forgotten."""
    module = types.ModuleType("answer")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pipeline", "__main__")]:
        del sys.modules[name]
    sys.modules["answer"] = sys.modules["__main__"] = module
    root = os.environ.pop("PYTHONPATH")
    sys.path[:] = [path for path in sys.path if path != root]
    vars(module)["__builtins__"] = builtins
    return vars(module)


if __name__ == "__main__":
    main()

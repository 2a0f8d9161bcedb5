"""Code under test can compute and little else: each attack is stopped, says why, and the caller goes on."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.verify.code import code_of
from pipeline.verify.sandbox import GUARDS, Limits, run_tests

GOOD = "def f(x):\n    return x * x\n"
TESTS = "assert f(2) == 4"
USUAL, BRIEF = Limits(), Limits(seconds=0.5)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the sandbox is for Linux and macOS")
LINUX = sys.platform.startswith("linux")
KERNEL = set(run_tests(GOOD, TESTS).guards) >= {"Landlock", "seccomp"} if os.name == "posix" else False
LAYERS = [pytest.param(GUARDS, id="both"), pytest.param(("audit hook",), id="hook")]
if KERNEL:  # each layer has to hold alone
    LAYERS.append(pytest.param(("kernel",), id="kernel"))


def fails(code: str, guards: tuple[str, ...] = GUARDS, limits: Limits = USUAL) -> str:
    """Run code that must not pass, and see that good code still does."""
    ran = run_tests(code, TESTS, limits, guards=guards)
    assert not ran.passed
    assert run_tests(GOOD, TESTS, guards=guards).passed
    return ran.evidence


# ---- ordinary answers ----


@pytest.mark.parametrize("guards", LAYERS)
@pytest.mark.parametrize(
    "code",
    [
        GOOD,
        f"import math, re, json, collections, decimal, random, datetime, unittest\n{GOOD}",
        f"import threading\nt = threading.Thread(target=print)\nt.start()\nt.join()\n{GOOD}",
        f"open('a', 'w').write('x')\nassert open('a').read() == 'x'\nimport os\nos.remove('a')\n{GOOD}",
        f"import tempfile\nwith tempfile.TemporaryFile() as t: t.write(b'x')\n{GOOD}",
        "from __future__ import annotations\nimport dataclasses as d\n@d.dataclass\nclass A:\n  x: int\n"
        + GOOD,
        f"print('x' * 10000)\n{GOOD}",
    ],
)
def test_an_honest_answer_passes(code: str, guards: tuple[str, ...]) -> None:
    ran = run_tests(code, TESTS, guards=guards)
    assert (ran.passed, ran.evidence) == (True, "the tests passed")


@pytest.mark.skipif(not LINUX, reason="the kernel's means are Linux's")
def test_the_guards_in_force_are_named() -> None:
    assert run_tests(GOOD, TESTS).guards[-1] == "audit hook"
    assert "seccomp" in run_tests(GOOD, TESTS).guards


def test_a_wrong_answer_fails_with_the_line_of_the_tests() -> None:
    ran = run_tests("def f(x): return x", "y = 1\nassert f(2) == 4, 'squares'")
    assert ran.evidence == "failed: the tests, line 2 (assert f(2) == 4, 'squares'): AssertionError: squares"


def test_code_that_does_not_compile_or_raises_says_so() -> None:
    assert "SyntaxError" in fails("def f(:")
    assert "SyntaxError" in fails("\0") and "surrogates not allowed" in fails("x = '\ud800'")
    assert fails("1 / 0") == "failed: the answer: ZeroDivisionError: division by zero"


def test_setup_runs_before_the_answer() -> None:
    assert run_tests("def f(x): return math.pow(x, 2)", TESTS, setup="import math").passed


# ---- time, memory, output ----


@pytest.mark.parametrize(
    "code", ["while True: pass", "import time\ntime.sleep(99)", "import signal\nsignal.pause()"]
)
def test_a_loop_or_a_sleep_without_end_is_stopped(code: str) -> None:
    begun = time.monotonic()
    assert run_tests(code, TESTS, BRIEF).evidence == "stopped after 0.5 seconds"
    assert time.monotonic() - begun < 20  # nowhere near what it would take; a slow machine may wait


@pytest.mark.skipif(not LINUX, reason="macOS does not hold to a limit on memory")
@pytest.mark.parametrize("code", ["x = [0] * 10**10", "x = []\nwhile True: x.append(bytearray(10**7))"])
def test_eating_memory_is_stopped(code: str) -> None:
    assert "MemoryError" in fails(code)


def test_printing_gigabytes_is_stopped() -> None:
    assert fails("while True: print('x' * 10**6)") == "stopped: it printed more than 1 MiB"
    assert fails("import os\nwhile True: os.write(2, b'x' * 10**6)") == "stopped: it printed more than 1 MiB"


def test_a_large_file_is_refused() -> None:
    assert "File too large" in fails("open('x', 'wb').write(b'x' * 10**8)")


# ---- processes, signals, the network ----


@pytest.mark.parametrize("guards", LAYERS)
@pytest.mark.parametrize(
    "code",
    [
        "import os\nwhile True: os.fork()",
        "import os\nassert os.system('true') == 0, 'Error'",
        "import os\nos.execv('/bin/true', ['true'])",
        "import os\nos.posix_spawn('/bin/true', ['true'], {})",
        "import subprocess\nsubprocess.run(['true'])",
        "import _posixsubprocess\n_posixsubprocess.fork_exec(*range(21))",
        "import multiprocessing as m\np = m.Process()\np.start()\np.join()\nassert not p.exitcode",
        "import os\nos.kill(os.getppid(), 9)",
        "import os, signal\nsignal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
        "import socket\nsocket.socket()",
        "import socket\nsocket.create_connection(('127.0.0.1', 9))",
        "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')",
        "import asyncio\nasyncio.run(asyncio.sleep(0))",
    ],
)
def test_processes_signals_and_sockets_are_refused(code: str, guards: tuple[str, ...]) -> None:
    evidence = fails(f"{code}\n{GOOD}", guards)
    assert "refused" in evidence or "Error" in evidence


# ---- files ----

READS = [
    "open({path!r}).read()",
    "import os\nos.open({path!r}, os.O_RDONLY)",
    "import os\nos.listdir(os.path.dirname({path!r}))",
    "import os\nlist(os.scandir(os.path.dirname({path!r})))",
    "import pathlib\npathlib.Path({path!r}).read_text()",
    "import io\nio.FileIO({path!r})",
    "import io\nio.open_code({path!r})",
    "import os\nos.symlink({path!r}, 'link')\nopen('link').read()",
    "import os\nos.link({path!r}, 'link')\nopen('link').read()",
    "import os\nos.chdir('/')\nopen({path!r}[1:]).read()",
    "import os\nopen('../' * 20 + {path!r}).read()",
    "import ctypes\nassert ctypes.CDLL(None).open({path!r}.encode(), 0) >= 0",
    "import sqlite3\nsqlite3.connect({path!r}).execute('create table t(x)')",
    "import os\nos.remove({path!r})",
    "import os\nos.rename({path!r}, 'mine')",
    "import os\nos.chmod({path!r}, 0)",
    "import os\nos.truncate({path!r}, 0)",
    "open({path!r} + '.new', 'w')",
    "import shutil\nshutil.copy({path!r}, 'mine')",
    # a path that answers differently each time it is asked
    "class P:\n  n = 0\n  def __fspath__(self):\n    P.n += 1\n    return 'x' if P.n == 1 else {path!r}\n"
    "import os\nos.close(os.open('x', os.O_CREAT))\nfd = os.open(P(), 0)\nfd = os.open(P(), 0)",
]


@pytest.mark.parametrize("guards", LAYERS)
@pytest.mark.parametrize("code", READS)
def test_a_file_outside_of_the_folder_cannot_be_read_or_changed(
    code: str, guards: tuple[str, ...], tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    evidence = fails(code.format(path=str(secret)) + f"\n{GOOD}", guards)
    assert secret.read_text(encoding="utf-8") == "secret" and secret.stat().st_mode & 0o400
    assert [path.name for path in tmp_path.iterdir()] == ["secret.txt"]
    assert "refused" in evidence or "Error" in evidence


@pytest.mark.parametrize("guards", LAYERS)
def test_the_password_file_cannot_be_read_even_if_the_error_is_caught(guards: tuple[str, ...]) -> None:
    code = "try:\n    text = open('/etc/passwd').read()\nexcept OSError:\n    text = ''\nassert text\n" + GOOD
    assert fails(code, guards)


def test_the_environment_is_empty_and_the_folder_is_removed() -> None:
    os.environ["A_SECRET"] = "secret"
    try:
        code = f"import os\nassert 'A_SECRET' not in os.environ and 'PYTHONPATH' not in os.environ\n{GOOD}"
        assert run_tests(code, TESTS).passed
    finally:
        del os.environ["A_SECRET"]
    before = set(Path(tempfile.gettempdir()).glob("answer-*"))
    assert run_tests(f"open('left', 'w').write('x')\n{GOOD}", TESTS).passed
    assert set(Path(tempfile.gettempdir()).glob("answer-*")) <= before


# ---- the proof ----


@pytest.mark.parametrize("guards", LAYERS)
@pytest.mark.parametrize(
    ("code", "evidence"),
    [
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("import os\nos._exit(0)", "ended with exit code 0 before the tests had passed"),
        ("raise SystemExit", "SystemExit"),
        ("import _thread\n_thread.exit()", "SystemExit"),
        ("def f(x):\n    import os\n    os._exit(0)", "ended with exit code 0"),
        ("def f(x):\n    raise SystemExit(0)", "SystemExit: 0"),
        ("class E(BaseException):\n  def __str__(self): raise self\nraise E", "an error without a name"),
        ("import os\nos.abort()", "ended by SIG"),
    ],
)
def test_leaving_early_is_not_passing(code: str, evidence: str, guards: tuple[str, ...]) -> None:
    assert evidence in fails(code, guards)


FORGERIES = [
    # release the main thread's lock from here, and wait for it to look
    "import sys, time\nframe = sys._getframe()\nwhile frame.f_back: frame = frame.f_back\n"
    "frame.f_locals['ready'].release()\ntime.sleep(2)",
    # run the harness's own code from here: the same last line, but called by somebody
    "import sys, types\nframe = sys._getframe()\nwhile frame.f_back: frame = frame.f_back\n"
    "own = types.FunctionType(frame.f_code, dict(frame.f_globals))\nseen = dict(frame.f_locals)\n"
    "own(lambda *a: None, *[seen[n] for n in frame.f_code.co_varnames[1:8]])",
    "import builtins\nfor name in ('exec', 'compile', 'len', 'max', 'AssertionError', 'BaseException'):\n"
    "    setattr(builtins, name, lambda *a, **k: None)",
    "import sys, os\nfor module in list(sys.modules.values()):\n"
    "    if hasattr(module, 'run') or hasattr(module, 'work'): module.run = module.work = lambda *a: None\n"
    "os.write = lambda *a: 1",
    "import os\nfor number in range(3, 64):\n    try: os.write(number, b'\\npassed\\n' + b'0' * 32)\n"
    "    except OSError: pass\nos._exit(0)",
    "import os\nos.closerange(3, 64)",
    "import _thread, time\n_thread.interrupt_main()\ntime.sleep(0.2)",
    "import __main__ as m\nassert not hasattr(m, 'token') and not hasattr(m, 'run')\nraise ValueError",
]


@pytest.mark.parametrize("guards", LAYERS)
@pytest.mark.parametrize("code", FORGERIES)
def test_a_pass_cannot_be_forged_from_inside(code: str, guards: tuple[str, ...]) -> None:
    evidence = fails(code, guards, Limits(seconds=4))  # f is never defined: only a forgery could pass
    assert evidence.startswith(("failed: ", "refused: ", "ended ", "stopped "))


@pytest.mark.parametrize(
    "code",
    [
        "import gc\ngc.get_objects()",
        "import sys\nsys._current_frames()",
        "import sys\nsys.settrace(lambda *a: None)",
        "import sys\nsys.addaudithook(lambda *a: None)",
        "import sys\nsys.audit('open')",  # an event without its arguments: the hook would stumble
        "import sys\nsys.audit('open', 10 ** 5000, 0, 0, 0)\nopen('/etc/passwd')",
        "import _xxsubinterpreters",
        "import _interpreters",
        "import _testcapi",
    ],
)
def test_the_hook_ends_the_process_for_ways_around_it(code: str) -> None:
    evidence = fails(code, ("audit hook",))
    assert "refused" in evidence


def test_the_hook_cannot_be_caught() -> None:
    code = f"try:\n    open('/etc/passwd')\nexcept BaseException:\n    pass\n{GOOD}"
    assert fails(code) == "refused: open('/etc/passwd', 'r')"


# ---- code in an answer ----


def test_the_last_fenced_block_is_the_code() -> None:
    assert code_of("a\n```python\nx = 1\n```\nb\n```\ny = 2\n```\n") == "y = 2\n"
    assert code_of("a\n```python\nx = 1\n") == "x = 1\n"  # cut off before the fence closed
    assert code_of("    x = 1\n    y = 2") == "x = 1\ny = 2"

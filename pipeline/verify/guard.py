"""The audit hook inside the sandbox: told of files, sockets and processes, it ends the process.

It raises nothing: an exception can be caught, and its traceback would lead to the hook. It cannot be removed
(CPython has no call for it) and reads nothing that code under test can change: it is a closure over
built-ins, and arguments that are not plain text or numbers are refused rather than asked. What CPython does
not audit (calls through pointers, some extension modules) is why the kernel's means come first; a refused
module list covers the known ones.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

REFUSED = 77  # exit code
_EVENTS = tuple(  # by their beginning
    "socket. subprocess. ctypes. gc. syslog. pty. sqlite3. webbrowser. winreg. setopencodehook"
    " os.exec os.fork os.posix_spawn os.spawn os.system os.startfile os.kill signal.pthread_kill"
    " os.link os.symlink os.chdir os.fchdir os.chmod os.chown os.chflags os.utime"
    " os.setxattr os.getxattr os.listxattr os.removexattr resource.setrlimit resource.prlimit"
    " sys.settrace sys.setprofile sys.monitoring sys.addaudithook sys._current sys.remote_exec"
    " cpython.PyInterpreterState_New cpython.remote_debugger_script".split()
)
_FILES = ("open", "os.listdir", "os.scandir")  # the others change something
_CHANGES = ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.mkfifo", "os.mknod")
_MODULES = frozenset(
    "ctypes _ctypes _cffi_backend _posixsubprocess _sqlite3 _dbm _gdbm readline _curses _tkinter"
    " _multiprocessing _posixshmem _testcapi _testinternalcapi _testlimitedcapi _testbuffer"
    " _testmultiphase _testsinglephase _xxsubinterpreters _xxinterpchannels _interpreters _interpchannels"
    " _interpqueues _remote_debugging faulthandler syslog nis spwd ossaudiodev".split()
)
# what CPython tells no hook of
_UNTOLD = (("_posixsubprocess", "fork_exec"), ("posix", "pidfd_open"), ("os", "pidfd_open"),
           ("_signal", "pidfd_send_signal"), ("signal", "pidfd_send_signal"))  # fmt: skip


def install(folder: str, readable: Iterable[str], say: Callable[[bytes], Any], thread: int) -> None:
    """Refuse from now on what is outside of `folder`; only `thread` may look at other threads' frames.

    `readable` folders and files may be read. `say` takes what was refused, before the process ends.
    """
    refuse = _refuse(say, os._exit)
    for module, name in _UNTOLD:
        if hasattr(__import__(module), name):
            setattr(sys.modules[module], name, lambda *_, what=name: refuse(what, ()))
    allowed = _allowed(folder, tuple(readable))
    sys.addaudithook(_hook(refuse, allowed, thread))


def _hook(
    refuse: Callable[[str, Any], None], allowed: Callable[[Any, bool], bool], thread: int
) -> Callable[[str, Any], None]:
    import _thread

    # built-ins by closure: code under test can replace those of the module builtins
    plain, whole, kind, this_thread = str, int, type, _thread.get_ident
    files, changes, events, modules = _FILES, _CHANGES, _EVENTS, _MODULES
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def decide(event: str, args: Any) -> bool:
        """Say whether an event is allowed."""
        if event == "import":
            name, file = args[0], args[1]
            known = kind(name) is plain and name.split(".", 1)[0] not in modules
            return known and (file is None or allowed(file, False))
        if event in files:
            flags = args[2] if event == "open" else 0
            return allowed(args[0], kind(flags) is not whole or flags & writes != 0)
        if event in changes:
            return allowed(args[0], True) and (event != "os.rename" or allowed(args[1], True))
        return not event.startswith(events) or (event == "sys._current_frames" and this_thread() == thread)

    def hook(event: str, args: Any) -> None:
        """End the process for an event that is not allowed, or that cannot be judged."""
        fine = False
        try:
            fine = decide(event, args)
        finally:
            if not fine:
                refuse(event, args)

    return hook


def _allowed(folder: str, readable: tuple[str, ...]) -> Callable[[Any, bool], bool]:
    kind, plain, raw, whole = type, str, bytes, int
    inside = folder.rstrip("/") + "/"
    below = tuple(path.rstrip("/") + "/" for path in readable)

    def allowed(path: Any, writes: bool) -> bool:
        """Say whether a path may be read, or written; a number is a file that is open already."""
        if path is None or kind(path) is whole:
            return True  # None: the present folder, which is ours
        if kind(path) is raw:
            path = path.decode("utf-8", "surrogateescape")
        if kind(path) is not plain or ".." in path.split("/"):
            return False
        if not path.startswith("/"):
            return True
        if path == "/dev/null" or f"{path}/".startswith(inside):
            return True
        return not writes and f"{path}/".startswith(below) and "/site-packages" not in path

    return allowed


def _refuse(say: Callable[[bytes], Any], leave: Callable[[int], Any]) -> Callable[[str, Any], None]:
    kind, plain, raw, shown, code = type, str, bytes, repr, REFUSED

    def refuse(event: str, args: Any) -> None:
        """Say what was refused, and end the process."""
        said = ""
        try:
            for argument in args[:2]:
                # nothing of the code under test is run in here: only plain values are shown
                if kind(argument) in (plain, raw):
                    said += f"{', ' if said else ''}{shown(argument)[:100]}"
            say(f"refused: {event}({said})".encode("utf-8", "replace"))
        finally:
            leave(code)

    return refuse

"""What the Linux kernel can forbid a process without root: seccomp for system calls, Landlock for files.

Both are asked for through ctypes, hold for every thread to come, and cannot be undone by the process. Each is
left out where the kernel lacks it (seccomp: 3.5, x86-64 and arm64; Landlock: 5.13, if it is switched on).
"""

from __future__ import annotations

import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterable
from typing import Any

from pipeline.verify import syscalls

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 1, 22, 38, 2
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION = 0x20080522

# classic BPF (linux/bpf_common.h) over struct seccomp_data: number, architecture, then the arguments
_LOAD, _EQUAL, _AT_LEAST, _HAS_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_CLONE_THREAD = 0x00010000

# linux/landlock.h
_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION, _BENEATH = 1, 1
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # how many there are in each version; 16 from 5 on
_READ = 1 << 2 | 1 << 3  # files and folders
_READ_FILE, _WRITE_FILE = 1 << 2, 1 << 1
_OWN = _READ | _WRITE_FILE | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 14  # remove, make, truncate; no links


def lock(folder: str, readable: Iterable[str]) -> list[str]:
    """Shut this process in: `folder` is its own, `readable` may be read; gives what the kernel agreed to."""
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in syscalls.ARCHITECTURES:
        return []
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    _drop_capabilities(libc, machine)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return []
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # nobody would stop it after its parent's end
    agreed = []
    if _landlock(libc, folder, readable):
        agreed.append("Landlock")
    if _seccomp(libc, machine):
        agreed.append("seccomp")
    return agreed


def _drop_capabilities(libc: Any, machine: str) -> None:
    """Give up root's powers, where it is root; nobody else has any, so nothing can fail that matters."""
    libc.syscall(_CAPSET[machine], struct.pack("II", _CAPABILITY_VERSION, 0), bytes(24))


def _seccomp(libc: Any, machine: str) -> bool:
    import ctypes

    program = _program(machine)
    text = ctypes.create_string_buffer(program)
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(text))
    return libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.create_string_buffer(header), 0, 0) == 0


def _program(machine: str) -> bytes:
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, syscalls.ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, syscalls.NEWER),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
    ]
    for number in syscalls.refused(machine):
        steps += [(_EQUAL, 0, 1, number), refuse]
    steps += [
        (_EQUAL, 0, 3, syscalls.CLONE[machine]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_HAS_BIT, 1, 0, _CLONE_THREAD),
        refuse,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _landlock(libc: Any, folder: str, readable: Iterable[str]) -> bool:
    version = libc.syscall(_CREATE, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    handled = (1 << _RIGHTS.get(version, 16)) - 1
    rules = libc.syscall(_CREATE, struct.pack("Q", handled), 8, 0)
    if rules < 0:
        return False
    _allow(libc, rules, folder, _OWN & handled)
    for path in readable:
        _allow(libc, rules, path, _READ)
    _allow(libc, rules, os.devnull, _READ_FILE | _WRITE_FILE)
    restricted = libc.syscall(_RESTRICT, rules, 0) == 0
    os.close(rules)
    return restricted


def _allow(libc: Any, rules: int, path: str, rights: int) -> None:
    """Allow `rights` at and below a path; one that does not exist needs no rule."""
    if not os.path.exists(path):
        return
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rights = rights if os.path.isdir(path) else rights & (_READ_FILE | _WRITE_FILE)
    libc.syscall(_ADD, rules, _BENEATH, struct.pack("=Qi", rights, place), 0)
    os.close(place)

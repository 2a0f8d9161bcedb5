"""Compilation by Numba, kept on disk for as long as no source of it has changed.

Numba itself keeps a function until that function's own file changes, and then runs what it was compiled
with: the code of a changed function that is called from another file would go on as it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba


def cache_of(folder: Path, kept: str = "") -> Path:
    """Where code compiled from the files in `folder` is kept: below `kept`, else beside them if it can be."""
    sources = [path.read_bytes() for path in sorted(folder.glob("*.py"))]
    digest = sha256(b"\0".join(source for source in sources if b"\n@compiled\n" in source)).hexdigest()[:16]
    beside = folder / "__pycache__"
    if not kept and not os.access(beside if beside.exists() else folder, os.W_OK):
        kept = os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "numba")
    return Path(kept or beside, f"compiled-{digest}")


_CACHE = str(cache_of(Path(__file__).parent, os.environ.get("NUMBA_CACHE_DIR", "")))


def compiled(function: Callable[..., Any]) -> Any:
    """The function compiled when it is first called, free of the interpreter's lock while it runs."""
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, _CACHE
    try:
        return numba.njit(cache=True, nogil=True)(function)
    finally:
        config.CACHE_DIR = before

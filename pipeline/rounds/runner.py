"""One stage of a round: an ordinary command in a process of its own, in an ordinary run directory."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import (
    EXIT_ERROR,
    EXIT_INTERRUPTED,
    EXIT_NOTHING_KEPT,
    EXIT_PAUSED,
    PipelineError,
    Stopped,
)
from pipeline.rundir import RunDir

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_MADE = {"selfinstruct": "kept.jsonl", "preferences": "preferences.jsonl"}  # empty where nothing was kept


@dataclass(frozen=True)
class Stage:
    """A command, its run directory, and the options that the loop gives it."""

    command: str
    folder: Path
    options: Mapping[str, Any]

    @property
    def done(self) -> bool:
        """Whether the run was finished."""
        return (self.folder / "DONE").exists()

    @property
    def words(self) -> list[str]:
        """The command line, to be repeated by hand."""
        config = ["--config", str(self.config), "--run", str(self.folder)]
        begun = (self.folder / "config.yaml").exists()
        return ["-m", f"pipeline.{self.command}", *config, *(["--resume"] if begun else [])]

    @property
    def config(self) -> Path:
        """The file with its options, beside its directory."""
        return self.folder.with_suffix(".yaml")

    def run(self) -> bool:
        """Run it to its end, or go on with it; False if nothing was kept. Raises PipelineError, Stopped."""
        if self.done:
            return self._made()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(self.options), allow_unicode=True, sort_keys=False)
        RunDir(self.folder.parent).write(self.config.name, text)
        child = subprocess.Popen(
            [sys.executable, *self.words],
            stdout=sys.stderr,
            start_new_session=True,  # Ctrl-C comes to us, and we pass it on
            preexec_fn=_die_with_parent,
        )
        with _passing_on(child) as heard:
            code = child.wait()
        self._check(code)
        if heard:  # it came too late for the stage, but not for the loop
            raise Stopped("", EXIT_INTERRUPTED)
        return self._made()

    def _made(self) -> bool:
        name = _MADE.get(self.command)
        return not name or (self.folder / name).stat().st_size > 0

    def _check(self, code: int) -> None:
        if code in (0, EXIT_NOTHING_KEPT):
            return
        if code in (EXIT_INTERRUPTED, EXIT_PAUSED, -signal.SIGINT, -signal.SIGTERM):
            raise Stopped("", EXIT_PAUSED if code == EXIT_PAUSED else EXIT_INTERRUPTED)
        how = "it says why above" if code == EXIT_ERROR else f"its process ended with {code}"
        raise PipelineError(
            self.folder, f"python {' '.join(self.words)} failed; {how}", "Mend it, then --resume."
        )


def _die_with_parent() -> None:
    """Have Linux kill this process when the loop dies: it would go on in a directory that is resumed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


@contextmanager
def _passing_on(child: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM go to the child, which stops in its own way; gives the signals heard."""
    heard: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        """A signal handler."""
        heard.append(number)
        child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

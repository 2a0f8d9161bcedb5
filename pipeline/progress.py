"""What a user watches: one live display on a terminal, plain lines elsewhere, and the same lines in log.txt.

Everything goes to stderr: stdout carries only a command's result.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipeline.errors import EXIT_INTERRUPTED, disk_errors


class Display:
    """Bars for what is wanted and for shares of what came in; below them what `below()` says."""

    def __init__(self, log: Path | None, *, quiet: bool = False) -> None:
        # no emoji: ":key:" in an answer is text
        self.console = Console(stderr=True, highlight=False, emoji=False, quiet=quiet)
        self._log = log
        self.below: Callable[[], str] = str
        self._bars = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(32),
            MofNCompleteColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            auto_refresh=False,
        )
        self._shares = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(32),
            MofNCompleteColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            console=self.console,
            auto_refresh=False,
        )
        self._ids: dict[str, Any] = {}
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=4)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the live display off the terminal."""
        if self._live:
            self._live.stop()
            self._live = None

    def bar(self, name: str, done: int, total: int | None) -> None:
        """Set a bar with its time, adding it when it is new; without `total` its end is not known."""
        self._set(self._bars, name, done, total)

    def share(self, name: str, part: int, whole: int) -> None:
        """Set a bar that says how many of `whole` went on."""
        self._set(self._shares, name, part, whole)

    def _set(self, bars: Progress, name: str, done: int, total: int | None) -> None:
        if name not in self._ids:
            self._ids[name] = bars.add_task(name, total=total)
        bars.update(self._ids[name], completed=done, total=total)

    def say(self, line: str) -> None:
        """Print a line above the bars and write it to log.txt with the time."""
        self.console.print(line, markup=False, soft_wrap=True)
        self.note(line)

    def note(self, line: str) -> None:
        """Write a line to log.txt only."""
        if self._log:
            with disk_errors(self._log), self._log.open("a", encoding="utf-8") as stream:
                stream.write(f"{time.strftime('%H:%M:%S')} {line}\n")

    def step(self, line: str) -> None:
        """Progress was made: a plain line where there is no live display."""
        if self._live:
            self.note(line)
        else:
            self.say(line)

    def table(self, table: Table) -> None:
        """Print a table (wide enough not to fold when this is not a terminal)."""
        console = self.console if sys.stderr.isatty() else Console(stderr=True, width=110, highlight=False)
        console.print(table)

    def _draw(self) -> Table:
        grid = Table.grid()
        grid.add_row(self._bars)
        grid.add_row(self._shares)
        grid.add_row(self.below())
        return grid


def stopping(display: Display, times: int, how_to_go_on: str) -> None:
    """Say what Ctrl-C does.

    The second time leave without waiting for the model: the journal is safe at any time.
    """
    if times == 1:
        display.say("stopping after the answers in flight; Ctrl-C again leaves at once")
        return
    display.close()
    print(how_to_go_on, file=sys.stderr, flush=True)
    os._exit(EXIT_INTERRUPTED)  # a plain exit would wait for the thread in which the model runs

"""The one error that users see, *where: got, expected. Fix.* on one line without a traceback, and exit codes.

0: done; 1: done, but nothing was kept; 2: an error, or seeds that `--check-seeds` complains of; 3: a
budget is used up, or a batch file waits for its results; 130: stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_NOTHING_KEPT = 1
EXIT_ERROR = 2
EXIT_PAUSED = 3
EXIT_INTERRUPTED = 130


class PipelineError(Exception):
    """Something the user can mend.

    `where` names the place (a file and line, an option), `problem` says what was found and what was expected,
    `fix` says what to do; all three end up on one line.
    """

    def __init__(self, where: object, problem: str, fix: str) -> None:
        self.where, self.problem, self.fix = str(where), problem, fix
        super().__init__(" ".join(f"{self.where}: {problem}. {fix}".split()))


class Stopped(Exception):
    """A graceful stop (Ctrl-C, SIGTERM, a budget used up): everything answered so far is kept.

    The message says how to go on; `code` is the process's exit code.
    """

    def __init__(self, message: str = "", code: int = EXIT_INTERRUPTED) -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def disk_errors(path: object) -> Iterator[None]:
    """Turn the operating system's refusals to read or write `path` into a PipelineError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            again = "free some space, then run again (with --resume if the command has it)."
            fix = f"Nothing written so far is damaged: {again}"
            raise PipelineError(path, "the disk is full", fix) from error
        problem = f"{error.strerror or error} ({errno.errorcode.get(error.errno or 0, 'OSError')})"
        raise PipelineError(path, problem, "Check that the path exists and that you may use it.") from error


def run_command(main: Callable[[list[str]], int]) -> None:
    """Call `main(argv)` as a process's entry point and exit with its code; errors are shown on one line."""
    try:
        sys.exit(main(sys.argv[1:]))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except (Stopped, KeyboardInterrupt) as stop:
        print(str(stop) or "Stopped.", file=sys.stderr)
        sys.exit(getattr(stop, "code", EXIT_INTERRUPTED))

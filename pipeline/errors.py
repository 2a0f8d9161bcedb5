"""The one error that users see: *where: got, expected.

Fix.* on one line, without a traceback, exit code 2.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

EXIT_ERROR = 2
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
    """A graceful stop (Ctrl-C, SIGTERM): everything answered so far is kept.

    The message says how to go on.
    """


@contextmanager
def disk_errors(path: object) -> Iterator[None]:
    """Turn the operating system's refusals to read or write `path` into a PipelineError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "Nothing written so far is damaged: free some space, then run again with --resume."
            raise PipelineError(path, "the disk is full", fix) from error
        problem = f"{error.strerror or error} ({errno.errorcode.get(error.errno or 0, 'OSError')})"
        raise PipelineError(path, problem, "Check that the path exists and that you may use it.") from error


def run_command(main: Callable[[list[str]], int]) -> None:
    """Call `main(argv)` as a process's entry point and exit with its code.

    Show a PipelineError on one line.
    """
    try:
        sys.exit(main(sys.argv[1:]))
    except PipelineError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_ERROR)
    except (Stopped, KeyboardInterrupt) as stop:
        print(str(stop) or "Stopped.", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)

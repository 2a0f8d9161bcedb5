"""What `python -m pipeline.dedup` does, once its options are parsed."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.config import as_dict
from pipeline.dedup.filters import Filters
from pipeline.dedup.options import Options
from pipeline.dedup.outcome import Outcome
from pipeline.errors import EXIT_NOTHING_KEPT, PipelineError, Stopped
from pipeline.format.sources import File, Source, find_sources
from pipeline.progress import Display
from pipeline.rows import Row
from pipeline.rundir import RunDir

_NOT_CONFIG = ("out", "overwrite")


def run(options: Options) -> int:
    """Write DIR/kept.jsonl and the rest, print the path of kept.jsonl; returns the exit code.

    Raises PipelineError, Stopped.
    """
    began, folder = time.monotonic(), Path(options.out)
    rows, held = find_sources(options.inputs), find_sources(options.against)
    _check_apart(rows, held, folder)
    config = {name: value for name, value in as_dict(options).items() if name not in _NOT_CONFIG}
    inputs = {source.name: source.digest() for source in (*rows, *held)}
    filters = Filters(options, held)
    target = RunDir(folder, option="--out", resumes=False)
    target.claim(config, inputs, resume=False, overwrite=options.overwrite)
    try:
        with _stoppable(folder), Display(folder / "log.txt") as display, closing(Outcome(folder)) as outcome:
            display.say(f"directory: {folder}; {filters.described}")
            _decide(rows, filters, outcome, display, began)
        outcome.ledger.check()
        seconds = time.monotonic() - began
        facts = {"marked": outcome.marked, "seconds": round(seconds, 1)}
        target.update({"ledger": [outcome.ledger.summary()], **facts})
        display.table(outcome.table(seconds))
        for line in outcome.examples(5):
            display.say(line)
        target.finish(config, inputs)
    finally:
        target.release()
    print(folder / "kept.jsonl")
    if not outcome.ledger.kept:
        display.say(f"{folder}: nothing was kept; dropped.jsonl there says why of every row.")
    return 0 if outcome.ledger.kept else EXIT_NOTHING_KEPT


def _decide(
    sources: Sequence[Source], filters: Filters, outcome: Outcome, display: Display, began: float
) -> None:
    """Read all rows in batches and decide them."""
    spoken = began
    for batch in _batches((row for source in sources for row in source.rows()), filters.batch):
        filters.apply(batch, outcome)
        outcome.write()
        ledger, now = outcome.ledger, time.monotonic()
        display.bar("rows", ledger.opened, None)
        display.share("kept", ledger.kept, ledger.opened)
        if now - spoken > 5:
            spoken = now
            speed = ledger.opened / (now - began)
            display.step(f"{ledger.opened} rows read, {ledger.kept} kept; {speed:.0f} rows/s")


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rest = iter(rows)
    while batch := list(itertools.islice(rest, size)):
        yield batch


def _check_apart(rows: Sequence[Source], held: Sequence[Source], folder: Path) -> None:
    """Refuse a file that is read twice over, and input in the directory that is written."""
    read = {source.identity for source in rows}
    for source in held:
        if source.identity in read:
            problem = "it is among the rows and among the held-out files"
            raise PipelineError(source.name, problem, "Leave one of the two out.")
    for source in (*rows, *held):
        if isinstance(source, File) and folder.resolve() in source.path.resolve().parents:
            raise PipelineError(
                f"--out {folder}", f"{source.name} is read from there", "Choose another --out."
            )


@contextmanager
def _stoppable(folder: Path) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the run with a word on what is left."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        left = f"{folder} holds the rows decided so far; --overwrite starts it anew"
        raise Stopped(f"\nStopped. {left}.") from None
    finally:
        signal.signal(signal.SIGTERM, before)

"""What `python -m pipeline.dedup` does, once its options are parsed."""

from __future__ import annotations

import itertools
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
import numpy as np

from pipeline.config import as_dict
from pipeline.dedup.contamination import Contamination
from pipeline.dedup.duplicates import Duplicates
from pipeline.dedup.fields import read_held_out, text_of
from pipeline.dedup.meaning import Meaning
from pipeline.dedup.options import Options
from pipeline.dedup.outcome import CONTAMINATED, Outcome
from pipeline.dedup.rows import File, Row, Source, find_sources
from pipeline.errors import EXIT_NOTHING_KEPT, PipelineError, Stopped
from pipeline.progress import Display
from pipeline.rundir import RunDir

_BATCH = 8192  # rows looked at together
_BATCH_EMBEDDED = 1024  # the same where embeddings are made
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
    filters = _Filters(options, held)
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


class _Filters:
    """The measures that the options switch on."""

    def __init__(self, options: Options, held: Sequence[Source]) -> None:
        self._options = options
        self._meaning = Meaning(options.embedding, options.embedding_model) if options.embedding < 1 else None
        self._duplicates = Duplicates(options.rouge, self._meaning, cjk=options.cjk)
        self._contamination = self._against(held) if held else None
        self.batch = _BATCH_EMBEDDED if self._meaning else _BATCH

    def _against(self, held: Sequence[Source]) -> Contamination:
        options, meaning = self._options, None
        texts = read_held_out(held, options.on, options.against_on)
        if self._meaning:
            meaning = Meaning(options.embedding, options.embedding_model)
            meaning.insert(texts.where, texts.texts, self._meaning.encode(texts.texts))
        return Contamination(texts, ngram=options.ngram, rouge=options.rouge, meaning=meaning, cjk=options.cjk)

    @property
    def described(self) -> str:
        """What is looked for, in words."""
        o, parts = self._options, []
        if o.rouge < 1:
            parts.append(f"ROUGE-L above {o.rouge:g}")
        if o.embedding < 1:
            parts.append(f"cosine above {o.embedding:g}")
        if self._contamination:
            shared = f"{o.ngram}-grams and " if o.ngram else ""
            parts.append(f"{shared}the same against {len(self._contamination.held.texts)} held-out texts")
        return f"on {o.on}: {', '.join(parts) or 'nothing is looked for'}"

    def apply(self, rows: Sequence[Row], outcome: Outcome) -> None:
        """Decide a batch of rows in order."""
        options = self._options
        outcome.take(rows)
        texts = [text_of(row, options.on) for row in rows]
        vectors = self._meaning.encode(texts) if self._meaning else None
        found = self._contamination.find(texts, vectors) if self._contamination else {}
        dropping = options.contaminated == "drop"
        clean = [i for i in range(len(rows)) if not (dropping and i in found)]
        names = [rows[i].name for i in clean]
        kept_vectors: np.ndarray | None = None if vectors is None else vectors[clean]
        alike = self._duplicates.add(names, [texts[i] for i in clean], kept_vectors)
        verdicts = {clean[i]: (reason, [finding]) for i, (reason, finding) in alike.items()}
        for i, row in enumerate(rows):
            if i in verdicts:
                outcome.drop(row, *verdicts[i])
            elif i in found and dropping:
                outcome.drop(row, CONTAMINATED, found[i])
            else:
                outcome.keep(row, found.get(i, []))


def _decide(
    sources: Sequence[Source], filters: _Filters, outcome: Outcome, display: Display, began: float
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
            raise PipelineError(f"--out {folder}", f"{source.name} is read from there", "Choose another --out.")


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

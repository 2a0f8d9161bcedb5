"""From files to rows that can be trained on: read, phrased, split by instruction, encoded with proof."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pipeline.errors import PipelineError
from pipeline.format.audit import TRUNCATED, Audit
from pipeline.format.conversations import Conversation, conversations
from pipeline.format.mixing import mixture, parse_mix, split
from pipeline.format.phrasing import Asked, phrase
from pipeline.format.sources import Source, find_sources
from pipeline.format.templates import Encoded, Template, Unproved, apart
from pipeline.rows import Row
from pipeline.train.options import DataOptions

UNREADABLE, NO_ANSWER_LEFT = "unreadable_row", "answer_cut_off"
_APART = "apart"
_MOST_SHOTS = 3
_MAKERS = {  # what such rows are, the command that makes them, and what else it makes
    "kept.jsonl": ("dataset", "selfinstruct", "dataset"),
    "preferences.jsonl": ("preferences", "preferences", "config.yaml"),
    "prompts.jsonl": ("prompts with verifiers", "preferences", "config.yaml"),
}


@dataclass
class Data:
    """Rows to train on and rows held out, in the order of the files; what was left out, and why."""

    train: list[Encoded] = field(default_factory=list)
    validation: list[Encoded] = field(default_factory=list)
    held_out: list[Conversation] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # what a user should know of it
    audit: Audit = field(default_factory=Audit)

    def drop(self, where: str, reason: str, evidence: str) -> None:
        """Leave a row out."""
        self.dropped.append(left_out(where, reason, evidence))


@dataclass(frozen=True)
class Input:
    """Where the rows come from: sources, each with its weight if any has one."""

    sources: Sequence[Sequence[Source]]
    weights: Sequence[float] | None = None
    mixed: bool = False
    replay: Sequence[Source] = ()

    @property
    def digests(self) -> dict[str, str]:
        """What changes when the data change."""
        every = [source for part in self.sources for source in part]
        return {source.name: source.digest() for source in (*every, *self.replay)}

    @property
    def names(self) -> str:
        """What is read, for people."""
        return ", ".join(source.name for part in self.sources for source in part)


def find_input(options: DataOptions, rows: str = "kept.jsonl") -> Input:
    """What `data` or `mix` names; of a run of ours the file `rows`. Raises PipelineError."""
    if options.data and options.mix:
        problem = f"got {' '.join(options.data)} beside --mix"
        raise PipelineError("command line", problem, "Name all data with --mix.")
    replay = find_sources(options.replay, rows)
    if options.mix:
        names, weights = parse_mix(options.mix)
        return Input([find_sources([name], rows) for name in names], weights, mixed=True, replay=replay)
    return Input([find_sources(options.data, rows)], replay=replay)


def newest_dataset(runs: Path) -> Path:
    """The newest finished run that made a dataset. Raises PipelineError."""
    return newest_run(runs, "kept.jsonl")


def newest_run(runs: Path, rows: str) -> Path:
    """The newest finished run that made a file of `rows`, and any. Raises PipelineError."""
    what, command, beside = _MAKERS[rows]
    files = [mark.parent / rows for mark in runs.glob("*/DONE") if (mark.parent / beside).exists()]
    found = [file.parent for file in files if file.is_file() and file.stat().st_size]
    if not found:
        fix = f"Run python -m pipeline.{command} first, or name a file."
        raise PipelineError("data", f"no finished {what} under {runs}/", fix)
    return max(found, key=lambda path: (path / "DONE").stat().st_mtime)


T = TypeVar("T")


@dataclass
class Gathered(Generic[T]):
    """What was read of every source, mixed and with the replayed rows behind."""

    rows: list[T] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    repeated: int = 0
    replayed: int = 0

    @property
    def said(self) -> list[str]:
        """What a user should know of it."""
        out = []
        if self.repeated:
            out.append(f"{self.repeated} rows of the mixture come twice or more: a source is exhausted")
        if self.replayed:
            out.append(f"{self.replayed} rows are replayed from earlier data")
        return out


def gather(options: DataOptions, given: Input, read: Callable[[Row], Iterable[T]], seed: int) -> Gathered[T]:
    """Read every row with `read`, mix and replay as the options say.

    Raises PipelineError for the first bad row, unless `options.bad_rows` is "drop".
    """
    out = Gathered[T]()
    found = [_read(options, part, read, out) for part in given.sources]
    if given.mixed:
        mixed = mixture([len(part) for part in found], given.weights, options.mix_cap, None, seed)
        out.rows, out.repeated = [found[source][row] for source, row in mixed.rows], sum(mixed.repeats)
    else:
        out.rows = [row for part in found for row in part]
    earlier, share = _read(options, given.replay, read, out), options.replay_frac
    out.replayed = min(len(earlier), round(len(out.rows) * share / (1 - share)))
    out.rows += random.Random(f"{seed} replay").sample(earlier, out.replayed)
    return out


def load(options: DataOptions, given: Input, template: Template, phrasing: str, seed: int) -> Data:
    """Read, phrase, split and encode all rows.

    Raises PipelineError for the first bad row, unless `options.bad_rows` is "drop".
    """
    gathered = gather(options, given, conversations, seed)
    rows, data = gathered.rows, Data(dropped=gathered.dropped, said=gathered.said)
    train, validation = split([row.key for row in rows], options.validation_frac, seed)
    shown = _Shots([rows[i] for i in train], seed)
    said = [_phrased(row, phrasing, seed, shown) for row in rows]
    _encode(options, [said[i] for i in train], template, data, data.train)
    data.held_out = [said[i] for i in validation]
    _encode(options, [said[i] for i in validation], template, data, data.validation)
    data.audit.allowed_truncated = int(options.max_truncated_frac * len(rows))
    if not data.train and not data.audit.failures:
        raise PipelineError("data", "no row is left to train on", "See dropped.jsonl for the reasons.")
    return data


def left_out(where: str, reason: str, evidence: str) -> dict[str, str]:
    """A row of dropped.jsonl."""
    return {"id": where, "stage": "format", "reason": reason, "evidence": evidence}


def _read(
    options: DataOptions, part: Sequence[Source], read: Callable[[Row], Iterable[T]], out: Gathered[T]
) -> list[T]:
    found = list[T]()
    for source in part:
        for row in source.rows():
            try:
                found += read(row)
            except PipelineError as error:
                if options.bad_rows == "refuse":
                    raise
                reason = getattr(error, "reason", UNREADABLE)
                out.dropped.append(left_out(row.where, reason, error.problem))
    return found


class _Shots:
    """Examples to show before a question, of rows that are trained on: none held out is given away."""

    def __init__(self, rows: Sequence[Conversation], seed: int) -> None:
        self._seed, self._rows = seed, defaultdict[str, list[Asked]](list)
        for row in rows:
            if row.exchange:
                self._rows[row.exchange.language].append(row.exchange)

    def of(self, row: Conversation, asked: Asked) -> list[Asked]:
        """One to three others in its language, drawn by the seed and the row alone."""
        draw, others = random.Random(f"{self._seed} shots {row.where}"), self._rows[asked.language]
        chosen = draw.sample(others, min(len(others), draw.randint(1, _MOST_SHOTS)))
        return [other for other in chosen if other.instruction != asked.instruction]


def _phrased(row: Conversation, phrasing: str, seed: int, shots: _Shots) -> Conversation:
    if phrasing == _APART:
        return apart(row)
    if phrasing == "plain" or not row.exchange:  # as it was read
        return row
    system = [message for message in row.messages if message["role"] == "system"]
    shown = shots.of(row, row.exchange) if phrasing == "flan" else []
    messages = phrase(row.exchange, phrasing, seed, row.where, shots=shown).messages
    return Conversation(row.where, (*system, *messages), row.exchange)


def _encode(
    options: DataOptions, rows: Sequence[Conversation], template: Template, data: Data, into: list[Encoded]
) -> None:
    for row in rows:
        try:
            one = template.encode(row)
        except Unproved as reason:
            if options.bad_rows == "drop":
                data.drop(row.where, reason.reason, str(reason))
            else:
                data.audit.rows += 1
                data.audit.fail(reason.reason, row.where, str(reason))
            continue
        data.audit.longest = max(data.audit.longest, len(one.ids))
        if len(one.ids) > options.max_length:
            whole, one = one, one.cut(options.max_length)
            evidence = f"{len(whole.ids)} tokens cut to {len(one.ids)}"
            if one.spans != whole.spans:
                data.audit.fail(TRUNCATED, row.where, evidence)
            if not one.spans:
                data.drop(row.where, NO_ANSWER_LEFT, evidence)
                continue
        data.audit.take(one)
        into.append(one)


def as_dataset(rows: Sequence[Encoded]) -> Any:
    """The rows as TRL takes them when they are tokenised: `input_ids` and `labels` (T,)."""
    from datasets import Dataset

    return Dataset.from_list([{"input_ids": one.ids, "labels": one.labels} for one in rows])

"""From preference rows to pairs to train on: read, split by prompt, both sides encoded with proof."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pipeline.errors import PipelineError
from pipeline.format.audit import TRUNCATED, Audit
from pipeline.format.conversations import Conversation, Message
from pipeline.format.mixing import split
from pipeline.format.preference_rows import ROW, SAME
from pipeline.format.templates import Encoded, Template, Unproved
from pipeline.records import Preference, Rated
from pipeline.rows import Row
from pipeline.train.data import NO_ANSWER_LEFT, Input, gather, left_out
from pipeline.train.options import TrainingOptions

R = TypeVar("R", Preference, Rated)
_LEAST = 16  # tokens of a prompt that are kept


@dataclass(frozen=True)
class Encodings(Generic[R]):
    """A row's answers in tokens, each behind the prompt: (chosen, rejected), or the one that was rated.

    An answer ends with its end token; its span is the answer with it.
    """

    record: R
    sides: tuple[Encoded, ...]

    @property
    def prompt_ids(self) -> list[int]:
        """The tokens that all sides begin with."""
        return self.sides[0].ids[: self.sides[0].spans[0][0]]

    def answer_ids(self, side: int) -> list[int]:
        """The tokens behind them."""
        return self.sides[side].ids[self.sides[side].spans[0][0] :]


@dataclass
class PairData(Generic[R]):
    """Rows to train on and rows held out, in the order of the files; what was left out, and why."""

    train: list[Encodings[R]] = field(default_factory=list)
    validation: list[Encodings[R]] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    audit: Audit = field(default_factory=Audit)

    @property
    def sides(self) -> list[Encoded]:
        """Every sequence that a trainer should be given."""
        return [side for row in (*self.train, *self.validation) for side in row.sides]


def load(
    options: TrainingOptions,
    given: Input,
    template: Template,
    read: Callable[[Row], Iterable[R]],
    cut: Callable[[Sequence[Encoded], int], list[Encoded]],
) -> PairData[R]:
    """Read rows with `read`, split them by prompt and encode them.

    `cut` makes the sides of a row no longer than --max-length; a row of which no answer is left is dropped.
    Raises PipelineError for the first bad row, unless `options.bad_rows` is "drop".
    """
    gathered = gather(options, given, read, options.seed)
    rows, data = gathered.rows, PairData[R](dropped=gathered.dropped, said=gathered.said)
    train, validation = split([asked(row) for row in rows], options.validation_frac, options.seed)
    for numbers, into in ((train, data.train), (validation, data.validation)):
        for number in numbers:
            one = _encoded(options, rows[number], template, data, cut)
            if one:
                into.append(one)
    number = sum(len(answers(row)) for row in rows)
    data.audit.allowed_truncated = int(options.max_truncated_frac * number)
    if not data.train and not data.audit.failures:
        raise PipelineError("data", "no row is left to train on", "See dropped.jsonl for the reasons.")
    return data


def asked(row: Preference | Rated) -> str:
    """What tells one prompt from another: what the user says first, as in other training data."""
    return next(message["content"] for message in row.prompt if message["role"] == "user")


def answers(row: Preference | Rated) -> tuple[Message, ...]:
    """The answers of a row, the chosen one first."""
    return (row.chosen, row.rejected) if isinstance(row, Preference) else (row.completion,)


def held_out(rows: Sequence[Encodings[Any]], count: int) -> list[Conversation]:
    """The first `count` prompts with their (chosen) answers, each prompt once."""
    found: dict[tuple[str, ...], Conversation] = {}
    for row in rows:
        record = row.record
        key = tuple(message["content"] for message in record.prompt)
        talk = Conversation(record.provenance[ROW], (*record.prompt, answers(record)[0]))
        found.setdefault(key, talk)
    return list(found.values())[:count]


def lengths(rows: Sequence[Encodings[Preference]]) -> dict[str, Any]:
    """How long the chosen and the rejected answers are, in tokens, and how often the chosen one is longer."""
    sizes = [[len(row.answer_ids(side)) for row in rows] for side in (0, 1)]
    out: dict[str, Any] = {
        name: {"mean": round(statistics.fmean(size), 1), "median": statistics.median(size), "max": max(size)}
        for name, size in zip(("chosen", "rejected"), sizes, strict=True)
    }
    longer = sum(one > other for one, other in zip(*sizes, strict=True))
    return {**out, "chosen_longer_frac": round(longer / len(rows), 4)}


def _encoded(
    options: TrainingOptions,
    row: R,
    template: Template,
    data: PairData[R],
    cut: Callable[[Sequence[Encoded], int], list[Encoded]],
) -> Encodings[R] | None:
    where, names = row.provenance[ROW], (" chosen", " rejected") if isinstance(row, Preference) else ("",)
    sides = list[Encoded]()
    for answer, name in zip(answers(row), names, strict=True):
        try:
            one = encode(template, (*row.prompt, answer), f"{where}{name}")
        except Unproved as reason:
            if options.bad_rows == "drop":
                data.dropped.append(left_out(where, reason.reason, str(reason)))
            else:
                data.audit.rows += 1
                data.audit.fail(reason.reason, f"{where}{name}", str(reason))
            return None
        data.audit.longest = max(data.audit.longest, len(one.ids))
        sides.append(one)
        if len(one.ids) > options.max_length:
            evidence = f"{len(one.ids)} tokens cut to {options.max_length}"
            data.audit.fail(TRUNCATED, f"{where}{name}", evidence)
    sides = cut(sides, options.max_length)
    if any(not side.spans for side in sides):
        data.dropped.append(left_out(where, NO_ANSWER_LEFT, f"longer than {options.max_length} tokens"))
        return None
    if len({tuple(side.ids) for side in sides}) < len(sides):
        evidence = f"the same in their first {options.max_length} tokens"
        data.dropped.append(left_out(where, SAME, evidence))
        return None
    for side in sides:
        data.audit.take(side)
    return Encodings(row, tuple(sides))


def encode(template: Template, messages: Sequence[Message], where: str) -> Encoded:
    """The conversation up to the end token of its last answer, whose span is all of it. Raises Unproved."""
    whole = template.encode(Conversation(where, tuple(messages)))
    begin, end = whole.spans[-1]
    return Encoded(where, whole.ids[:end], ((begin, end),))


def cut_together(sides: Sequence[Encoded], length: int) -> list[Encoded]:
    """At most `length` tokens of each side: the prompt loses its beginning, then the answers their ends.

    The prompt keeps its last tokens, which ask for the answer.
    """
    begin = sides[0].spans[0][0]
    lost = max(0, min(max(len(side.ids) for side in sides) - length, begin - _LEAST))
    return [
        Encoded(side.where, side.ids[lost:], ((begin - lost, len(side.ids) - lost),)).cut(length)
        for side in sides
    ]


def cut_begin(sides: Sequence[Encoded], length: int) -> list[Encoded]:
    """The last `length` tokens of each side: the end of an answer is never lost."""
    found = []
    for side in sides:
        ((begin, end),) = side.spans
        lost = max(0, end - length)
        found.append(Encoded(side.where, side.ids[lost:], ((max(0, begin - lost), end - lost),)))
    return found

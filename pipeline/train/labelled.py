"""Texts with classes: read from any row that carries a label, split by text, encoded for a classifier."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipeline.errors import PipelineError
from pipeline.format.conversations import conversations
from pipeline.format.mixing import split
from pipeline.rows import Row
from pipeline.train.data import Input, gather
from pipeline.train.sft_options import Options


@dataclass(frozen=True)
class Labelled:
    """A text and the name of its class; rows with the same `key` stay on one side of the split."""

    where: str
    text: str
    label: str
    key: str


@dataclass
class LabelledData:
    """Rows as a classifier takes them (`input_ids` (T,), `labels` a number), and the texts held out."""

    classes: tuple[str, ...]
    train: list[dict[str, Any]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    held_out: list[Labelled] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # rows of each class
    dropped: list[dict[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def joined(parts: Iterable[str]) -> str:
    """An example as one text: its parts apart by blank lines. What a classifier of examples reads."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def load(options: Options, given: Input, tokenizer: Any) -> LabelledData:
    """Read, split and encode all rows. Raises PipelineError."""
    gathered = gather(options, given, partial(_labelled, options), options.seed)
    rows = gathered.rows
    counts = Counter(row.label for row in rows)
    classes = tuple(sorted(counts, key=lambda name: (0, int(name), "") if _whole(name) else (1, 0, name)))
    data = LabelledData(classes, dropped=gathered.dropped, said=gathered.said)
    data.counts = {name: counts[name] for name in classes}
    if len(classes) < 2:
        problem = f"the rows have the classes {list(classes)}, expected two or more"
        raise PipelineError("data", problem, "Add rows of another class, or name the --label-field.")
    train, validation = split([row.key for row in rows], options.validation_frac, options.seed)
    if missing := sorted(set(classes) - {rows[i].label for i in train}):
        problem = f"all rows of class '{missing[0]}' are held out"
        raise PipelineError("data", problem, "Add rows of that class, or lower --validation-frac.")
    data.train = _encoded(options, [rows[i] for i in train], tokenizer, data)
    data.held_out = [rows[i] for i in validation]
    data.validation = _encoded(options, data.held_out, tokenizer, data)
    return data


def _labelled(options: Options, row: Row) -> Iterator[Labelled]:
    label = _label(row, options.label_field)
    name = options.text_field or ("text" if "text" in row.fields else "")
    if name:
        text = row.fields.get(name)
        if not isinstance(text, str) or not text.strip():
            got = "no such field" if name not in row.fields else f"got {text!r}"[:80]
            raise PipelineError(row.where, f"'{name}': {got}, expected text", "Fix the row or --text-field.")
        yield Labelled(row.where, text.strip(), label, text)
        return
    for one in conversations(row):
        said = one.exchange
        parts = (said.instruction, said.input, said.output) if said else [m["content"] for m in one.messages]
        yield Labelled(one.where, joined(parts), label, one.key)


def _label(row: Row, name: str) -> str:
    label = row.fields.get(name)
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int) or (isinstance(label, str) and label.strip()):
        return str(label).strip()
    got = f"got {label!r}" if name in row.fields else f"has {', '.join(list(row.fields)[:20])}"
    problem = f"'{name}': {got}, expected a class: text, a whole number, true or false"
    raise PipelineError(row.where, problem, "Fix the row, or name the field with --label-field.")


def _whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


def _encoded(
    options: Options, rows: list[Labelled], tokenizer: Any, data: LabelledData
) -> list[dict[str, Any]]:
    """The rows in tokens, at most --max-length of them. Raises PipelineError where too many are longer."""
    out, longer, longest = list[dict[str, Any]](), list[Labelled](), 0
    for row in rows:
        ids = encode(tokenizer, row.text)
        longest = max(longest, len(ids))
        if len(ids) > options.max_length:
            longer.append(row)
            ids = encode(tokenizer, row.text, options.max_length)
        out.append({"input_ids": ids, "labels": data.classes.index(row.label)})
    if len(longer) > options.max_truncated_frac * len(rows):
        problem = f"{len(longer)} of {len(rows)} texts are longer than {options.max_length} tokens"
        fix = f"--max-length {longest} would fit all, or allow a share with --max-truncated-frac."
        raise PipelineError(longer[0].where, problem, fix)
    if longer:
        data.said.append(f"{len(longer)} of {len(rows)} texts are cut to {options.max_length} tokens")
    return out


def encode(tokenizer: Any, text: str, max_length: int = 0) -> list[int]:
    """Token ids (T,); what looks like a special token is read as plain text."""
    cut = {"truncation": True, "max_length": max_length} if max_length else {}
    return list(tokenizer(text, split_special_tokens=True, verbose=False, **cut)["input_ids"])

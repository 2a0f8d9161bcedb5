"""The mask audit: what a trainer will really train on, compared with what was proved, before it starts.

`expected` are the proved rows (`templates.Encoded`); `rows` is the dataset as the trainer prepared it, packed
or not, and `collate` its collator, so that whatever lies between the two is seen: truncation, other masks,
other tokens, lost rows, padding that hides an end token. Any failure refuses to start, except truncated
responses up to an allowed share.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from pipeline.errors import PipelineError
from pipeline.format.templates import NO_END, SEAM, SPECIAL, UNPROVED, Encoded

NO_TOKEN, END, PROMPT, BOS, EOS = (
    "no_trained_token", "end_not_trained", "prompt_trained", "double_bos", "double_eos"
)  # fmt: skip
ANSWER, PAD, TRUNCATED, SERVE, LOST = (
    "response_not_trained", "pad_hides_end", "truncated_response", "serve_mismatch", "lost_row"
)  # fmt: skip
CHECKS = {
    NO_TOKEN: "rows without a trained token",
    END: "answers whose end token is not trained",
    ANSWER: "answers not trained whole",
    PROMPT: "rows with a trained prompt token",
    BOS: "rows that begin twice",
    EOS: "answers that end twice",
    PAD: "rows whose end token is hidden with the padding",
    SEAM: "prompts that end within a token of the answer",
    TRUNCATED: "answers cut off at the longest length",
    SERVE: "rows with other tokens than an engine is served",
    UNPROVED: "rows whose answers the template does not let one find",
    NO_END: "answers that the template ends with no end token",
    SPECIAL: "rows with special tokens in their texts",
    LOST: "rows that are not trained on",
}
_FIXES = {
    SEAM: "Let the format's prompt end with a line break.",
    UNPROVED: "Choose another --format, or train single exchanges.",
    NO_END: "End each answer with eos_token in the template.",
    SPECIAL: "Clean the data, or leave such rows out with --bad-rows drop.",
}
_BATCH, _SHOWN = 8, 3


@dataclass
class Audit:
    """How often each check failed, with the first places, and what the data is made of."""

    rows: int = 0
    tokens: int = 0
    trained: int = 0
    longest: int = 0
    allowed_truncated: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    places: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def fail(self, check: str, where: str, evidence: str = "") -> None:
        """Count a failure and remember where."""
        self.failures[check] += 1
        if len(self.places[check]) < _SHOWN:
            self.places[check].append(f"{where}: {evidence}" if evidence else where)

    def take(self, one: Encoded) -> None:
        """Count a proved row."""
        self.rows, self.tokens = self.rows + 1, self.tokens + len(one.ids)
        self.trained += sum(end - begin for begin, end in one.spans)
        self.longest = max(self.longest, len(one.ids))

    @property
    def refused(self) -> list[str]:
        """The checks that do not let training start."""
        allowed = {TRUNCATED: self.allowed_truncated}
        return [check for check in CHECKS if self.failures[check] > allowed.get(check, 0)]

    def as_json(self) -> dict[str, Any]:
        """For mask_audit.json."""
        figures = {"rows": self.rows, "tokens": self.tokens, "trained_tokens": self.trained}
        checks = {check: self.failures[check] for check in CHECKS}
        return {**figures, "longest": self.longest, "checks": checks, "places": dict(self.places)}

    def table(self) -> Table:
        """One line a check."""
        share = self.trained / max(self.tokens, 1)
        title = f"Mask audit: {self.rows:,} rows, {self.tokens:,} tokens, {share:.1%} of them trained"
        table = Table(title=title, title_justify="left")
        for name, justify in (("check", "left"), ("rows", "right"), ("first", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        for check, meaning in CHECKS.items():
            first = self.places[check][0] if self.failures[check] else ""
            table.add_row(meaning, f"{self.failures[check]:,}", first[:60])
        return table

    def check(self, max_length: int = 0) -> None:
        """Raise PipelineError, naming the first failed check, if training must not start."""
        if not self.refused:
            return
        first = self.refused[0]
        meaning, count = CHECKS[first], self.failures[first]
        problem = f"{count} of {self.rows} {meaning} ({'; '.join(self.places[first])})"
        fix = _FIXES.get(first, "The trainer changed the data: this is no setting to train with.")
        if first == TRUNCATED:
            fix = f"--max-length {self.longest} would fit all (now {max_length}); or allow a share with "
            fix += "--max-truncated-frac."
        if len(self.refused) > 1:
            problem += f"; also {', '.join(CHECKS[check] for check in self.refused[1:])}"
        raise PipelineError("mask audit", f"{problem}, expected none", fix)


def audit(
    expected: Sequence[Encoded],
    rows: Iterable[Mapping[str, Any]],
    collate: Callable[[list[dict[str, Any]]], Mapping[str, Any]] | None,
    *,
    bos: int | None = None,
    found: Audit | None = None,
) -> Audit:
    """Compare prepared rows (`input_ids`, `labels` (T,), perhaps `seq_lengths`) with what was proved.

    Without `collate` they are rows as they came out of the collator, padding taken off. `found` is what is
    known already: the expected rows counted, and failures of rows that could not be
    encoded at all.
    """
    out = found or Audit()
    known: defaultdict[tuple[int, ...], list[Encoded]] = defaultdict(list)
    for one in expected:
        known[tuple(one.ids)].append(one)
        if found is None:
            out.take(one)
    prepared = [dict(row) for row in rows]
    strangers = list[tuple[list[int], list[int]]]()
    for ids, labels in _sequences(prepared):
        if same := known.get(tuple(ids)):
            _compare(out, same.pop(), ids, labels, bos)
        else:
            strangers.append((ids, labels))
    left = [one for ones in known.values() for one in ones]
    for ids, labels in strangers:
        _place(out, left, ids, labels, bos)
    for one in left:
        out.fail(LOST, one.where)
    if collate:
        _collated(out, prepared, collate)
    return out


def _sequences(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[list[int], list[int]]]:
    """The sequences of all rows with their labels, unpacked."""
    for row in rows:
        ids, labels = list(row["input_ids"]), list(row["labels"])
        at = 0
        for length in row.get("seq_lengths") or [len(ids)]:
            yield ids[at : at + length], labels[at : at + length]
            at += length


def _compare(out: Audit, one: Encoded, ids: list[int], labels: list[int], bos: int | None) -> None:
    """Count what is wrong with the labels of a row whose tokens are as proved."""
    wanted = one.labels
    if all(label == -100 for label in labels):
        out.fail(NO_TOKEN, one.where)
    else:
        ends = [end - 1 for _, end in one.spans]
        if any(labels[end] == -100 for end in ends):
            out.fail(END, one.where)
        pairs = list(zip(labels, wanted, strict=True))
        if any(got != -100 and should == -100 for got, should in pairs):
            out.fail(PROMPT, one.where)
        hidden = [i for i, (got, should) in enumerate(pairs) if should != -100 and got != should]
        if set(hidden) - set(ends):
            out.fail(ANSWER, one.where)
    if bos is not None and ids[:2] == [bos, bos]:
        out.fail(BOS, one.where)
    if any(ids[end : end + 1] == [ids[end - 1]] for _, end in one.spans):
        out.fail(EOS, one.where)


def _place(out: Audit, left: list[Encoded], ids: list[int], labels: list[int], bos: int | None) -> None:
    """Say why a sequence is none of those that were proved; `left` loses the one that it was made of."""
    for number, one in enumerate(left):
        if one.ids[: len(ids)] == ids or one.ids[-len(ids) :] == ids:
            out.fail(TRUNCATED, left.pop(number).where, f"{len(one.ids)} tokens cut to {len(ids)}")
            if all(label == -100 for label in labels):
                out.fail(NO_TOKEN, one.where)
            return
    for number, one in enumerate(left):
        extra = Counter(ids) - Counter(one.ids)
        if len(ids) != len(one.ids) + 1 or extra.total() != 1:
            continue
        twice = next((i for i in range(len(one.ids)) if ids[i] != one.ids[i]), len(one.ids))
        if [*one.ids[:twice], ids[twice], *one.ids[twice:]] == ids:
            left.pop(number)
            begins = twice <= 1 and ids[:2] == [bos, bos]
            repeats = twice > 0 and ids[twice] == ids[twice - 1]
            return out.fail(BOS if begins else EOS if repeats else SERVE, one.where)
    out.fail(SERVE, left.pop(0).where if left else "a row that is not in the data")


def _collated(out: Audit, rows: Sequence[dict[str, Any]], collate: Callable[..., Mapping[str, Any]]) -> None:
    """Look at whole batches: the collator must keep every label but those of a sequence's first token."""
    packed = [row for row in rows if "seq_lengths" in row]  # a collator takes no mixed batches
    rows = [*packed, *(row for row in rows if "seq_lengths" not in row)]
    for begin in [*range(0, len(packed), _BATCH), *range(len(packed), len(rows), _BATCH)]:
        end = min(begin + _BATCH, len(packed) if begin < len(packed) else len(rows))
        part = [dict(row) for row in rows[begin:end]]
        wanted = sum(label != -100 for row in part for label in row["labels"])
        labels = collate(part)["labels"]
        if int((labels != -100).sum()) != wanted:
            out.fail(PAD, f"rows {begin} to {begin + len(part) - 1} of the prepared data")


def write_json(found: Audit) -> str:
    """The audit as mask_audit.json holds it."""
    return json.dumps(found.as_json(), indent=1, ensure_ascii=False) + "\n"

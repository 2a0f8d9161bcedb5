"""What a round's generation came to: yield, acceptance, complexity and diversity of the instructions."""

from __future__ import annotations

import json
import math
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.dedup.tokens import tokenize
from pipeline.intervals import Interval, mean, share
from pipeline.lines import StoredRows
from pipeline.records import read_text
from pipeline.stages.text import length

_MOST = 300  # texts of a language that are compared with each other; of more, so many are drawn
_Z = 1.959964
_FIRST = 0x10000  # code points that stand for tokens


@dataclass(frozen=True)
class Made:
    """`wanted` and `kept` are examples, `proposed` instructions; `evolved` is a share of the kept tasks.

    `complexity` is the mean length of instruction and input in words (Chinese: characters), `diversity` that
    of two instructions' distance; see `diversity`.
    """

    wanted: int
    kept: int
    proposed: int
    acceptance: Interval
    evolved: Interval
    complexity: Interval
    diversity: Interval

    def as_json(self) -> dict[str, Any]:
        """For rounds.jsonl."""
        found = vars(self)
        return {k: v.as_json() if isinstance(v, Interval) else v for k, v in found.items()}


def made(folders: Sequence[Path], wanted: int, seed: int) -> Made:
    """Measure the finished runs of pipeline.selfinstruct that made one round's data."""
    rows = [row for folder in folders for row in StoredRows(folder / "kept.jsonl")]
    ledgers = [_candidates(folder) for folder in folders]
    tasks = {(row["language"], row["instruction"]): row for row in rows}
    proposed, admitted = sum(one["opened"] for one in ledgers), sum(one["kept"] for one in ledgers)
    evolved = sum(1 for row in tasks.values() if row["provenance"].get("evolved"))
    return Made(
        wanted=wanted,
        kept=len(rows),
        proposed=proposed,
        acceptance=share(admitted, proposed),
        evolved=share(evolved, len(tasks)),
        complexity=mean([float(length(f"{row['instruction']} {row['input']}")) for row in rows]),
        diversity=diversity([(row["language"], row["instruction"]) for row in rows], seed),
    )


def _candidates(folder: Path) -> Mapping[str, int]:
    ledger = json.loads(read_text(folder / "run.json"))["ledger"]
    return next(dict(one) for one in ledger if one["unit"] == "candidate")


def diversity(texts: Sequence[tuple[str, str]], seed: int = 0) -> Interval:
    """The mean of 1 - ROUGE-L F over all pairs of texts, given as (language, text), that share a language.

    It does not hang on their number. The interval is that of a U-statistic of two (Hoeffding 1948): twice as
    wide as that of a mean of so many numbers.
    """
    distances: list[float] = []
    for language in sorted({name for name, _ in texts}):
        mine = [tokenize(text) for name, text in texts if name == language]
        distances += _distances(random.Random(f"{seed}/{language}").sample(mine, min(len(mine), _MOST)))
    if len(distances) < 2:
        return Interval(0.0, 0.0, 1.0, len(distances))
    value = statistics.fmean(distances)
    half = 2 * _Z * statistics.stdev(distances) / math.sqrt(len(distances))
    return Interval(value, max(0.0, value - half), min(1.0, value + half), len(distances))


def _distances(texts: Sequence[Sequence[str]]) -> list[float]:
    """The mean distance of each text to the others; none where it is alone."""
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    if len(texts) < 2:
        return []
    numbers = {token: place for place, token in enumerate(dict.fromkeys(t for text in texts for t in text))}
    written = ["".join(chr(_FIRST + numbers[token]) for token in text) for text in texts]
    common = cdist(written, written, scorer=LCSseq.similarity)
    found = []
    for row, text in enumerate(texts):
        alike = [
            2 * float(common[row, column]) / max(len(text) + len(other), 1)
            for column, other in enumerate(texts)
            if column != row
        ]
        found.append(1 - statistics.fmean(alike))
    return found

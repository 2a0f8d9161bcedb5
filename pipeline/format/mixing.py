"""Which rows of which data sets are trained on, and which are held back for validation.

Data sets are mixed by given weights or, without weights, in proportion to their sizes up to a cap, as in FLAN
(Wei et al. 2021, arXiv:2109.01652, there with a cap of 3000; the rule is T5's, Raffel et al. 2020,
arXiv:1910.10683). The split is by instruction: rows that ask the same never stand on both sides.

Deviation: FLAN draws every example at its rate; here the counts are exact, and no row comes twice before all
of its data set have come once.
"""

from __future__ import annotations

import hashlib
import math
import random
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from pipeline.errors import PipelineError

FLAN_CAP = 3000  # rows that count towards a data set's rate
_WHERE = "--mix"


@dataclass(frozen=True)
class Mixture:
    """Rows as (source, row), in training order; `counts` and `repeats` have one number per source.

    `repeats` are rows drawn beyond the source's size: it was exhausted and began anew.
    """

    rows: tuple[tuple[int, int], ...]
    counts: tuple[int, ...]
    repeats: tuple[int, ...]


def parse_mix(words: Sequence[str]) -> tuple[list[str], list[float] | None]:
    """Read words `name` or `name=weight` into names and weights (None: no word has one).

    What follows the last "=" is the weight, so that a name with "=" in it needs one. Raises PipelineError.
    """
    if not words:
        raise PipelineError(_WHERE, "got no data set, expected name or name=weight", "Name at least one.")
    parts = [word.rpartition("=") if "=" in word else (word, "", "") for word in words]
    names = [name for name, _, _ in parts]
    for word, name in zip(words, names, strict=True):
        if not name:
            raise PipelineError(f"{_WHERE} {word}", "there is no name", "Write name=weight.")
        if names.count(name) > 1:
            raise PipelineError(f"{_WHERE} {word}", "it is named twice", "Name every data set once.")
    bare = [name for name, sign, _ in parts if not sign]
    if len(bare) == len(parts):
        return names, None
    if bare:
        problem = f"{', '.join(bare)} has no weight, but others have"
        raise PipelineError(_WHERE, problem, "Give a weight to all or to none.")
    return names, [_weight(word, text) for word, (_, _, text) in zip(words, parts, strict=True)]


def _weight(word: str, text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        problem = f"the weight '{text}' is not a number"
        raise PipelineError(f"{_WHERE} {word}", problem, "Write name=weight, as in a.jsonl=0.7.") from None
    _check_weight(f"{_WHERE} {word}", weight)
    return weight


def _check_weight(where: str, weight: float) -> None:
    if not (math.isfinite(weight) and weight > 0):
        raise PipelineError(where, f"the weight is {weight:g}, expected more than 0", "Correct it.")


def mixture(
    sizes: Sequence[int], weights: Sequence[float] | None, cap: int, total: int | None, seed: int
) -> Mixture:
    """Draw `total` rows of sources with so many rows, in shares of `weights` or else of min(size, cap).

    Without `total` it is as many as can be had in these shares with no row twice (of a single source, all).
    The cap bounds a share, not the rows: they are drawn from the whole source. Counts are exact, by largest
    remainder, and no row comes twice before its source is exhausted. Raises PipelineError.
    """
    shares = _shares(sizes, weights, cap)
    if total is None:
        total = min(math.floor(size / share) for size, share in zip(sizes, shares, strict=True))
    if total < 1:
        raise PipelineError(_WHERE, f"the total is {total} rows, expected at least 1", "Ask for more.")
    counts = _apportion(total, shares)
    rows = [
        (source, row)
        for source, (size, count) in enumerate(zip(sizes, counts, strict=True))
        for row in _drawn(size, count, random.Random(f"{seed} {source}"))
    ]
    random.Random(seed).shuffle(rows)
    repeats = tuple(max(0, count - size) for size, count in zip(sizes, counts, strict=True))
    return Mixture(tuple(rows), tuple(counts), repeats)


def _shares(sizes: Sequence[int], weights: Sequence[float] | None, cap: int) -> list[Fraction]:
    if cap < 1:
        raise PipelineError(_WHERE, f"the cap is {cap} rows, expected at least 1", "Raise it.")
    if not sizes:
        raise PipelineError(_WHERE, "got no data set, expected at least one", "Name one.")
    if weights is not None and len(weights) != len(sizes):
        problem = f"{len(weights)} weights for {len(sizes)} data sets"
        raise PipelineError(_WHERE, problem, "Give one weight per data set.")
    for number, size in enumerate(sizes, 1):
        if size < 1:
            raise PipelineError(_WHERE, f"data set {number} has no rows", "Leave it out.")
    for weight in weights or ():
        _check_weight(_WHERE, weight)
    # As they were written: 0.7 of 10 rows is 7, which the nearest binary fraction would miss.
    parts = [Fraction(str(weight)) for weight in weights or [min(size, cap) for size in sizes]]
    return [part / sum(parts) for part in parts]


def _apportion(total: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole numbers in these shares that add up to the total; ties go to the earlier one."""
    counts = [math.floor(total * share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: counts[i] - total * shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _drawn(size: int, count: int, draw: random.Random) -> list[int]:
    rounds = range(0, count, size)
    return [row for begun in rounds for row in draw.sample(range(size), min(size, count - begun))]


def split(keys: Sequence[str], validation_frac: float, seed: int) -> tuple[list[int], list[int]]:
    """Split rows into training and validation by the instruction (`keys`, one per row); returns row numbers.

    A row goes where the hash of its normalised key and the seed falls, so that its side depends on nothing
    else: adding, removing or reordering rows moves no other row. The share is therefore met as closely as a
    throw of dice per distinct key meets it. One exception: where a side would be empty though there are two
    keys or more, it gets the key nearest to it. Raises PipelineError.
    """
    if not 0 <= validation_frac < 1:
        problem = f"got {validation_frac:g}, expected at least 0 and less than 1"
        raise PipelineError("--validation-frac", problem, "Correct it.")
    normalised = [normalise(key) for key in keys]
    places = {key: _place(key, seed) for key in normalised}
    count = sum(place < validation_frac for place in places.values())
    splits = validation_frac > 0 and len(places) > 1
    ordered = sorted(places, key=lambda key: (places[key], key))
    held = set(ordered[: min(max(count, 1), len(places) - 1)] if splits else ())
    sides: tuple[list[int], list[int]] = ([], [])
    for row, key in enumerate(normalised):
        sides[key in held].append(row)
    return sides


def normalise(instruction: str) -> str:
    """The form in which instructions are compared: no case, single spaces, full-width signs as ASCII."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", instruction).casefold())
    return " ".join(folded.split())


def _place(key: str, seed: int) -> float:
    """A number in [0, 1) by hash."""
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48

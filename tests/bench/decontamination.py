"""How long rows take against a million held-out n-grams, in one process.

    .venv/bin/python tests/bench/decontamination.py instructions.txt --held 1000000 --size 13

The file holds one instruction a line; they are the rows. Held-out texts are 60 words each, drawn from the
words of all lines with a fixed seed (so they share n-grams only by chance); each 1,000th row is in one.
"""

from __future__ import annotations

import argparse
import random
import resource
import time
from pathlib import Path

from pipeline.dedup.ngrams import NgramIndex

WORDS = 60  # of a held-out text


def main() -> None:
    """Build the index, look for every row, print seconds and memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=Path)
    parser.add_argument("--held", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=13)
    options = parser.parse_args()
    rows = options.rows.read_text(encoding="utf-8").splitlines()
    held = held_out(rows, options.held, options.size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    index = NgramIndex(held, options.size)
    built = time.perf_counter()
    found = index.find(rows)
    ended = time.perf_counter()
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    print(
        f"{len(rows):,} rows against {len(index):,} n-grams of {options.size} in {len(held):,} texts: "
        f"index {built - began:.2f} s, rows {ended - built:.2f} s, {len(found):,} hits, {more:.0f} MB more"
    )


def held_out(rows: list[str], ngrams: int, size: int) -> list[str]:
    """Enough texts for that many n-grams."""
    rng = random.Random(0)
    words = sorted({word for row in rows for word in row.split()})
    texts = []
    for number in range(ngrams // (WORDS - size + 1) + 1):
        text = " ".join(rng.choices(words, k=WORDS))
        texts.append(f"{text} {rows[number * 1000]}" if number * 1000 < len(rows) else text)
    return texts


if __name__ == "__main__":
    main()

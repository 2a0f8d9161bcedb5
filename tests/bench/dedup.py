"""The exact ROUGE-L filter: time, memory and growth, beside brute force, MinHash and Alpaca's loop.

    .venv/bin/python tests/bench/dedup.py instructions.txt                       # one instruction per line
    .venv/bin/python tests/bench/dedup.py instructions.txt --only ours online    # some of the rows

Every row runs in a process of its own; its peak memory is that process's, interpreter, compiler and texts
included. The compiled loops are taken from Numba's cache, which a first, uncounted run fills (its time is
printed). Peers (datasketch, rouge_score) must be installed beside the project; they are in its `bench` extra.

- ours: list of strings to verdicts. `--sizes` beyond the file's lines are synthetic texts, see `synthetic`.
- brute: rapidfuzz's cdist of every text against all kept ones, blocks of 512, all cores: the same verdicts.
- datasketch: MinHash LSH over word sets (128 permutations, Jaccard threshold 0.5), its candidates checked by
  exact ROUGE-L: precision 1, recall below 1.
- alpaca: rouge_score's own LCS over a pool of processes, candidate by candidate, on a sample of candidates
  against the first texts; extrapolated to the whole by the number of pairs.
- online: batches of 100 against a pool that has grown to so many texts.
- chinese (with --chinese FILE, one text per line): 10,000 texts, made of that file as the synthetic ones are,
  of pairs of characters instead of words, beside 10,000 of the English file's; jieba's start included.

Tried and left out: lists under pairs of frequent tokens (Wang, Li and Feng 2012) make more entries to read;
64 bits of signature let too many long texts pass; no gain from finer classes of lengths or larger batches.
Worth it, 1.2 to 3 times: lists by classes of lengths, signatures within the entries, a search list by list,
unsigned indices (signed ones may count from the end: the compiler gathers). Of 249 MB at 52,000 any compiled
function takes 159, texts 10, jieba 27; NumPy and rapidfuzz alone: 1.05 s and 170 MB, without jieba.
Synthetic texts whose vocabulary grows as the file's does (Heaps' law) take as long.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]
THRESHOLD = 0.7


def read(path: str, size: int) -> list[str]:
    """The file's lines, or as many synthetic texts."""
    with Path(path).open(encoding="utf-8") as file:  # one by one: the text as a whole would count, too
        lines = [line.rstrip("\n") for line in itertools.islice(file, size)]
    if size <= len(lines):
        return lines
    return [" ".join(words) for words in synthetic([line.split() for line in lines], size)]


def chinese(path: str, size: int) -> list[str]:
    """Synthetic texts of the file's pairs of characters."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    pairs = [[line[i : i + 2] for i in range(0, len(line), 2)] for line in lines]
    return ["".join(text) for text in synthetic(pairs, size)]


def synthetic(split: Sequence[Sequence[str]], size: int, seed: int = 0) -> list[list[str]]:
    """Texts with the words, lengths and near duplicates of the file's.

    Each is the beginning of one line and the end of another, cut at the same random share, in which one word
    in eight is replaced by a word drawn from the whole file.
    """
    rng = random.Random(seed)
    words = [word for line in split for word in line]
    texts = []
    for _ in range(size):
        one, other, cut = rng.choice(split), rng.choice(split), rng.random()
        text = [*one[: math.ceil(cut * len(one))], *other[math.ceil(cut * len(other)) :]]
        texts.append([rng.choice(words) if rng.random() < 1 / 8 else word for word in text])
    return texts


def ours(texts: list[str]) -> dict[str, float]:
    """The whole corpus."""
    from pipeline.dedup import rouge

    began = time.perf_counter()
    kept = int(rouge.filter(texts, THRESHOLD).kept.sum())
    return {"seconds": time.perf_counter() - began, "kept": kept}


def online(texts: list[str], pool: int, batches: int = 20) -> dict[str, float]:
    """Microseconds a candidate in batches of 100, with a pool of that size."""
    from pipeline.dedup.rouge import RougeIndex

    index = RougeIndex(THRESHOLD)
    index.insert([str(i) for i in range(pool)], texts[:pool])
    rest, began = texts[pool : pool + 100 * batches], time.perf_counter()
    for i in range(0, len(rest), 100):
        index.add([str(pool + i + j) for j in range(100)], rest[i : i + 100])
    return {"microseconds": (time.perf_counter() - began) / len(rest) * 1e6}


def brute(texts: list[str]) -> dict[str, float]:
    """rapidfuzz against all kept texts."""
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import LCSseq

    from pipeline.dedup.tokens import tokenize

    began = time.perf_counter()
    numbers: dict[str, int] = {}
    split = [[numbers.setdefault(token, len(numbers)) for token in tokenize(text)] for text in texts]
    codes = ["".join(chr(n + 256 if n < 0xD700 else n + 256 + 0x800) for n in text) for text in split]
    kept, lengths = list[str](), list[int]()
    for begin in range(0, len(codes), 512):
        block = codes[begin : begin + 512]
        alive, m = np.ones(len(block), bool), np.array([[len(code)] for code in block])
        for first in range(0, len(kept), 65536):
            common = process.cdist(
                block, kept[first : first + 65536], scorer=LCSseq.similarity, workers=-1, dtype=np.uint16
            )
            alive &= ~above(common, m, np.array(lengths[first : first + 65536])).any(1)
        fresh = [block[i] for i in np.flatnonzero(alive)]
        like = above(
            process.cdist(fresh, fresh, scorer=LCSseq.similarity, dtype=np.uint16),
            np.array([[len(code)] for code in fresh]),
            np.array([len(code) for code in fresh]),
        )
        chosen = list[int]()
        for i in range(len(fresh)):
            if not like[i, chosen].any():
                chosen.append(i)
        kept += [fresh[i] for i in chosen]
        lengths += [len(fresh[i]) for i in chosen]
    return {"seconds": time.perf_counter() - began, "kept": len(kept)}


def above(common: Any, m: Any, n: Any) -> Any:
    """Where the F-measure of LCS lengths exceeds the threshold, in rouge_score's floats."""
    import numpy as np

    with np.errstate(all="ignore"):
        precision, recall = common / m, common / n
        return 2 * precision * recall / (precision + recall) > THRESHOLD


def datasketch(texts: list[str]) -> dict[str, float]:
    """MinHash LSH, then ROUGE-L on its candidates."""
    from datasketch import MinHash, MinHashLSH
    from rapidfuzz.distance import LCSseq

    from pipeline.dedup.bounds import f_measure
    from pipeline.dedup.tokens import tokenize

    began, lsh, kept = time.perf_counter(), MinHashLSH(threshold=0.5, num_perm=128), dict[int, list[str]]()
    split = [tokenize(text) for text in texts]
    sketches = MinHash.generator([[token.encode() for token in set(text)] for text in split], num_perm=128)
    for number, (text, sketch) in enumerate(zip(split, sketches, strict=True)):
        for other in lsh.query(sketch):
            common = LCSseq.similarity(text, kept[other])
            if common and f_measure(common, len(text), len(kept[other])) > THRESHOLD:
                break
        else:
            kept[number] = text
            lsh.insert(number, sketch)
    return {"seconds": time.perf_counter() - began, "kept": len(kept)}


def alpaca(texts: list[str], pool: int = 2000, sample: int = 60) -> dict[str, float]:
    """rouge_score as generate_instruction.py calls it; extrapolated by pairs, all texts being kept."""
    from functools import partial
    from multiprocessing import Pool

    from rouge_score import rouge_scorer

    tokenizer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)._tokenizer
    split = [tokenizer.tokenize(text) for text in texts[: pool + sample]]
    began = time.perf_counter()
    for text in split[pool:]:
        with Pool(os.cpu_count()) as workers:
            workers.map(partial(rouge_scorer._score_lcs, text), split[:pool])
    seconds = time.perf_counter() - began
    pairs = len(texts) * (len(texts) - 1) / 2
    return {"seconds": seconds, "extrapolated": seconds / (pool * sample) * pairs}


ROWS: dict[str, Callable[..., dict[str, float]]] = {
    "ours": ours, "online": online, "brute": brute, "datasketch": datasketch, "alpaca": alpaca
}  # fmt: skip


def one(name: str, path: str, size: int) -> None:
    """Run one row and print its figures as JSON."""
    if name == "online":
        found = online(read(path, size + 2000), size)
    elif name == "chinese":
        found = ours(chinese(path, size))
    else:
        found = ROWS[name](read(path, size))
    found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found))


def measured(name: str, path: str, size: int) -> dict[str, float]:
    """Run one row in a process of its own and print it."""
    command = [sys.executable, __file__, path, "--one", name, str(size)]
    found: dict[str, float] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout
    )
    print(f"{name:<12} {size:>9,}  " + "  ".join(f"{k} {v:,.2f}" for k, v in found.items()), flush=True)
    return found


def main() -> None:
    """Measure all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--only", nargs="*", choices=list(ROWS), default=list(ROWS))
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[200_000, 1_000_000], help="of synthetic corpora"
    )
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--chinese", help="a file of Chinese texts, one a line")
    given = parser.parse_args()
    if given.one:
        return one(given.one[0], given.path, int(given.one[1]))
    whole = len(Path(given.path).read_text(encoding="utf-8").splitlines())
    print("first run, which may compile: ", end="")
    measured("ours", given.path, 1000)
    times = {}
    for name in given.only:
        if name == "online":
            [measured(name, given.path, size) for size in (50_000, 200_000)]
        elif name == "ours":
            times["ours"] = measured(name, given.path, whole)["seconds"]
            grown = [measured(name, given.path, size)["seconds"] for size in given.sizes]
            points = list(zip(given.sizes, grown, strict=True))
            for (a, x), (b, y) in itertools.pairwise(points):
                print(f"  growth exponent {a:,} -> {b:,}: {math.log(y / x) / math.log(b / a):.2f}")
        else:
            found = measured(name, given.path, whole)
            times[name] = found.get("extrapolated", found["seconds"])
            if "ours" in times:
                print(f"  {times[name] / times['ours']:,.0f} times ours")
    if given.chinese:
        english, han = measured("ours", given.path, 10_000), measured("chinese", given.chinese, 10_000)
        print(f"  Chinese over English: {han['seconds'] / english['seconds']:.2f}")


if __name__ == "__main__":
    main()

"""How diverse the answers are: distinct n-grams, openings, nearest answers, coverage of the seeds.

distinct-n is Li et al.'s (arXiv:1510.03055): different n-grams over all of them. It falls as answers grow
longer, so compare it between models whose mean lengths are alike. `shared_4grams`, the mean share of an
answer's 4-grams that another answer has too, stands for self-BLEU (Zhu et al., arXiv:1802.01886).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.dedup.diversity import measure
from pipeline.dedup.encoder import Encoder
from pipeline.dedup.tokens import tokenize
from pipeline.evaluation.measures import Measured
from pipeline.records import LANGUAGES, SeedTask
from pipeline.stages.text import units

_SHARED = 4


def diversity(
    measured: Sequence[Measured], seeds: Sequence[SeedTask], encoder: Encoder, seed: int
) -> dict[str, Any]:
    """By language; a language without answers is left out."""
    out = {}
    for language in LANGUAGES:
        mine = [one for one in measured if one.record.item.prompt.language == language and one.record.text]
        if mine:
            texts, keys = [one.record.text for one in mine], [one.record.item.id for one in mine]
            known = [seed for seed in seeds if seed.language == language]
            meaning = _meaning(keys, texts, known, encoder, language, seed)
            out[language] = {"answers": len(mine), **wording(texts), "meaning": meaning}
    return out


def wording(texts: Sequence[str]) -> dict[str, float]:
    """distinct-1 and -2, the entropy of the first words in bits, the share of 4-grams that others have."""
    tokens = [tokenize(text) for text in texts]
    first = Counter(found[0] for text in texts if (found := units(text)))
    total = max(first.total(), 1)
    entropy = -sum(count / total * math.log2(count / total) for count in first.values())
    return {
        "distinct_1": round(_distinct(tokens, 1), 4),
        "distinct_2": round(_distinct(tokens, 2), 4),
        "opening_entropy": round(abs(entropy), 4),
        "shared_4grams": round(_shared(tokens), 4),
    }


def _ngrams(tokens: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return list(zip(*(tokens[i:] for i in range(size)), strict=False))


def _distinct(tokens: Sequence[Sequence[str]], size: int) -> float:
    every = [ngram for one in tokens for ngram in _ngrams(one, size)]
    return len(set(every)) / len(every) if every else 0.0


def _shared(tokens: Sequence[Sequence[str]]) -> float:
    """Over the answers that have 4-grams at all."""
    mine = [found for one in tokens if (found := set(_ngrams(one, _SHARED)))]
    owners = Counter(ngram for found in mine for ngram in found)
    shares = [sum(owners[ngram] > 1 for ngram in found) / len(found) for found in mine]
    return sum(shares) / len(shares) if shares else 0.0


def _meaning(
    keys: Sequence[str],
    texts: Sequence[str],
    seeds: Sequence[SeedTask],
    encoder: Encoder,
    language: str,
    seed: int,
) -> dict[str, Any]:
    """By embeddings: the mean cosine of two answers and to the nearest one, the seeds that they cover."""
    if not encoder.covers(language):
        return {"left_out": f"{encoder.name} does not read this language"}
    if not seeds or len(texts) < 2:
        return {"left_out": "there are no seeds of this language" if not seeds else "there is one answer"}
    vectors = encoder.encode(texts)
    outputs = encoder.encode([f"{one.instruction}\n{one.instances[0].output}" for one in seeds])
    found = measure(keys, texts, vectors, [one.id for one in seeds], outputs, seed=seed)
    count, whole = len(vectors), vectors.astype(np.float64).sum(axis=0)
    pairwise = (float(whole @ whole) - count) / (count * (count - 1))
    return {
        "model": encoder.name,
        "mean_cosine": round(pairwise, 4),
        "mean_nearest_cosine": found.mean_nearest,
        "seeds_covered": found.seeds_covered,
        "seeds": len(seeds),
        "even_seeds": found.even_seeds,
    }

"""How diverse answers and training data are: distinct n-grams, openings, nearest texts, seeds covered.

distinct-n is Li et al.'s (arXiv:1510.03055): different n-grams over all of them. It falls as answers grow
longer, so compare it between models whose mean lengths are alike. `shared_4grams`, the mean share of an
answer's 4-grams that another answer has too, stands for self-BLEU (Zhu et al., arXiv:1802.01886).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.dedup.diversity import measure
from pipeline.dedup.encoder import Encoder, NoEncoder
from pipeline.dedup.tokens import tokenize
from pipeline.evaluation.lineage import Lineage, asked
from pipeline.evaluation.measures import Measured
from pipeline.records import LANGUAGES, SeedTask
from pipeline.stages.language import row_language
from pipeline.stages.text import units

_SHARED = 4
_MOST = 5000  # texts of a language


def answers(
    measured: Sequence[Measured], seeds: Sequence[SeedTask], encoder: Encoder, seed: int
) -> dict[str, Any]:
    """Of the answers, beside the seeds' answers. By language; one without answers is left out."""
    texts = [(one.record.item.prompt.language, one.record.text) for one in measured]
    said = [(one.language, f"{one.instruction}\n{one.instances[0].output}") for one in seeds]
    return {
        language: {"answers": count, **found}
        for language, count, found in _by_language(texts, said, encoder, seed)
    }


def requests(
    found: Lineage, seeds: Sequence[SeedTask], encoder: Encoder, seed: int
) -> dict[str, dict[str, Any]]:
    """Of what the training data ask, each request once, beside what the seeds ask. By language.

    Of more than 5,000 requests in a language as many are drawn: distinct-n falls with their number.
    """
    texts = dict.fromkeys(
        (row_language(row.fields, text), text)
        for source in found.sources
        for row in source.rows()
        if (text := asked(row.fields))
    )
    said = [(one.language, _request(one)) for one in seeds]
    return {
        language: {"requests": count, **found}
        for language, count, found in _by_language(list(texts), said, encoder, seed)
    }


def _request(task: SeedTask) -> str:
    return "\n".join(filter(None, [task.instruction, task.instances[0].input]))


def _by_language(
    texts: Sequence[tuple[str, str]], seeds: Sequence[tuple[str, str]], encoder: Encoder, seed: int
) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Language, number of texts, measures of texts that are not empty."""
    for language in LANGUAGES:
        mine = [text for own, text in texts if own == language and text]
        if not mine:
            continue
        count, known = len(mine), [text for own, text in seeds if own == language]
        if count > _MOST:
            drawn = np.random.default_rng(seed).choice(count, _MOST, replace=False)
            mine = [mine[place] for place in sorted(drawn)]
        yield (language, count, {**wording(mine), "meaning": _meaning(mine, known, encoder, language, seed)})


def wording(texts: Sequence[str]) -> dict[str, float]:
    """distinct-1 and -2, the entropy of the first words in bits, the share of 4-grams that others have.

    The first word of a request is mostly its verb.
    """
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
    """Over the texts that have 4-grams at all."""
    mine = [found for one in tokens if (found := set(_ngrams(one, _SHARED)))]
    owners = Counter(ngram for found in mine for ngram in found)
    shares = [sum(owners[ngram] > 1 for ngram in found) / len(found) for found in mine]
    return sum(shares) / len(shares) if shares else 0.0


def _meaning(
    texts: Sequence[str], seeds: Sequence[str], encoder: Encoder, language: str, seed: int
) -> dict[str, Any]:
    """By embeddings: the mean cosine of two texts and to the nearest one, the seeds that they cover."""
    if not encoder.covers(language):
        why = f"{encoder.name} does not read this language"
        return {"left_out": "no embedding model" if isinstance(encoder, NoEncoder) else why}
    if not seeds or len(texts) < 2:
        return {"left_out": "there are no seeds of this language" if not seeds else "there is one text"}
    vectors = encoder.encode(texts)
    keys = [str(number) for number in range(len(texts))]
    found = measure(keys, texts, vectors, seeds, encoder.encode(seeds), seed=seed)
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

"""The options of `python -m pipeline.dedup`."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option
from pipeline.dedup.embedding_options import EmbeddingOptions

_ROWS, _ALIKE, _HELD = "rows", "near duplicates", "held-out texts"


@dataclass(frozen=True)
class Options(EmbeddingOptions):
    """Every option of the command, as a flag and as a YAML key."""

    inputs: tuple[str, ...] = option(
        (),
        "JSONL, JSON arrays (Alpaca), Parquet, directories of them, runs of ours, or hub datasets as "
        "owner/name[:split] or owner/name:config:split",
        metavar="IN",
        positional=True,
        group=_ROWS,
    )
    out: str = option("", "directory for kept.jsonl, dropped.jsonl, run.json", metavar="DIR", group=_ROWS)
    on: str = option(
        "instruction+input",
        "what of a row is compared: fields joined by +, such as instruction+input (input may be missing), "
        "text, messages (all turns)",
        metavar="FIELDS",
        group=_ROWS,
    )
    overwrite: bool = option(False, "start anew in a used directory", group=_ROWS)

    rouge: float = option(
        0.7,
        "highest ROUGE-L F against any row kept before or held-out text; 1: off",
        low=0,
        high=1,
        group=_ALIKE,
    )
    embedding: float = option(
        1.0, "the same for the cosine of sentence embeddings, say 0.95; 1: off", low=0, high=1, group=_ALIKE
    )
    cjk: str = option(
        "words",
        "what Chinese is cut into for ROUGE-L and n-grams",
        choices=("words", "characters"),
        group=_ALIKE,
    )

    against: tuple[str, ...] = option(
        (), "held-out texts, say a benchmark, in any form that IN takes", metavar="PATH", group=_HELD
    )
    against_on: str = option(
        "",
        "what of a held-out row is compared; none: the fields of --on, else the first of instruction+input, "
        "messages, text, question, prompt, problem that it has",
        metavar="FIELDS",
        group=_HELD,
    )
    ngram: int = option(
        13,
        "words in a row that no held-out text may share, usually 13 or 8; 0: off",
        unit="tokens (Chinese: jieba words or, with --cjk characters, characters)",
        low=0,
        high=1000,
        group=_HELD,
    )
    contaminated: str = option(
        "drop",
        "what becomes of rows that share too much with a held-out text; mark: they are kept, with the "
        "findings in a field 'contamination'",
        choices=("drop", "mark"),
        group=_HELD,
    )

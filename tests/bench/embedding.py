"""How long meaning takes: encoding and exact decisions, against SentenceTransformer's own encode.

    .venv/bin/python tests/bench/embedding.py instructions.txt --texts 2000
    .venv/bin/python tests/bench/embedding.py instructions.txt --texts 0 --search faiss

The file holds one text a line; `--texts` of them are drawn with the seed (0: all, in their order). Both
encoders load the same model, take the same texts and are warmed up on the same 64; SentenceTransformer runs
as it comes (fp32, batches of 32). `--default-texts` limits what it gets, as it is the slow one; then the
ratio is one of texts per second, and no time is extrapolated.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.dedup.approximate import recall
from pipeline.dedup.embedding import SEARCHES, filter_vectors
from pipeline.dedup.encoder import EncoderSettings, SentenceEncoder
from pipeline.engines.models import sentence_model

WARM = 64  # texts


def main() -> None:
    """Encode both ways, decide, print one line of figures each."""
    options = parsed()
    texts = [line for line in Path(options.file).read_text(encoding="utf-8").splitlines() if line.strip()]
    if 0 < options.texts < len(texts):
        texts = random.Random(options.seed).sample(texts, options.texts)
    settings = EncoderSettings(options.model, device=options.device, precision=options.precision)
    encoder = SentenceEncoder(settings)
    encoder.encode(texts[:WARM])
    vectors, seconds = timed(lambda: encoder.encode(texts))
    print(f"encode: {len(texts)} texts in {encoder.precision}, {rate(len(texts), seconds)}")
    verdicts, spent = timed(lambda: filter_vectors(vectors, options.threshold, search=options.search))
    print(f"decide ({options.search}): {spent:.2f} s, {int((~verdicts.kept).sum())} of {len(texts)} dropped")
    if options.search != "exact":
        found = recall(vectors, verdicts.neighbours, options.threshold)
        print(f"recall on {found.num_sampled} texts: {found.share:.4f}, {found.num_missed} missed")
    print(f"encode and decide: {seconds + spent:.2f} s")
    few = texts[: options.default_texts] if options.default_texts else texts
    theirs, theirs_seconds = default_encode(few, options)
    print(f"SentenceTransformer.encode: {len(few)} texts, {rate(len(few), theirs_seconds)}")
    print(f"ratio of texts per second: {(len(texts) / seconds) / (len(few) / theirs_seconds):.2f}")
    print(f"lowest cosine between both: {float((theirs * vectors[: len(few)]).sum(axis=1).min()):.6f}")


def default_encode(texts: list[str], options: argparse.Namespace) -> tuple[np.ndarray, float]:
    """What the library does when nothing is asked of it but unit vectors; (N, D) and seconds."""
    from sentence_transformers import SentenceTransformer

    device = None if options.device == "auto" else options.device
    model = SentenceTransformer(sentence_model(options.model), device=device)
    model.encode(texts[:WARM], show_progress_bar=False)
    return timed(lambda: model.encode(texts, normalize_embeddings=True, show_progress_bar=False))


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` returns, and its seconds."""
    began = time.perf_counter()
    result = work()
    return result, time.perf_counter() - began


def rate(count: int, seconds: float) -> str:
    """Seconds and texts per second."""
    return f"{seconds:.2f} s, {count / seconds:.0f} texts/s"


def parsed() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", help="one text a line")
    for name, default, text in (
        ("texts", 2000, "drawn from the file; 0: all of it"),
        ("default-texts", 0, "of these, the first so many for SentenceTransformer; 0: all"),
        ("threshold", 0.9, "highest cosine that is kept"),
        ("seed", 0, "of the draw"),
        ("model", "", "sentence-transformers model; none: all-MiniLM-L6-v2"),
        ("device", "cpu", "cpu, cuda or auto"),
        ("precision", "auto", "auto, fp32 or bf16"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=f"{text} (%(default)s)")
    parser.add_argument("--search", choices=SEARCHES, default="exact", help="how near texts are found")
    return parser.parse_args()


if __name__ == "__main__":
    main()

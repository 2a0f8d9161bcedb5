"""Tokens per second of the embedded engine against transformers' own generate, in one run.

    .venv/bin/python tests/bench/decode.py

64 proposal prompts of eight seeds each (16 different sets, four first words each, as a run asks them) with
16 to 128 new tokens. transformers gets them sorted by length in batches of 32, left-padded, which is its
best case; it must go on until the longest answer of a batch is done. Both draw with top-p 0.9 and never end
early.
"""

from __future__ import annotations

import asyncio
import random
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from pipeline.engines.base import Request, Sampling
from pipeline.engines.embedded import EmbeddedEngine
from pipeline.engines.models import language_model
from pipeline.stages.seeds import load_seeds


def main() -> None:
    """Time both, ours first and last, on the same requests."""
    rng = random.Random(0)
    seeds = [s.instruction for s in load_seeds(["seeds/en.jsonl"]) if len(s.instruction.split()) <= 20]
    sets = ["Come up with a series of tasks:\n\n" + "\n".join(rng.sample(seeds, 8)) for _ in range(16)]
    prompts = [f"{s}\n9. {word}" for s in sets for word in ("Write", "Explain", "How", "List")]
    lengths = [rng.randint(16, 128) for _ in prompts]
    engine = EmbeddedEngine(batch_size=64, slots=32)
    engine.decoder.stop_ids = set()
    requests = [
        Request(p, sampling=Sampling(0.7, 0.9, max_tokens=n, seed=i))
        for i, (p, n) in enumerate(zip(prompts, lengths, strict=True))
    ]
    total = sum(lengths)

    def ours() -> float:
        began = time.monotonic()
        asyncio.run(engine.generate(requests))
        return total / (time.monotonic() - began)

    first = ours()
    theirs = total / transformers_seconds(prompts, lengths, engine.dtype)
    last = ours()
    print(
        f"{engine.precision}: ours {first:.0f} and {last:.0f} tokens/s, transformers {theirs:.0f} tokens/s, "
        f"ratio {min(first, last) / theirs:.2f} to {max(first, last) / theirs:.2f}"
    )


def transformers_seconds(prompts: list[str], lengths: list[int], dtype: torch.dtype) -> float:
    """Seconds that `generate` takes for the same prompts in batches of 32 sorted by length."""
    folder = language_model()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    order = sorted(range(len(prompts)), key=lambda i: lengths[i])
    began = time.monotonic()
    for start in range(0, len(order), 32):
        batch = order[start : start + 32]
        new = max(lengths[i] for i in batch)
        tokens = tokenizer([prompts[i] for i in batch], return_tensors="pt", padding=True)
        model.generate(
            **tokens, do_sample=True, temperature=0.7, top_p=0.9, max_new_tokens=new, min_new_tokens=new
        )
    return time.monotonic() - began


if __name__ == "__main__":
    main()

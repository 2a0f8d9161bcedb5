"""Seconds and page faults of a training pass on a CPU, freed memory given back to the kernel or kept.

    .venv/bin/python tests/bench/kept_memory.py

A LoRA on the embedded model, 8 rows of 180 tokens, the loss on the last 64; each arm in processes of its own,
in turns. The last lines are a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import torch

ROWS, LENGTH, ANSWER, PASSES = 8, 180, 64, 5


def main() -> None:
    """Run both arms in turns; print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=("given back", "kept"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.arm:
        print(json.dumps(measured(given.arm == "kept")))
        return
    found: dict[str, list[dict[str, float]]] = {"given back": [], "kept": []}
    for _ in range(given.rounds):
        for arm, rows in found.items():
            command = [sys.executable, __file__, "--arm", arm]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    print("| freed memory is | seconds a pass | page faults a pass | peak |\n|---|---|---|---|")
    for arm, rows in found.items():
        seconds, faults, peak = (statistics.median(row[i] for row in rows) for i in ("s", "faults", "mb"))
        print(f"| {arm} | {seconds:.2f} | {faults:,.0f} | {peak:,.0f} MB |")


def measured(kept: bool) -> dict[str, float]:
    """Seconds and page faults of a forward and a backward pass, and the process's peak."""
    from transformers import AutoModelForCausalLM

    from pipeline.engines.device import native_bf16
    from pipeline.engines.models import language_model
    from pipeline.train import adapters, hardware

    if kept:
        hardware.keep_memory()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(language_model(""), dtype=torch.float32)
    model = adapters.attach(model, adapters.Tuning(method="lora", task="causal", rank=16))
    ids = torch.randint(0, 40_000, (ROWS, LENGTH))

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=native_bf16()):
            logits = model(input_ids=ids, use_cache=False).logits[:, -ANSWER:]
        logps = torch.log_softmax(logits.float(), -1).gather(2, ids[:, -ANSWER:, None])
        (-logps.mean()).backward()

    for _ in range(2):
        once()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(PASSES):
        once()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "s": (time.perf_counter() - began) / PASSES,
        "faults": (after.ru_minflt - before.ru_minflt) / PASSES,
        "mb": after.ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()

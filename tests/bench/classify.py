"""How well the embedded model tells classification tasks: asked (yes/no) against compared (two lists).

    .venv/bin/python tests/bench/classify.py

The seeds that are not shown in the prompt are the test set. Printed: area under the ROC curve, accuracy at
0, and precision and recall at the command's default margin.
"""

from __future__ import annotations

import asyncio
import random

from pipeline.engines.embedded import EmbeddedEngine
from pipeline.selfinstruct import Options
from pipeline.stages.classify import ask_request, classify_demonstrations, compare_request
from pipeline.stages.prompts import Prompts
from pipeline.stages.seeds import load_seeds


def main() -> None:
    """Score every seed both ways in both languages."""
    engine, prompts, margin = EmbeddedEngine(), Prompts(), Options().classification_margin
    for language in ("en", "zh"):
        seeds = [s for s in load_seeds(["seeds"]) if s.language == language]
        shown = classify_demonstrations(random.Random(0), seeds, 20)
        tests = [s for s in seeds if s.instruction not in {text for text, _ in shown}]
        ask, listed = (prompts.get(language, name, "completion") for name in ("classify", "classify_list"))
        ways = {
            "asked": [ask_request(ask, shown, s.instruction, language, can_score=True) for s in tests],
            "compared": [compare_request(listed, shown, s.instruction) for s in tests],
        }
        for way, requests in ways.items():
            answers = asyncio.run(engine.generate(requests))
            scores = [a.choice_logprobs[0] - a.choice_logprobs[1] for a in answers]
            report(f"{language} {way}", scores, [s.is_classification for s in tests], margin)


def report(name: str, scores: list[float], truth: list[bool], margin: float) -> None:
    """Print one line of figures."""
    yes = [s for s, t in zip(scores, truth, strict=True) if t]
    no = [s for s, t in zip(scores, truth, strict=True) if not t]
    auc = sum((a > b) + (a == b) / 2 for a in yes for b in no) / (len(yes) * len(no))
    accuracy = sum((s > 0) == t for s, t in zip(scores, truth, strict=True)) / len(truth)
    called = sum(s > margin for s in scores)
    right = sum(s > margin for s in yes)
    print(
        f"{name:<12} n {len(truth)} auc {auc:.2f} accuracy at 0 {accuracy:.2f}; at margin {margin:g}: "
        f"precision {right / called if called else float('nan'):.2f} recall {right / len(yes):.2f}"
    )


if __name__ == "__main__":
    main()

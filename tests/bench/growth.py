"""How a long run grows: memory from 1,000 to 100,000 admitted candidates; how soon a long journal resumes.

    .venv/bin/python tests/bench/growth.py --candidates 100000 --lines 100000

The model is a script that answers at once with new words, so that all time and memory is the pipeline's own:
the command itself with its journal, ledger, filters, ROUGE-L dedup, snapshots and export. Sentence embeddings
are off (encoding 100,000 texts takes ten minutes here and 150 MB to hold: 384 floats each).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pipeline.engines.base import Request, Response
from pipeline.engines.budget import Budget, BudgetedEngine
from pipeline.errors import Stopped
from pipeline.selfinstruct import Options
from pipeline.stages import command, generate
from pipeline.stages.seeds import load_seeds

PROPOSALS = 4  # per request
WORDS = sorted({w for s in load_seeds(["seeds/en.jsonl"]) for w in re.findall(r"[a-z]{5,}", s.instruction)})


class Script:
    """Answers at once; notes memory when `marks` candidates were proposed, and when it is first asked."""

    model, license, precision = "script", "apache-2.0", "no numbers"
    batch_size, groups_in_flight = 1, 256
    can_score = can_structure = has_chat = False
    tokens_drawn = 0

    def __init__(self, marks: Sequence[int]) -> None:
        self.proposed, self.marks, self.memory = 0, list(marks), dict[int, float]()
        self.first_asked = 0.0

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer by the stage that the prompt shows."""
        self.first_asked = self.first_asked or time.monotonic()
        await asyncio.sleep(0)
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Response:
        rng = random.Random(request.digest)
        if request.prompt.startswith("Come up with"):
            self.proposed += PROPOSALS
            if self.marks and self.proposed >= self.marks[0]:
                self.memory[self.marks.pop(0)] = resident()
            items = [phrase(rng, 8).join(("Explain how ", ".")) for _ in range(PROPOSALS)]
            return Response("\n".join(f"{n}. {item}" for n, item in enumerate(items, 9)), "stop", 200, 80)
        if request.prompt.startswith("Is the answer"):
            return Response(" No", "stop", 200, 1)
        return Response(f"It is the {phrase(rng, 16)}.", "stop", 100, 30)

    def stop(self) -> None:
        """Nothing waits."""

    async def close(self) -> None:
        """Nothing to let go of."""


def phrase(rng: random.Random, count: int) -> str:
    """Words at random with the little ones between them that English has."""
    words = rng.sample(WORDS, count)
    return " ".join(f"{'the of a with and their'.split()[i % 6]} {word}" for i, word in enumerate(words))


def resident() -> float:
    """This process's memory now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(script: Script, folder: Path, **options: Any) -> float:
    """The command with that engine; its seconds."""

    @asynccontextmanager
    async def open_engine(options: Any, *_: object) -> AsyncIterator[BudgetedEngine]:
        yield BudgetedEngine(script, Budget(options.max_requests))

    generate.open_engine = open_engine  # type: ignore[assignment]
    chosen = Options(
        seeds=("seeds/en.jsonl",),
        run=str(folder),
        style="completion",
        answer_style="completion",
        prime=False,
        num_proposals=PROPOSALS,
        classification_frac=0,
        embedding_threshold=1,
        min_relevance=0,
        **options,
    )
    began = time.monotonic()
    try:
        command.run(chosen, Path("runs"))
    except Stopped:
        print("(stopped by its budget, as wanted)")
    return time.monotonic() - began


def main() -> None:
    """Measure both; each starts a directory that is thrown away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--lines", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.lines:
            place = Path(folder) / "long"
            many = {"num_examples": given.lines, "max_proposals": given.lines}
            seconds = run(Script([]), place, max_requests=given.lines, **many)
            size = (place / "journal.jsonl").stat().st_size / 1e6
            script, began = Script([]), time.monotonic()
            run(script, place, resume=True, max_requests=given.lines + 500, **many)
            resumed = script.first_asked - began
            print(
                f"journal of {given.lines} lines, {size:.0f} MB, made in {seconds:.0f} s: "
                f"resumed in {resumed:.1f} s (start of the command to the next request)"
            )
        if given.candidates:
            script = Script([1000])
            seconds = run(
                script,
                Path(folder) / "large",
                num_examples=int(given.candidates * 0.97),
                max_proposals=given.candidates,
            )
            low, high = script.memory[1000], resident()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
            print(
                f"{given.candidates} candidates in {seconds:.0f} s: {low:.0f} MB after 1,000, {high:.0f} MB "
                f"after all of them: {high - low:.0f} MB more; peak of the process with export {peak:.0f} MB"
            )


if __name__ == "__main__":
    main()

"""How a long run grows: memory from 1,000 to 100,000 admitted candidates; how soon a long journal resumes.

    .venv/bin/python tests/bench/growth.py --candidates 100000 --lines 100000

Memory is the peak of a whole command, export and report included, in a process of its own for each of the
two sizes.

The model is a script that answers at once with new words, so that all time and memory is the pipeline's own:
the command itself with its journal, ledger, filters, ROUGE-L dedup, snapshots and export. Sentence embeddings
are off (encoding 100,000 texts takes ten minutes here and 150 MB to hold: 384 floats each).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from multiprocessing import get_context
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
    """Answers at once; notes when it is first asked."""

    model, license, precision = "script", "apache-2.0", "no numbers"
    batch_size, groups_in_flight = 1, 256
    can_score = can_structure = has_chat = False
    tokens_drawn = 0

    def __init__(self) -> None:
        self.first_asked = 0.0

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer by the stage that the prompt shows."""
        self.first_asked = self.first_asked or time.monotonic()
        await asyncio.sleep(0)
        return [self._answer(request) for request in requests]

    def _answer(self, request: Request) -> Response:
        rng = random.Random(request.digest)
        if request.prompt.startswith("Come up with"):
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


def peak(candidates: int) -> tuple[float, float]:
    """A run until that many candidates are admitted: its seconds, and the most memory it had in MB."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = {"num_examples": candidates, "max_proposals": candidates * 2}
        seconds = run(Script(), Path(folder) / "run", **wanted)
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def apart(candidates: int) -> tuple[float, float]:
    """`peak` in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(peak, candidates).result()


def resume(lines: int) -> None:
    """Make a journal of that many lines and go on after it."""
    many: dict[str, Any] = {"num_examples": lines, "max_proposals": lines}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "long"
        seconds = run(Script(), place, max_requests=lines, **many)
        size = (place / "journal.jsonl").stat().st_size / 1e6
        script, began = Script(), time.monotonic()
        run(script, place, resume=True, max_requests=lines + 500, **many)
    print(
        f"journal of {lines} lines, {size:.0f} MB, made in {seconds:.0f} s: resumed in "
        f"{script.first_asked - began:.1f} s (start of the command to the next request)"
    )


def main() -> None:
    """Measure both; each in a directory that is thrown away."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--candidates", type=int, default=100_000, help="admitted in all; 0: no such run")
    parser.add_argument("--lines", type=int, default=100_000, help="of the journal; 0: no such run")
    given = parser.parse_args()
    if given.lines:
        resume(given.lines)
    if given.candidates:
        (_, low), (seconds, high) = apart(1000), apart(given.candidates)
        print(
            f"peak {low:.0f} MB with 1,000 candidates, {high:.0f} MB with {given.candidates:,} "
            f"({seconds:.0f} s): {high - low:.0f} MB more"
        )


if __name__ == "__main__":
    main()

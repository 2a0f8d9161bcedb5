"""A stand-in for the model: well-formed answers drawn from the request's seed; a whole run takes a second.

`python tests/scripted.py ARGS` is the command with that engine. SCRIPTED_DELAY: seconds a group takes, spent
in a thread as the embedded engine spends them.
"""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stub import StubEngine

from pipeline.engines.base import Request, Response
from pipeline.engines.budget import Budget, BudgetedEngine

REPO = Path(__file__).resolve().parent.parent
SCRIPTED = [sys.executable, str(Path(__file__).resolve())]
SEEDS = REPO / "seeds" / "en.jsonl"
# First words are the model's own, embeddings are off (their model loads for seconds), sentences may be alike.
ARGS = (
    "--seeds",
    str(SEEDS),
    *"--no-prime --style completion --answer-style completion --embedding-threshold 1".split(),
    *"--min-relevance 0 --rouge-threshold 0.9".split(),
)
_PEOPLE = "farmer teacher sailor baker doctor painter gardener student driver singer tailor miner".split()
_THINGS = "bicycle kettle ladder violin compass lantern blanket hammer basket mirror saddle bucket".split()
_PLACES = "harbour village forest kitchen desert library market museum valley station castle meadow".split()


class ScriptedEngine(StubEngine):
    """Implements `engines.base.Engine`; a sixth of the proposals is no request, a sixth classification."""

    groups_in_flight, can_score = 1, True

    def __init__(self, batch_size: int = 8) -> None:
        self.batch_size, self.tokens_drawn = batch_size, 0

    async def generate(self, requests: Sequence[Request]) -> list[Response]:
        """Answer one group."""
        return await asyncio.to_thread(self._answer, list(requests))

    def _answer(self, requests: list[Request]) -> list[Response]:
        time.sleep(float(os.environ.get("SCRIPTED_DELAY", "0")))
        self.tokens_drawn += 10 * len(requests)
        return [_respond(request) for request in requests]


@asynccontextmanager
async def open_engine(options: Any, *other: Any) -> AsyncIterator[BudgetedEngine]:
    """In place of `engines.open.open_engine`."""
    limits = Budget(options.max_requests, options.max_tokens_total)
    yield BudgetedEngine(ScriptedEngine(options.batch_size or 64), limits)


def _respond(request: Request) -> Response:
    if request.choices:
        kind = "Decide whether" in request.choices[0][1]
        return Response("", "score", 50, 0, (-10.0, -20.0) if kind else (-20.0, -10.0))
    rng = random.Random(request.sampling.seed)
    who, what, where = rng.choice(_PEOPLE), rng.choice(_THINGS), rng.choice(_PLACES)
    statement = f"The {who} left an old {what} in the quiet {where} last winter."
    if request.prompt.startswith("Come up with"):
        texts = [f" Explain how a {who} could use a {what} in the {where}."] * 4
        texts += [
            f" {statement}",
            f" Decide whether the note about the {who}, {what} and {where} is true or false.",
        ]
        return Response(rng.choice(texts), "stop", 100, 12)
    if request.prompt.endswith("Harder task:"):
        parent = request.prompt.splitlines()[-2].removeprefix("Task: ")
        more = f"Then say what the {who} and the {what} would do in the {where} without any help from others."
        return Response(f" {parent} {more}", "stop", 100, 30)
    if request.prompt.endswith("Rarer task:"):
        return Response(f" Why does a {who} so seldom need a {what} in the {where}?", "stop", 100, 12)
    if request.prompt.startswith("List the labels"):
        return Response(" true, false", "stop", 100, 4)
    if request.prompt.startswith("Write an input"):
        return Response(f" {statement}", "stop", 100, 12)
    return Response(
        f" A {who} would carry the {what} and put it to good use there every day.", "stop", 100, 16
    )


# ---- calling the command and looking at what it left ----


@dataclass
class Ended:
    """How a call of the command ended."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPO), "HF_HUB_OFFLINE": "1", **more}


def process(*command: object, cwd: Path, timeout: float = 60, **more: str) -> Ended:
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=cwd, env=environment(**more), capture_output=True, text=True, timeout=timeout
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, locks apart; folders as b"/"."""
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"/"
        for p in sorted(folder.rglob("*"))
        if p.name != ".lock"
    }


def result(run: Path) -> dict[str, bytes]:
    """What must be the same for the same options: the dataset and the two record files."""
    found = tree(run)
    return {n: b for n, b in found.items() if n.startswith("dataset") or n in ("kept.jsonl", "dropped.jsonl")}


def refused(ended: Ended) -> str:
    """The one line of an error."""
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("error: ") and ended.err.endswith("\n") and ended.err.count("\n") == 1
    return ended.err.removeprefix("error: ").strip()


def refused_after_start(ended: Ended) -> str:
    """The error of a run that had begun: the last line, after the log's lines, without a traceback."""
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err
    *_, last = ended.err.splitlines()
    assert last.startswith("error: ")
    return last


if __name__ == "__main__":
    from pipeline.errors import run_command
    from pipeline.selfinstruct import main
    from pipeline.stages import dry_run, generate

    generate.open_engine = dry_run.open_engine = open_engine  # type: ignore[assignment]
    run_command(main)

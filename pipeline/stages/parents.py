"""The instructions of one language that may be evolved, and which proposal evolves which of them, and how."""

from __future__ import annotations

import random
from collections.abc import Sequence

from pipeline.records import SeedTask
from pipeline.stages.evolve import Evolution, Operation
from pipeline.stages.plan import Plan
from pipeline.stages.propose import MachineWritten
from pipeline.stages.references import refers_to_input
from pipeline.stages.text import length
from pipeline.stages.words import Words

_TRIES = 8  # machine-written instructions that are drawn to find one that fits
_ENOUGH = 8  # kept tasks from which on a completion evolves its whole share


class Parents:
    """Seeds, and tasks of this run or an earlier one that were kept; `longest` units is the longest taken.

    To a chat every seed and every kept task is as likely. A completion, written by a small or base model,
    evolves kept tasks only, which the model has shown that it can do, and of those what needs no text to work
    on and is half as long: what it makes harder must be twice as long, or it would be a near duplicate.
    """

    def __init__(
        self, language: str, seeds: Sequence[SeedTask], words: Words, plan: Plan, longest: int
    ) -> None:
        self.written = MachineWritten()
        self._language, self._words, self._plan, self._longest = language, words, plan, longest
        self._chat = plan.style == "chat"
        self._seeds = [s for s in seeds if self._fits(s.instruction)] if self._chat else []

    def draw(self, evolution: Evolution, number: int) -> tuple[Operation, str, tuple[str, str]] | None:
        """How proposal `number` evolves what: operation, lead, (id, instruction); None if it does not."""
        rng = random.Random(f"{self._plan.seed}/{self._language}/evolution {number}")
        if rng.random() >= self._plan.evolve_frac:
            return None
        operation = rng.choice(evolution.operations)
        lead, written = rng.choice(operation.leads), len(self.written.items)
        seed = rng.choice(self._seeds) if self._seeds else None
        others = len(self._seeds) if self._chat else max(0, _ENOUGH - written)
        among, key = rng.random(), str(rng.getrandbits(64))
        drawn = self.written.draw(key, _TRIES) if among * (written + others) < written else []
        fitting = [pair for pair in drawn if self._fits(pair[1])]
        parents = [*fitting, *([(seed.id, seed.instruction)] if seed else [])]
        return (operation, lead, parents[0]) if parents else None

    def _fits(self, instruction: str) -> bool:
        """Whether an instruction leaves room to grow, and for a completion needs no text to work on."""
        if self._chat:
            return length(instruction) <= self._longest
        return 2 * length(instruction) <= self._longest and not refers_to_input(instruction, self._words)

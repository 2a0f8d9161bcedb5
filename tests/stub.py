"""What every engine of the tests has in common; each adds how it answers."""

from __future__ import annotations


class StubEngine:
    """The parts of `engines.base.Engine` that say what an engine is and can do."""

    model, license, precision = "scripted", "apache-2.0", "no numbers"
    batch_size, groups_in_flight = 1, 8
    can_score = can_structure = has_chat = False
    tokens_drawn = 0
    stopped = False

    def stop(self) -> None:
        self.stopped = True

    async def close(self) -> None:
        """Nothing to let go of."""

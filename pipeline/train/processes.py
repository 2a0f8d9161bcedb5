"""Training by several processes, started by torchrun or `accelerate launch`: one leads, others follow.

All read the same data and train together; the leader alone owns the run directory, writes and talks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pipeline.errors import PipelineError
from pipeline.rundir import RunDir


def count() -> int:
    """How many train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def leads() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def check(command: str, by_several: bool, run: str) -> None:
    """Refuse several processes where one is needed, or would not know the run. Raises PipelineError."""
    where = f"{count()} processes"
    if count() > 1 and not by_several:
        raise PipelineError(where, f"pipeline.{command} trains in one", "Start it by itself.")
    if count() > 1 and not run:
        raise PipelineError(where, "each would choose a run directory", "Name it with --run.")


def meet(device: str) -> None:
    """Wait until all processes have come here; `device` is cpu or cuda."""
    if count() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu").wait_for_everyone()


def any_of(said: bool) -> bool:
    """Whether any process says so; all have to ask."""
    if count() == 1:
        return said
    import torch
    from accelerate import PartialState

    found = torch.tensor(float(said), device=PartialState().device)
    torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
    return bool(found)


class Follower(RunDir):
    """The leader's run directory as the others see it: they write nothing."""

    def claim(self, config: Mapping[str, Any], inputs: Mapping[str, Any], **_: Any) -> None:
        """The leader does."""

    def write(self, name: str, text: str) -> None:
        """The leader does."""

    def update(self, facts: Mapping[str, Any]) -> None:
        """The leader does."""

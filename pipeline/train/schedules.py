"""Learning-rate schedules by name, each with a linear warm-up.

    scheduler = schedule(optimizer, "cosine", total_steps=1000, warmup_steps=50)
    trainer = SFTTrainer(model, args, ..., optimizers=(optimizer, scheduler))

One factor for all parameter groups: layer-wise rates keep their ratios. torch is imported where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pipeline.config import unknown

if TYPE_CHECKING:
    import torch

SCHEDULES: dict[str, str] = {
    "cosine": "falls to the floor along half a cosine (arXiv:1608.03983)",
    "linear": "falls to the floor along a line",
    "constant": "stays",
    "step": "is multiplied by gamma after every step_every steps",
    "exponential": "falls smoothly, by gamma over every step_every steps",
}


def schedule(
    optimizer: torch.optim.Optimizer,
    name: str,
    *,
    total_steps: int,
    warmup_steps: int,
    step_every: int | None = None,
    gamma: float = 0.5,
    floor: float = 0.0,
) -> torch.optim.lr_scheduler.LambdaLR:
    """Let the rates of all groups rise from 0 along a line over the warm-up and then follow `name`.

    `step_every` counts from the end of the warm-up (default: a quarter of what follows it); `floor` is the
    fraction of the peak that the fall approaches. cosine and linear equal transformers' own at floor 0.
    """
    from torch.optim.lr_scheduler import LambdaLR

    if name not in SCHEDULES:
        raise unknown("schedule", f"schedule '{name}'", name, SCHEDULES)
    rest = max(1, total_steps - warmup_steps)
    every = step_every or max(1, rest // 4)
    shapes: dict[str, Callable[[int], float]] = {
        "cosine": lambda step: 0.5 * (1 + math.cos(math.pi * min(1.0, step / rest))),
        "linear": lambda step: 1 - min(1.0, step / rest),
        "constant": lambda step: 1.0,
        "step": lambda step: gamma ** (step // every),
        "exponential": lambda step: gamma ** (step / every),
    }

    def factor(step: int) -> float:
        """The fraction of the peak at an update, counted from 0."""
        if step < warmup_steps:
            return step / warmup_steps
        return floor + (1 - floor) * shapes[name](step - warmup_steps)

    return LambdaLR(optimizer, factor)

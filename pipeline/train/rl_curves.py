"""The curves of a run that learnt from rewards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.lines import StoredRows
from pipeline.train.curves import by_step, panels, write

Row = dict[str, Any]


def draw_rl(metrics: Path, folder: Path, ends: Sequence[Row] = ()) -> None:
    """Write rewards.svg and rewards.png: reward, satisfied share, length and divergence by step.

    `ends` are records of the looks before and after the training.
    """
    rows = sorted([*StoredRows(metrics), *ends], key=lambda row: row["step"])
    figure, axes = panels(4)
    by_step(axes[0], rows, "reward", "reward")
    by_step(axes[1], rows, "satisfied", "held-out prompts with all checks passed")
    by_step(axes[2], rows, "completions/mean_length", "tokens of an answer")
    by_step(axes[2], rows, "mean_length", "tokens of an answer")
    by_step(axes[3], rows, "kl/answer", "KL from the reference (nats an answer)")
    write(figure, folder, "rewards")

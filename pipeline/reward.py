"""Train a reward model: of two answers the better one gets the higher score.

A sequence classifier with one output, trained by TRL's RewardTrainer with the Bradley-Terry loss (Bradley &
Terry 1952; Stiennon et al. 2020, arXiv:2009.01325), with a margin if wanted, on the newest pairs that python
-m pipeline.preferences made or on any file of preferences. Before it starts it is proved that the score of an
answer is read at its end token and does not depend on the batch.

  python -m pipeline.reward                          # the newest preferences, on the embedded model
  python -m pipeline.reward pairs.jsonl --model runs/sft-001 --tuning full
  python -m pipeline.reward merge runs/reward-001    # write the whole model to runs/reward-001/merged
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import run_command
from pipeline.train.command import act, parsed, trainer_words
from pipeline.train.preference_options import RewardOptions as Options

__all__ = ["Options", "main", "trainer_words"]


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if argv[:1] == ["merge"]:
        return act("merge", argv[1:], "reward")
    runs = Path("runs")
    options = parsed(Options, argv, "reward", __doc__ or "", runs)
    from pipeline.train import start
    from pipeline.train.reward_job import RewardJob

    return start.run(RewardJob, options, runs)


if __name__ == "__main__":
    run_command(main)

"""Train a policy on rewards of its own answers: GRPO and its relatives.

Group relative policy optimisation (Shao et al. 2024, arXiv:2402.03300) by TRL's trainer: several answers are
drawn to each prompt and held against their group's mean reward. Prompts are those of the newest run of
pipeline.preferences, or any file with prompts and verifiers; rewards are named and weighted.

  python -m pipeline.grpo                                    # checks as reward, on the newest SFT model
  python -m pipeline.grpo prompts.jsonl --reward checks:1 length=80:0.2 repetition:0.5
  python -m pipeline.grpo prompts.jsonl --reward reward_model=runs/reward-001 --loss dr_grpo
  python -m pipeline.grpo --resume                           # after Ctrl-C or a kill
  python -m pipeline.grpo merge runs/grpo-001                # write the whole model to runs/grpo-001/merged
  python -m pipeline.grpo chat runs/grpo-001                 # talk to it
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import run_command
from pipeline.train.command import act, parsed, trainer_words
from pipeline.train.rl_options import GRPOOptions as Options

__all__ = ["Options", "main", "trainer_words"]


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if argv[:1] and argv[0] in ("merge", "chat"):
        return act(argv[0], argv[1:], "grpo")
    runs = Path("runs")
    options = parsed(Options, argv, "grpo", __doc__ or "", runs)
    from pipeline.train import start
    from pipeline.train.grpo_job import GRPOJob

    return start.run(GRPOJob, options, runs)


if __name__ == "__main__":
    run_command(main)

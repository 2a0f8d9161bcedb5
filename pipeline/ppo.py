"""Train a policy on rewards of its own answers: PPO with a learned value model.

Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) as in InstructGPT: the answer's reward
comes with its last token, every token pays for its divergence from the reference, a value model says what was
to be expected. Prompts and rewards are those of pipeline.grpo.

  python -m pipeline.ppo                                     # checks as reward, on the newest SFT model
  python -m pipeline.ppo prompts.jsonl --reward reward_model=runs/reward-001 --kl-control adaptive
  python -m pipeline.ppo --resume                            # after Ctrl-C or a kill
  python -m pipeline.ppo merge runs/ppo-001                  # write the whole model to runs/ppo-001/merged
  python -m pipeline.ppo chat runs/ppo-001                   # talk to it
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import run_command
from pipeline.train.command import act, parsed, trainer_words
from pipeline.train.rl_options import PPOOptions as Options

__all__ = ["Options", "main", "trainer_words"]


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if argv[:1] and argv[0] in ("merge", "chat"):
        return act(argv[0], argv[1:], "ppo")
    runs = Path("runs")
    options = parsed(Options, argv, "ppo", __doc__ or "", runs)
    from pipeline.train import start
    from pipeline.train.ppo_job import PPOJob

    return start.run(PPOJob, options, runs)


if __name__ == "__main__":
    run_command(main)

"""Train a policy on preferences: DPO and its relatives, KTO, ORPO, by one word.

Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) by TRL's trainers on pairs of a chosen
and a rejected answer: the newest that python -m pipeline.preferences made, or any file in TRL's, ShareGPT's,
Alpaca's or UltraFeedback's shape. The policy is the newest model of pipeline.sft. Before it starts, a mask
audit compares what the loss reads of both answers, token by token, with what was proved.

  python -m pipeline.dpo                            # the newest preferences on the newest SFT model
  python -m pipeline.dpo pairs.jsonl --model runs/sft-001 --loss ipo --tuning full
  python -m pipeline.dpo rated.jsonl --loss kto     # single answers with a label
  python -m pipeline.dpo merge runs/dpo-001         # write the whole model to runs/dpo-001/merged
  python -m pipeline.dpo chat runs/dpo-001          # talk to it
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import run_command
from pipeline.train.command import act, parsed, trainer_words
from pipeline.train.preference_options import DPOOptions as Options

__all__ = ["Options", "main", "trainer_words"]


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if argv[:1] and argv[0] in ("merge", "chat"):
        return act(argv[0], argv[1:], "dpo")
    runs = Path("runs")
    options = parsed(Options, argv, "dpo", __doc__ or "", runs)
    from pipeline.train import start
    from pipeline.train.dpo_job import DPOJob

    return start.run(DPOJob, options, runs)


if __name__ == "__main__":
    run_command(main)

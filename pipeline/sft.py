"""Train a model on instructions: every way of tuning by one word, the loss on exactly the answers.

Supervised fine-tuning by TRL's SFTTrainer on any dataset this project made (the newest finished one by
default) or any Alpaca, conversational, ShareGPT or prompt-completion file. Before it starts, a mask audit
compares what the trainer would train on, token by token, with what was proved to be an answer and its end.

  python -m pipeline.sft                       # a LoRA of the embedded model on the newest dataset
  python -m pipeline.sft data.jsonl --format alpaca --tuning full
  python -m pipeline.sft merge runs/sft-001    # write the whole model to runs/sft-001/merged
  python -m pipeline.sft chat runs/sft-001     # talk to it
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import run_command
from pipeline.train.command import act, parsed, trainer_words
from pipeline.train.sft_options import Options

if TYPE_CHECKING:
    from pipeline.train.job import Job

__all__ = ["Options", "main", "trainer_words"]


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    if argv[:1] and argv[0] in ("merge", "chat"):
        return act(argv[0], argv[1:], "sft")
    runs = Path("runs")
    options = parsed(Options, argv, "sft", __doc__ or "", runs)
    from pipeline.train import start

    return start.run(_job(options), options, runs)


def _job(options: Options) -> type[Job]:
    if options.task == "classify":
        from pipeline.train.classify_job import ClassifyJob

        return ClassifyJob
    from pipeline.train.sft_job import SFTJob

    return SFTJob


if __name__ == "__main__":
    run_command(main)

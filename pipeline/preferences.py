"""Sample answers, have them judged, and pair them as chosen and rejected.

Each prompt is answered several times, by one model or by several in turn (UltraFeedback, arXiv 2310.01377).
Answers are judged by what can be checked (constraints as in IFEval, maths, code in a sandbox), by a model
that compares two of them in both orders or rates one, by a reward model, or by people. Pairs for DPO and
reward models, the best answers for SFT (rejection sampling) and prompts with verifiers for PPO and GRPO come
out, and what is to be known of the judges: agreement, flips, ties, length bias.

  python -m pipeline.preferences --constraints 2 --model runs/sft-001     # on the newest dataset's prompts
  python -m pipeline.preferences prompts.jsonl --judges pairwise --judge-model MODEL
  python -m pipeline.preferences runs/preferences-001/answers.jsonl --num-answers 0 --judges human
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.config import parse
from pipeline.errors import run_command
from pipeline.judging.options import Options
from pipeline.rundir import resumable


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    prog, doc, runs = "python -m pipeline.preferences", __doc__ or "", Path("runs")
    options = parse(Options, argv, prog=prog, doc=doc)
    if options.resume:
        folder = resumable(Path(options.run) if options.run else None, runs, "preferences")
        options = replace(
            parse(Options, argv, prog=prog, doc=doc, base=folder / "config.yaml"), run=str(folder)
        )
    from pipeline.judging import command

    return command.run(options, runs)


if __name__ == "__main__":
    run_command(main)

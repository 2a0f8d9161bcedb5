"""Rounds of generate, filter, train and evaluate: each round's policy writes the next round's data.

A round runs the ordinary commands, each in a run directory of its own: selfinstruct with the policy as it is
(or a fixed teacher, or both), SFT on that, the seeds and a share of the good rounds before, preferences and
DPO (or GRPO, PPO), an evaluation on held-out tasks. Instructions are shared: none comes twice. A round whose
data collapsed, that made the policy worse beyond its interval, or that gives held-out tasks away is rejected
and recorded as such, and the next one begins with the last good policy.

  python -m pipeline.loop --recipe tiny                  # two rounds on the embedded model, on a CPU
  python -m pipeline.loop --rounds 3 --set selfinstruct.num_examples=500 sft.num_epochs=2
  python -m pipeline.loop --stages selfinstruct sft grpo evaluate --set grpo.constraints=2
  python -m pipeline.loop --resume                       # after Ctrl-C or a kill, at any stage
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import parse
from pipeline.errors import run_command
from pipeline.rounds.options import Options
from pipeline.rundir import resumable


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    prog, doc, runs = "python -m pipeline.loop", __doc__ or "", Path("runs")
    options = parse(Options, argv, prog=prog, doc=doc)
    if options.resume:
        folder = resumable(Path(options.run) if options.run else None, runs, "loop")
        options = parse(Options, argv, prog=prog, doc=doc, base=folder / "config.yaml")
        options = replace(options, run=str(folder))
    elif options.recipe:
        from pipeline.rounds.recipe import read

        recipe: dict[str, Any] = read(options.recipe)
        said = options.set
        options = parse(Options, argv, prog=prog, doc=doc, base=recipe)
        options = replace(options, set=(*recipe["set"], *said))
    from pipeline.rounds import command

    return command.run(options, runs)


if __name__ == "__main__":
    run_command(main)

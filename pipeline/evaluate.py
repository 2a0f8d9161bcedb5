"""Measure a model on held-out tasks, find out why it fails, and compare it with another.

Held-out loss of the reference answers, ROUGE-L, success by what can be checked (constraints as in IFEval,
maths, code in a sandbox, labels), a judge if one is asked for, stops, loops, diversity; by kind of task, with
95% intervals over tasks. The training data of the run and of its bases are searched for the held-out tasks
(n-grams, ROUGE-L, meaning). Failures are grouped by reason and kind, and say which seeds would help.

  python -m pipeline.evaluate                              # the newest trained model on seeds/heldout/
  python -m pipeline.evaluate runs/dpo-001 --contamination exclude
  python -m pipeline.evaluate --heldout test.jsonl --judge-model MODEL --suggest-seeds candidates.jsonl
  python -m pipeline.evaluate compare runs/evaluate-001 runs/evaluate-002
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.config import parse
from pipeline.errors import run_command
from pipeline.evaluation.options import CompareOptions, Options
from pipeline.rundir import resumable


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    prog, doc, runs = "python -m pipeline.evaluate", __doc__ or "", Path("runs")
    if argv[:1] == ["compare"]:
        compared = parse(CompareOptions, argv[1:], prog=f"{prog} compare", doc=doc)
        from pipeline.evaluation import compare

        return compare.run(compared)
    options = parse(Options, argv, prog=prog, doc=doc)
    if options.resume:
        folder = resumable(Path(options.run) if options.run else None, runs, "evaluate")
        options = replace(
            parse(Options, argv, prog=prog, doc=doc, base=folder / "config.yaml"), run=str(folder)
        )
    from pipeline.evaluation import command

    return command.run(options, runs)


if __name__ == "__main__":
    run_command(main)

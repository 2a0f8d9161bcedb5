"""Turn hand-written seed tasks into a validated instruction dataset with a language model.

Self-Instruct (Wang et al. 2022, arXiv:2212.10560), with these deviations:
 1. Chinese is measured in jieba words; the original tokenizer sees every Chinese instruction as empty.
 2. Inputs and answers are asked for in separate requests: an instruct model answers in its own chat form.
 3. Whether an input is needed is told by the instruction's own words for small models (--input-decision).
 4. A proposal may be primed with a first word (--prime), which keeps small models to requests.
 5. Instructions that surprise the small model that wrote them are dropped (--min-plausibility,
    --max-surprisal); a first verb that leaves no doubt (classify, explain) decides on the kind of task.
 6. Sentence embeddings remove paraphrases that ROUGE-L misses; validation is stricter than the original's.
 7. --evolve-frac makes harder or rarer ones of some instructions (Evol-Instruct, arXiv:2304.12244).

  python -m pipeline.selfinstruct --seeds seeds/ --num-examples 100
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.config import parse
from pipeline.errors import PipelineError, run_command
from pipeline.rundir import resumable
from pipeline.stages.options import Options


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    prog, doc, runs = "python -m pipeline.selfinstruct", __doc__ or "", Path("runs")
    options = parse(Options, argv, prog=prog, doc=doc)
    if options.resume:
        folder = resumable(Path(options.run) if options.run else None, runs, "selfinstruct")
        options = replace(
            parse(Options, argv, prog=prog, doc=doc, base=folder / "config.yaml"), run=str(folder)
        )
    for kind in ("words", "output"):
        low, high = getattr(options, f"min_{kind}"), getattr(options, f"max_{kind}")
        if low > high:
            raise PipelineError(
                f"--min-{kind}", f"got {low}, expected at most --max-{kind} ({high})", "Lower it."
            )
    from pipeline.stages import command, dry_run

    if options.check_seeds:
        return command.check_seeds(options)
    if options.dry_run:
        return dry_run.dry_run(options)
    return command.run(options, runs)


if __name__ == "__main__":
    run_command(main)

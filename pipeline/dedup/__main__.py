"""Remove near duplicates, and what gives held-out texts away, from any instruction dataset.

Self-Instruct's rule (Wang et al. 2022, arXiv:2212.10560), exact at any size: a row is kept iff the ROUGE-L F
of its instruction and input against every row kept before is at most 0.7. By options also embeddings, and
n-grams that are shared with held-out files (Brown et al. 2020, arXiv:2005.14165). Every drop names its
neighbour and the score.

  python -m pipeline.dedup data.jsonl --out runs/clean
"""

from __future__ import annotations

from pipeline.config import parse
from pipeline.dedup.options import Options
from pipeline.errors import PipelineError, run_command


def main(argv: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = parse(Options, argv, prog="python -m pipeline.dedup", doc=__doc__ or "")
    if not options.inputs:
        raise PipelineError(
            "command line", "no rows given", "Name a file: python -m pipeline.dedup IN --out DIR"
        )
    if not options.out:
        raise PipelineError("--out", "got none, expected a directory for the result", "Add --out DIR.")
    from pipeline.dedup.run import run

    return run(options)


if __name__ == "__main__":
    run_command(main)

"""The options of `python -m pipeline.selfinstruct` that say what is wanted and where it goes."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import option

_RUN = "run"


@dataclass(frozen=True)
class RunOptions:
    """What is wanted and where it goes."""

    seeds: tuple[str, ...] = option(
        ("seeds",), "seed tasks: directories or files (JSONL, Alpaca JSON)", metavar="PATH", group=_RUN
    )
    pool: tuple[str, ...] = option(
        (),
        "finished runs of this command, or files of examples, from earlier rounds: nothing like their "
        "instructions is admitted again, and they are shown like the run's own",
        metavar="PATH",
        group=_RUN,
    )
    round: int = option(
        0, "the round that this run belongs to, written into every example's provenance", low=0, group=_RUN
    )
    run: str = option(
        "", "run directory; none: the next free runs/selfinstruct-NNN", metavar="DIR", group=_RUN
    )
    num_examples: int = option(
        100,
        "kept examples to stop at, for each language that names no number",
        unit="examples",
        low=1,
        group=_RUN,
    )
    languages: tuple[str, ...] = option(
        ("en",),
        "languages to write in, each with its own number if wanted (en zh:20)",
        metavar="LANG[:N]",
        group=_RUN,
    )
    seed: int = option(
        0, "random seed; the same seed, machine and versions give the same bytes", low=0, group=_RUN
    )
    resume: bool = option(
        False, "go on with an interrupted run (of --run, else the newest unfinished one)", group=_RUN
    )
    overwrite: bool = option(False, "start anew in a used run directory", group=_RUN)
    snapshot_every: int = option(
        2000,
        "requests between snapshots, from which --resume goes on without replaying all; 0: none",
        unit="requests",
        low=0,
        group=_RUN,
    )
    dry_run: bool = option(
        False, "show prompts and an estimate from a small pilot; writes no run", group=_RUN
    )
    check_seeds: bool = option(False, "lint the seeds and stop", group=_RUN)

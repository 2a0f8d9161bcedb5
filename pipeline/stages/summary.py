"""Counts and samples of a run for people: the funnel, the table of drops, some examples."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pipeline.lines import StoredRows

if TYPE_CHECKING:
    from pipeline.engines.job import Tally
    from pipeline.stages.flow import SelfInstruct

_CANDIDATE_STAGES = ("parse", "screen", "heldout", "dedup", "classify", "labels")
_INSTANCE_STAGES = ("instantiate", "input", "labelled_input", "answer", "validate", "judge", "export")


def drop_table(job: SelfInstruct) -> dict[str, dict[str, Any]]:
    """Per stage: how many came in, went on, and were dropped for which reason.

    Candidates go through parse, screen, heldout, dedup, classify and labels, instances through the rest; a
    candidate none of whose instances was kept is counted where its instances were dropped.
    """
    table: dict[str, dict[str, Any]] = {}
    for ledger, stages in ((job.candidates, _CANDIDATE_STAGES), (job.instances, _INSTANCE_STAGES)):
        seen = ledger.opened
        for stage in stages:
            dropped = {r: n for (s, r), n in ledger.dropped.most_common() if s == stage}
            if dropped or stage in ("screen", "dedup", "validate"):
                kept = seen - sum(dropped.values())
                table[stage] = {"seen": seen, "kept": kept, "dropped": dropped}
                seen = kept
    return table


def funnel(job: SelfInstruct) -> dict[str, int]:
    """The main counts: proposed, screened, unique, instances, kept."""
    dropped = {
        stage: sum(n for (s, _), n in job.candidates.dropped.items() if s == stage)
        for stage in _CANDIDATE_STAGES
    }
    proposed = job.candidates.opened
    screened = proposed - dropped["parse"] - dropped["screen"]
    return {
        "proposed": proposed,
        "screened": screened,
        "unique": screened - dropped["heldout"] - dropped["dedup"],
        "instances": job.instances.opened,
        "kept": job.instances.kept,
    }


def evolved_counts(job: SelfInstruct) -> dict[str, int]:
    """How many tasks were made of another instruction: proposed, kept."""
    pools = job.pools
    return {"proposed": sum(p.evolved for p in pools), "kept": sum(p.evolved_kept for p in pools)}


def stage_counts(job: SelfInstruct) -> str:
    """The funnel on one line."""
    counts = funnel(job)
    return " > ".join(f"{counts[name]} {name}" for name in counts)


def end_table(job: SelfInstruct, tally: Tally, seconds: float) -> Table:
    """What the user sees at the end of a run."""
    table = Table(title="What became of the proposals", title_justify="left")
    for name, justify in (
        ("stage", "left"),
        ("came in", "right"),
        ("went on", "right"),
        ("dropped, by reason", "left"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for stage, row in drop_table(job).items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in row["dropped"].items())
        table.add_row(stage, str(row["seen"]), str(row["kept"]), reasons or "-")
    table.add_section()
    counts, evolved = funnel(job), evolved_counts(job)
    if evolved["proposed"]:
        ours = evolved["kept"] / evolved["proposed"]
        others = job.candidates.opened - evolved["proposed"]
        theirs = f"{(job.candidates.kept - evolved['kept']) / others:.0%}" if others else "none"
        said = f"{ours:.0%} of the evolved tasks were kept, of the others {theirs}"
        table.add_row("evolved", str(evolved["proposed"]), str(evolved["kept"]), said)
    share = counts["kept"] / counts["proposed"] if counts["proposed"] else 0
    table.add_row(
        "all",
        f"{counts['proposed']}",
        f"{counts['kept']}",
        f"{share:.0%} of the proposals became examples; {tally.requests} requests, "
        f"{tally.prompt_tokens} prompt + "
        f"{tally.completion_tokens} completion tokens, {seconds:.0f} s",
    )
    return table


def sample_lines(kept: Path, count: int) -> list[str]:
    """`count` kept examples, the same ones for the same file."""
    rows, lines = StoredRows(kept), list[str]()
    chosen = set(random.Random(0).sample(range(total := len(rows)), min(count, total)))
    for row in (row for number, row in enumerate(rows) if number in chosen):
        parts = [
            f"  instruction: {row['instruction']}",
            f"  input: {row['input']}" if row["input"] else "",
            f"  output: {row['output']}",
        ]
        lines.append("\n".join([f"example {row['id']}", *(p for p in parts if p)]))
    return lines

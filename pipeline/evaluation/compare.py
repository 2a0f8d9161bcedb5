"""What `python -m pipeline.evaluate compare` does: one table, paired intervals, a verdict for each run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.errors import PipelineError
from pipeline.evaluation.comparison import METRICS, difference, wins
from pipeline.evaluation.options import CompareOptions
from pipeline.intervals import Interval
from pipeline.lines import StoredRows
from pipeline.records import read_text
from pipeline.rundir import RunDir

_WINS = {"success": "success", "judged": "the judge", "reference_logprob": "likelihood of the reference"}
_FEW = 10  # tasks below which a bootstrap says little
_NAMED = 5  # differing tasks that an error names


@dataclass(frozen=True)
class Evaluated:
    """A finished evaluation."""

    name: str
    sheet: Mapping[str, Any]
    answers: list[dict[str, Any]]


def run(options: CompareOptions) -> int:
    """Print the verdicts, with a table beside them; returns the exit code. Raises PipelineError."""
    if len(options.runs) < 2:
        problem = f"got {len(options.runs)} runs, expected at least two"
        raise PipelineError(
            "compare", problem, "Name finished runs: compare runs/evaluate-001 runs/evaluate-002"
        )
    first, *others = [load(name) for name in options.runs]
    for other in others:
        _same_tasks(first, other)
    found = [compared(first, other, options.resamples, options.seed) for other in others]
    if options.out:
        path = Path(options.out)
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"baseline": first.name, "model": first.sheet["model"], "compared": found}
        RunDir(path.parent).write(path.name, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    Console(stderr=True, width=max(110, 40 + 46 * len(found)), highlight=False).print(_table(first, found))
    for one in found:
        for line in one["said"]:
            print(line)
    return 0


def load(name: str) -> Evaluated:
    """A finished evaluation from its directory. Raises PipelineError."""
    folder = Path(name)
    if not (folder / "scores.json").is_file() or not (folder / "answers.jsonl").is_file():
        problem = "it holds no scores.json" if folder.is_dir() else "no such directory"
        raise PipelineError(f"compare {name}", problem, "Name a run of pipeline.evaluate.")
    if not (folder / "DONE").is_file():
        fix = f"Finish it: python -m pipeline.evaluate --resume --run {name}"
        raise PipelineError(f"compare {name}", "the run is not finished", fix)
    try:
        sheet = json.loads(read_text(folder / "scores.json"))
        sheet["heldout"]["digest"]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"this is no score sheet ({error})"
        raise PipelineError(folder / "scores.json", problem, "Evaluate again.") from None
    return Evaluated(name, sheet, list(StoredRows(folder / "answers.jsonl")))


def compared(first: Evaluated, other: Evaluated, resamples: int, seed: int) -> dict[str, Any]:
    """All differences, the win rate and what is to be said of them."""
    pairs = (difference(m, first.answers, other.answers, resamples=resamples, seed=seed) for m in METRICS)
    rows = [row for row in pairs if row]
    won = wins(first.answers, other.answers, resamples=resamples, seed=seed)
    known = {metric.name: place for place, metric in enumerate(METRICS)}
    main = min(rows, key=lambda row: known[row["metric"]])
    out = {"run": other.name, "model": other.sheet["model"], "metrics": rows, **won}
    return {**out, "main": main["metric"], "said": _said(first, other, main, won)}


def _said(first: Evaluated, other: Evaluated, main: Mapping[str, Any], won: Mapping[str, Any]) -> list[str]:
    """The verdict in words, and what to be wary of."""
    change, rate = Interval(**main["difference"]), Interval(**won["win_rate"])
    values = f"{main['metric']} {main['before']:.3f} -> {main['after']:.3f}"
    interval = f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}] over {change.count} tasks"
    names = f"{other.name} against {first.name}"
    by = ", ".join(f"{count} requests by {_WINS[name]}" for name, count in won["decided_by"].items())
    out = [
        f"{names}: {values}, {interval}: {main['verdict']}",
        f"{names}: win rate {rate}: {won['verdict']} ({by})",
    ]
    if change.count < _FEW:
        out.append(f"note: {change.count} tasks are too few for such an interval")
    settings = [
        f"{name} {value} and {other.sheet['settings'][name]}"
        for name, value in first.sheet["settings"].items()
        if value != other.sheet["settings"][name] and name != "seed"
    ]
    return [*out, *([f"note: the answers were drawn otherwise: {', '.join(settings)}"] if settings else [])]


def _same_tasks(first: Evaluated, other: Evaluated) -> None:
    if first.sheet["heldout"]["digest"] == other.sheet["heldout"]["digest"]:
        return
    mine, theirs = ([row["id"] for row in one.answers] for one in (first, other))
    told = []
    for one, ids, against in ((first, mine, set(theirs)), (other, theirs, set(mine))):
        if only := [name for name in ids if name not in against]:
            named = ", ".join(only[:_NAMED]) + (", ..." if len(only) > _NAMED else "")
            told.append(f"{len(only)} only in {one.name} ({named})")
    problem = f"the held-out tasks differ: {'; '.join(told) or 'same names, other texts or checks'}"
    fix = "Evaluate both with the same --heldout and --num-tasks, and without --contamination exclude."
    raise PipelineError(f"compare {first.name} {other.name}", problem, fix)


def _table(first: Evaluated, found: list[dict[str, Any]]) -> Table:
    out = Table(title=f"{first.sheet['heldout']['tasks']} tasks; differences to {first.name}, 95% by paired "
                "bootstrap over tasks", title_justify="left")  # fmt: skip
    out.add_column("what")
    out.add_column(first.name, justify="right")
    for one in found:
        out.add_column(one["run"], justify="right")
    for metric in METRICS:
        rows = [next((row for row in one["metrics"] if row["metric"] == metric.name), None) for one in found]
        if any(rows):
            base = next(row["before"] for row in rows if row)
            out.add_row(metric.name, f"{base:.3f}", *(_cell(row) for row in rows))
    for name, what in _WINS.items():
        rates = [one["by"].get(name) for one in found]
        if any(rates):
            out.add_row(f"win rate by {what}", "", *(_rate(one) for one in rates))
    return out


def _rate(found: Mapping[str, Any] | None) -> str:
    return f"{Interval(**found['win_rate'])}\n{found['verdict']}" if found else "unknown"


def _cell(row: Mapping[str, Any] | None) -> str:
    if not row:
        return "unknown"
    change = Interval(**row["difference"])
    interval = f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"
    return f"{row['after']:.3f} ({interval})\n{row['verdict']}"

"""What became of the rows: kept.jsonl, dropped.jsonl, the ledger and what a user is shown of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path

from rich.table import Table

from pipeline.dedup.contamination import Finding
from pipeline.dedup.duplicates import NEAR_DUPLICATE, SAME_MEANING
from pipeline.ledger import Ledger
from pipeline.lines import LineFile
from pipeline.rows import Row, json_line

CONTAMINATED, MARK = "contaminated", "contamination"
_STAGES = {NEAR_DUPLICATE: "dedup", SAME_MEANING: "dedup", CONTAMINATED: "heldout"}
_SHOWN = 5  # drops of each reason that are remembered
_CUT = 200  # characters of a row that is shown


class Outcome:
    """Every row is kept or dropped with a reason; lines are written when `write` is called."""

    def __init__(self, folder: Path) -> None:
        self.ledger, self.marked = Ledger("row"), 0
        self._kept = LineFile(folder / "kept.jsonl", anew=True)
        self._dropped = LineFile(folder / "dropped.jsonl", anew=True)
        self._lines: tuple[list[str], list[str]] = [], []
        self._shown: defaultdict[str, list[str]] = defaultdict(list)

    def take(self, rows: Sequence[Row]) -> None:
        """Take in rows that were read."""
        for row in rows:
            self.ledger.open(row.where)

    def keep(self, row: Row, findings: Sequence[Finding] = ()) -> None:
        """Keep a row as it is, or with what was found in a field of its own."""
        self.ledger.keep(row.where)
        line = row.line
        if findings:
            self.marked += 1
            line = json_line({**row.fields, MARK: [f.as_json() for f in findings]}, row.where)
        self._lines[0].append(line)

    def drop(self, row: Row, reason: str, findings: Sequence[Finding]) -> None:
        """Drop a row for a reason, with its evidence and as it was."""
        self.ledger.drop(row.where, _STAGES[reason], reason)
        why = {"stage": _STAGES[reason], "reason": reason, "evidence": [f.as_json() for f in findings]}
        head = json_line({"unit": "row", "id": row.name, **why}, row.where)
        self._lines[1].append(f'{head[:-1]}, "row": {row.line}}}')  # the row in its own words
        if len(shown := self._shown[reason]) < _SHOWN:
            said = " ".join(row.line.split())
            shown.append(f"{reason}: {row.name}: {said[:_CUT]}\n    {findings[0].sentence()}")

    def write(self) -> None:
        """Write the lines gathered so far. Raises PipelineError if the disk refuses."""
        for file, lines in zip((self._kept, self._dropped), self._lines, strict=True):
            file.append_bytes("".join(line + "\n" for line in lines).encode())
            lines.clear()

    def close(self) -> None:
        """Close the files."""
        self._kept.close()
        self._dropped.close()

    def table(self, seconds: float) -> Table:
        """Rows read, kept and dropped by reason."""
        table = Table(title="What became of the rows", title_justify="left")
        table.add_column("")
        table.add_column("rows", justify="right")
        table.add_column("share", justify="right")
        ledger = self.ledger
        counts = [("read", ledger.opened), ("kept", ledger.kept)]
        counts += [("of these marked", self.marked)] if self.marked else []
        counts += [(f"dropped: {reason}", count) for (_, reason), count in ledger.dropped.most_common()]
        for name, count in counts:
            table.add_row(name, f"{count:,}", f"{count / max(ledger.opened, 1):.1%}")
        table.add_row("seconds", f"{seconds:.1f}", "")
        return table

    def examples(self, count: int) -> list[str]:
        """Some drops with their neighbours, reasons in turn."""
        turns = chain.from_iterable(zip_longest(*self._shown.values()))
        return [line for line in turns if line][:count]

"""The table over rounds, for the terminal and as Markdown, and its plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from pipeline.rounds.scores import Scored

Row = Mapping[str, Any]
_COLUMNS = (  # heading, field, digits
    ("kept", "kept", 0),
    ("of proposed", "proposed", 0),
    ("acceptance", "acceptance", 3),
    ("evolved", "evolved", 2),
    ("words", "complexity", 1),
    ("diversity", "diversity", 3),
    ("held-out loss", "loss", 3),
    ("success", "success", 3),
    ("ended", "stopped", 3),
    ("win rate", "win_rate", 3),
)
_PLOTTED = ("acceptance", "diversity", "loss", "success", "win_rate")


def with_wins(rows: Sequence[Row], scored: Mapping[str, Scored]) -> list[dict[str, Any]]:
    """The rows, each model with its win rate against round 0's (its last model's)."""
    base = scored.get("round 0")
    out = []
    for row in rows:
        mine = scored.get(row["name"])
        rate = mine.win_rate(base).as_json() if base and mine and mine is not base else None
        out.append({**row, "win_rate": rate})
    return out


def terminal(rows: Sequence[Row]) -> Table:
    """With the verdicts."""
    out = Table(title="rounds; 95% intervals; win rate against round 0", title_justify="left")
    for heading in ("model", *(heading for heading, *_ in _COLUMNS), "verdict"):
        out.add_column(heading)
    for row in rows:
        out.add_row(row["name"], *(_cell(row, field, digits) for _, field, digits in _COLUMNS), _verdict(row))
    return out


def markdown(rows: Sequence[Row]) -> str:
    """The same, and below it why rounds were rejected and what alarms there were."""
    head = ["model", *(heading for heading, *_ in _COLUMNS), "verdict"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [
            row["name"],
            *(_cell(row, field, digits).replace("\n", " ") for _, field, digits in _COLUMNS),
        ]
        lines.append("| " + " | ".join([*cells, _verdict(row)]) + " |")
    said = [f"- {row['name']}: {line}" for row in rows for line in _said(row)]
    return "\n".join([*lines, "", "95% intervals in brackets; win rate against round 0.", *said]) + "\n"


def _said(row: Row) -> list[str]:
    out = [f"rejected: {line}" for line in row.get("why", ())]
    return [*out, *(f"alarm: {line}" for line in row.get("alarms", ())), *row.get("notes", ())]


def _verdict(row: Row) -> str:
    return str(row.get("verdict", ""))


def _cell(row: Row, field: str, digits: int) -> str:
    found = row.get(field)
    if found is None:
        return ""
    if not isinstance(found, Mapping):
        return f"{found:.{digits}f}"
    return f"{found['value']:.{digits}f}\n[{found['low']:.{digits}f}, {found['high']:.{digits}f}]"


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Write rounds.svg and rounds.png: figures over the models with their intervals; hollow: rejected."""
    from pipeline.train.curves import panels, write

    headings = {field: heading for heading, field, _ in _COLUMNS}
    figure, axes = panels(len(_PLOTTED))
    for one, field in zip(axes, _PLOTTED, strict=True):
        points = [(place, row[field], row) for place, row in enumerate(rows) if row.get(field)]
        for place, found, row in points:
            low, high = found["value"] - found["low"], found["high"] - found["value"]
            hollow = row.get("verdict") == "rejected"
            one.errorbar(
                place, found["value"], [[low], [high]], fmt="o", color="C0", capsize=3,
                markerfacecolor="none" if hollow else "C0",
            )  # fmt: skip
        one.set_xticks(range(len(rows)), [row["name"] for row in rows], rotation=30, ha="right")
        one.set_xlim(-0.5, len(rows) - 0.5)
        one.set_ylabel(headings[field] + (" against round 0" if field == "win_rate" else ""))
    write(figure, folder, "rounds")

"""Where an interrupted run goes on."""

from __future__ import annotations

from pathlib import Path

from pipeline.lines import StoredRows
from pipeline.records import to_json
from pipeline.rundir import RunDir
from pipeline.train import adapters


def newest(target: RunDir, method: str) -> Path | None:
    """The newest whole checkpoint; rows of later steps, which will be taken again, are cut off."""
    folders = (target.path / "checkpoints").glob("checkpoint-*")
    # without the last of its files a kill came in between
    last = adapters.last_written(method)
    found = sorted((path for path in folders if (path / last).is_file()), key=_step)
    if not found:
        return None
    step = _step(found[-1])
    _cut(target, "metrics.jsonl", step)
    if (target.path / "rollouts.jsonl").exists():  # a step's answers are drawn when those before are done
        _cut(target, "rollouts.jsonl", step - 1)
    return found[-1]


def _cut(target: RunDir, name: str, last: int) -> None:
    """Leave out the rows of later steps."""
    rows = [row for row in StoredRows(target.path / name) if row["step"] <= last]
    target.write(name, "".join(to_json(row) + "\n" for row in rows))


def _step(path: Path) -> int:
    return int(path.name.rsplit("-", 1)[1])

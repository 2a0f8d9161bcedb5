"""`--pool`: instructions of earlier rounds, which count as admitted before and are shown like a run's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.format.conversations import conversations
from pipeline.format.sources import Source, find_sources
from pipeline.records import LANGUAGES, text_field
from pipeline.rows import Row
from pipeline.rundir import RunDir, shown
from pipeline.stages.language import row_language
from pipeline.stages.text import collapse

KEPT = "kept.jsonl"

Earlier = Mapping[str, Sequence[tuple[str, str]]]  # by language: (id, instruction)


def earlier_sources(names: Sequence[str]) -> list[Source]:
    """The files that `names` mean. Raises PipelineError; a run must be finished."""
    for name in names:
        run = _run(Path(name))
        if run and not RunDir(run).done:
            fix = f"Finish it (python -m pipeline.selfinstruct --resume --run {run}), or leave it out."
            raise PipelineError(f"--pool {name}", "the run is not finished", fix)
    return find_sources(names, KEPT)


def read_earlier(sources: Sequence[Source]) -> Earlier:
    """Every instruction once, under the id of its first row: the run or file, and the row's id or line.

    Raises PipelineError.
    """
    found: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
    taken: set[str] = set()
    for source in sources:
        run = _run(Path(source.name))
        place = shown(run or Path(source.name))
        for row in source.rows():
            instruction = _instruction(row)
            key = f"{place}:{row.fields['id']}" if "id" in row.fields else ""
            key = row.where if not key or key in taken else key
            taken.add(key)
            found[row_language(row.fields, instruction)].setdefault(instruction, key)
    return {language: [(key, text) for text, key in mine.items()] for language, mine in found.items()}


def _run(path: Path) -> Path | None:
    """The run directory that is named, or whose kept.jsonl is."""
    folder = path.parent if path.name == KEPT else path
    return folder if (folder / "config.yaml").is_file() else None


def _instruction(row: Row) -> str:
    if "instruction" in row.fields:
        return collapse(text_field(row.fields, "instruction", row.where))
    if isinstance(row.fields.get("prompt"), str):
        return collapse(text_field(row.fields, "prompt", row.where))
    try:
        return collapse(next(conversations(row)).key)
    except PipelineError as error:
        raise PipelineError(error.where, error.problem, "Fix the row, or leave the file out.") from None

"""Where the rows of a data set come from: JSONL, JSON arrays, Parquet, directories and runs, the hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.errors import PipelineError, disk_errors
from pipeline.format.hub import HubDataset, hub_dataset
from pipeline.rows import NO_ROWS, Row, json_line, read_rows
from pipeline.rundir import file_digest

SUFFIXES = (".jsonl", ".json", ".parquet")


class Source(Protocol):
    """Something that rows come from."""

    @property
    def name(self) -> str:
        """What run.json calls it."""

    @property
    def identity(self) -> str:
        """The same for the same rows, whatever they were called."""

    def digest(self) -> str:
        """What changes when the rows change."""

    def rows(self) -> Iterator[Row]:
        """The rows, read anew each time. Raises PipelineError naming file and line."""


def find_sources(names: Sequence[str], rows: str = "kept.jsonl") -> list[Source]:
    """The files and hub datasets that `names` mean; nothing is read yet. Raises PipelineError.

    A run directory of ours means its file `rows`, a dataset directory its data/*.parquet, any other directory
    its own files, by name, without subfolders.
    """
    found: list[Source] = []
    for name in names:
        if Path(name).exists():
            found += [File(path) for path in _files(Path(name), rows)]
        else:
            found.append(hub_source(name))
    seen: set[str] = set()
    for source in found:
        if source.identity in seen:
            raise PipelineError(source.name, "it is named twice", "Name every file once.")
        seen.add(source.identity)
    return found


def _files(path: Path, rows: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise PipelineError(
            path, "this is no regular file, and a file is read twice", "Write it to the disk first."
        )
    if (path / rows).is_file():
        return [path / rows]
    if (path / "config.yaml").is_file():
        raise PipelineError(path, f"the run made no {rows}", "Name another run, or a file.")
    with disk_errors(path):
        for folder, suffixes in ((path / "data", SUFFIXES[2:]), (path, SUFFIXES)):
            if folder.is_dir():
                inside = sorted(f for f in folder.iterdir() if f.suffix.lower() in suffixes and f.is_file())
                if inside:
                    return inside
    raise PipelineError(
        path, f"the directory has no file that ends in {', '.join(SUFFIXES)}", "Name the files."
    )


@dataclass(frozen=True)
class File:
    """A file of rows."""

    path: Path

    @property
    def name(self) -> str:
        """Its path as it was given."""
        return str(self.path)

    @property
    def identity(self) -> str:
        """Its full path."""
        return str(self.path.resolve())

    def digest(self) -> str:
        """The SHA-256 of its bytes."""
        return file_digest(self.path)

    def rows(self) -> Iterator[Row]:
        """The rows, read as they go. Raises PipelineError."""
        return _parquet_rows(self.path) if self.path.suffix.lower() == ".parquet" else read_rows(self.path)


def _parquet_rows(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet

    number = 0
    with disk_errors(path):
        try:
            for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
                for fields in batch.to_pylist():
                    where = f"{path}[{number}]"
                    yield Row(where, fields, json_line(fields, where))
                    number += 1
        except ArrowException as error:
            said = str(error).splitlines()[0].rstrip(".")
            raise PipelineError(path, f"not Parquet ({said})", "Mend the file.") from None
    if not number:
        raise PipelineError(path, "the file is empty, expected at least one row", NO_ROWS)


def hub_source(name: str) -> Source:
    """The hub dataset `name`. Raises PipelineError if that is no such name."""
    found = hub_dataset(name) if Path(name.split(":")[0]).suffix.lower() not in SUFFIXES else None
    if not found:
        problem = "no such file or directory, and not the name of a hub dataset (owner/name)"
        raise PipelineError(name, problem, "Correct the path.")
    return _Hub(found)


@dataclass(frozen=True)
class _Hub:
    """A split of a hub dataset as a source."""

    dataset: HubDataset

    @property
    def name(self) -> str:
        """Its name as it was given."""
        return self.dataset.name

    @property
    def identity(self) -> str:
        """Its name."""
        return self.name

    def digest(self) -> str:
        """What the `datasets` library knows this version by."""
        return self.dataset.digest()

    def rows(self) -> Iterator[Row]:
        """The rows, as they come from the hub."""
        empty = True
        for number, fields in enumerate(self.dataset.rows()):
            empty, where = False, f"{self.name}[{number}]"
            yield Row(where, fields, json_line(fields, where))
        if empty:
            raise PipelineError(self.name, "the split is empty, expected at least one row", "Name another.")
